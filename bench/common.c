/* common.c: errors, time, numbers and sockets for the load generator and the sink. */
#include "common.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

enum { LISTEN_BACKLOG = 4096 };

void die(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (error != 0)
        fprintf(stderr, ": %s", strerror(error));
    fputc('\n', stderr);
    exit(2);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("no memory for %zu x %zu octets", count, size);
    return memory;
}

void *reallocate(void *old, size_t count, size_t size)
{
    void *memory = reallocarray(old, count, size);
    if (memory == NULL)
        die("no memory for %zu x %zu octets", count, size);
    return memory;
}

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static unsigned unit_shift(const char *unit)
{
    static const char *const units[] = {"", "K", "M", "G"};
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(unit, units[i]) == 0)
            return i * 10;
    return 64;
}

uint64_t parse_number(const char *text, const char *what)
{
    const uint64_t limit = (uint64_t)1 << 62;
    char *unit = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &unit, 10);
    unsigned shift = unit_shift(unit);
    bool wrong = errno != 0 || *text < '0' || *text > '9' || shift > 30 || number > limit >> shift;
    errno = 0;
    if (wrong)
        die("%s: %s is not a number", what, text);
    return (uint64_t)number << shift;
}

struct endpoint parse_endpoint(const char *host, const char *port)
{
    struct addrinfo hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(host, port, &hints, &found);
    errno = 0;
    if (failure != 0)
        die("%s port %s: %s", host, port, gai_strerror(failure));
    struct endpoint endpoint = {.length = found->ai_addrlen};
    memcpy(&endpoint.address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return endpoint;
}

int listen_on(const struct endpoint *endpoint)
{
    int fd = socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        die("socket");
    if (bind(fd, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0)
        die("bind");
    if (listen(fd, LISTEN_BACKLOG) != 0)
        die("listen");
    return fd;
}

unsigned bound_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    if (address.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&address)->sin_port);
}

void set_nodelay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("TCP_NODELAY");
}

void watch(int epoll, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}
