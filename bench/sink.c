/* sink.c: a lean SMTP server that swallows messages. It prints {"port": N} when it listens, its counters as one JSON line
 * on SIGUSR1, and the same once more on SIGTERM or SIGINT, when it exits.
 *
 * With --pipelining and --chunking it is a modern server that also takes commands before its greeting, so that a plain TCP
 * proxy in front of it can carry early talk. Without --pipelining it is a strict lock-step server: whoever sends anything
 * while a reply is owed is counted as a violation and cut off. Replies are small, so a connection whose socket does not
 * take them at once is closed. */
#include "common.h"
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { READ_SIZE = 256 * 1024, EVENTS = 256, TICKS_PER_SECOND = 50 };

struct connection {
    int fd;
    struct server server;
    uint64_t allowance;                 /* with --rate: octets of mail data that may be read until the next tick */
    struct connection *next_waiting;    /* with --rate: the list of those that wait for the tick */
};

static struct service service;
static uint64_t rate;                   /* 0: as fast as can be */
static uint64_t connections, open_connections;
static struct connection *waiting;      /* these are not in the epoll set */
static int epoll, listener, signals, ticker;
static int listener_mark, signal_mark, ticker_mark;     /* their addresses stand for the descriptors in epoll events */

/* Connections */

static void close_connection(struct connection *connection)
{
    open_connections--;
    close(connection->fd);
    server_end(&connection->server);
    free(connection);
}

/* Gives false when not all of the replies could be sent. */
static bool send_replies(const struct connection *connection)
{
    ssize_t length = (ssize_t)service.reply_length;
    bool complete = length == 0 || send(connection->fd, service.replies, service.reply_length, MSG_NOSIGNAL) == length;
    complete = complete && !service.reply_overflow;
    service.reply_length = 0;
    service.reply_overflow = false;
    return complete;
}

/* Lock-step: has the client, which must wait for a reply, sent something that we have not even read? */
static bool talks_too_early(const struct connection *connection)
{
    char octet;
    return !service.pipelining && connection->server.phase != CLOSING &&
           recv(connection->fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Is this connection in the part of a message that --rate slows down? */
static bool slowed(const struct connection *connection)
{
    return rate > 0 && (connection->server.phase == DATA || connection->server.phase == CHUNK);
}

static void wait_for_tick(struct connection *connection)
{
    epoll_ctl(epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    connection->next_waiting = waiting;
    waiting = connection;
}

static void tick(void)
{
    uint64_t expirations;
    struct connection *connection = waiting;
    if (read(ticker, &expirations, sizeof expirations) < 0)
        die("timer");
    waiting = NULL;
    while (connection != NULL) {
        struct connection *next = connection->next_waiting;
        connection->allowance = rate / TICKS_PER_SECOND;
        watch(epoll, connection->fd, EPOLLIN, connection);
        connection = next;
    }
}

/* Gives false when the connection is over. */
static bool take_input(struct connection *connection)
{
    static char buffer[READ_SIZE];
    size_t limit = slowed(connection) && connection->allowance < READ_SIZE ? (size_t)connection->allowance : READ_SIZE;
    ssize_t got = recv(connection->fd, buffer, limit, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    if (slowed(connection))
        connection->allowance -= (uint64_t)got;
    server_feed(&service, &connection->server, buffer, (size_t)got);
    if (service.reply_length > 0 && talks_too_early(connection))
        server_violation(&service, &connection->server);
    return send_replies(connection) && connection->server.phase != CLOSING;
}

static void connection_event(struct connection *connection)
{
    if (!take_input(connection))
        close_connection(connection);
    else if (rate > 0 && connection->allowance == 0)
        wait_for_tick(connection);
}

static void accept_one(int fd)
{
    struct connection *connection = allocate(1, sizeof *connection);
    connection->fd = fd;
    connection->allowance = rate / TICKS_PER_SECOND;
    connections++;
    open_connections++;
    set_nodelay(fd);
    if (talks_too_early(connection))
        server_violation(&service, &connection->server);
    else
        server_greet(&service);
    if (send_replies(connection) && connection->server.phase != CLOSING)
        watch(epoll, fd, EPOLLIN, connection);
    else
        close_connection(connection);
}

static void accept_all(void)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        accept_one(fd);
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

/* Running */

static void report(void)
{
    printf("{\"connections\": %llu, \"open\": %llu, \"messages\": %llu, \"octets\": %llu, \"violations\": %llu, "
           "\"errors\": %llu}\n",
           (unsigned long long)connections, (unsigned long long)open_connections, (unsigned long long)service.messages,
           (unsigned long long)service.octets, (unsigned long long)service.violations,
           (unsigned long long)service.errors);
    fflush(stdout);
}

static void take_signal(void)
{
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof info) != sizeof info)
        die("signalfd");
    report();
    if (info.ssi_signo != SIGUSR1)
        exit(0);
}

static void watch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (signals < 0)
        die("signalfd");
    watch(epoll, signals, EPOLLIN, &signal_mark);
}

static void watch_ticks(void)
{
    const long period = 1000000000 / TICKS_PER_SECOND;
    struct itimerspec ticks = {.it_value.tv_nsec = period, .it_interval.tv_nsec = period};
    ticker = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (ticker < 0 || timerfd_settime(ticker, 0, &ticks, NULL) != 0)
        die("timerfd");
    watch(epoll, ticker, EPOLLIN, &ticker_mark);
}

static _Noreturn void loop(void)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            void *mark = events[i].data.ptr;
            if (mark == &listener_mark)
                accept_all();
            else if (mark == &signal_mark)
                take_signal();
            else if (mark == &ticker_mark)
                tick();
            else
                connection_event(mark);
        }
    }
}

static _Noreturn void usage(void)
{
    fputs("usage: sink [options] HOST PORT      (port 0: any free one)\n"
          "  --pipelining          offer PIPELINING and take commands at any moment; else lock-step is enforced\n"
          "  --chunking            offer CHUNKING (BDAT)\n"
          "  --early               offer PIPECONNECT; needs --pipelining\n"
          "  --rate N[K|M|G]       read mail data no faster than so many octets a second and connection (at least 1K)\n",
          stderr);
    exit(2);
}

static void parse_options(int count, char **values)
{
    static const struct option names[] = {{"pipelining", no_argument, NULL, 'p'},
                                          {"chunking", no_argument, NULL, 'c'},
                                          {"early", no_argument, NULL, 'e'},
                                          {"rate", required_argument, NULL, 'r'},
                                          {NULL, 0, NULL, 0}};
    int letter;
    while ((letter = getopt_long(count, values, "", names, NULL)) != -1) {
        if (letter == 'p')
            service.pipelining = true;
        else if (letter == 'c')
            service.chunking = true;
        else if (letter == 'e')
            service.early = true;
        else if (letter == 'r')
            rate = parse_number(optarg, "--rate");
        else
            usage();
    }
    if (optind + 2 != count || (rate > 0 && rate < 1024) || (service.early && !service.pipelining))
        usage();
}

int main(int count, char **values)
{
    parse_options(count, values);
    struct endpoint endpoint = parse_endpoint(values[optind], values[optind + 1]);
    listener = listen_on(&endpoint);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    watch(epoll, listener, EPOLLIN, &listener_mark);
    watch_signals();
    if (rate > 0)
        watch_ticks();
    printf("{\"port\": %u}\n", bound_port(listener));
    fflush(stdout);
    loop();
}
