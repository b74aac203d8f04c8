/* common.h: what the load generator and the sink share: errors, time, numbers and sockets. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A socket address, ready for bind() and connect(). */
struct endpoint {
    struct sockaddr_storage address;
    socklen_t length;
};

/* Print a message (with the text of errno if it is set) and exit with status 2. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* calloc() and realloc() that never return NULL. */
void *allocate(size_t count, size_t size);
void *reallocate(void *old, size_t count, size_t size);

/* Nanoseconds of the monotonic clock. */
int64_t now_ns(void);

/* Read a whole number, 0 to 2^62, with an optional K, M or G (powers of 1024). Dies, naming `what`, if it is none. */
uint64_t parse_number(const char *text, const char *what);

/* Turn a numeric IPv4 or IPv6 address and a port into an endpoint. Dies if it is none. */
struct endpoint parse_endpoint(const char *host, const char *port);

/* A non-blocking listening socket. Dies on failure. */
int listen_on(const struct endpoint *endpoint);

/* The port a socket is bound to. */
unsigned bound_port(int fd);

/* Switch Nagle's algorithm off: both programs write each flight at once. */
void set_nodelay(int fd);

/* Add a descriptor to an epoll set; `data` comes back with its events. */
void watch(int epoll, int fd, uint32_t events, void *data);

#endif
