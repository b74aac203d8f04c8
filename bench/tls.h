/* tls.h: the client's side of TLS 1.3, by libssl, with its tickets. All of these are weak: a load generator that was built
 * without libssl has none of them (tls_prepare == NULL), and serves the parts of the benchmark that need no TLS. */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define WEAK __attribute__((weak))

struct ssl_st;

struct tls_counters {
    uint64_t handshakes;    /* of connections that have ended */
    uint64_t resumed;       /* those of them that the server resumed */
};

/* Call this first. With a file, each connection offers the newest ticket: at the start the one that the file holds, if it
 * is there. Without one (NULL) every handshake is a full one. Dies on failure. */
WEAK void tls_prepare(const char *ticket_file);

/* TLS on a connected (or connecting) non-blocking socket. */
WEAK struct ssl_st *tls_begin(int fd);

/* Like send() and recv(); they do the handshake where it is due. A failure of TLS itself is told on standard error. */
WEAK ssize_t tls_send(struct ssl_st *tls, const char *octets, size_t length);
WEAK ssize_t tls_receive(struct ssl_st *tls, char *buffer, size_t length);

/* Say close_notify, count the handshake, let go. */
WEAK void tls_end(struct ssl_st *tls);

/* The figures so far. */
WEAK struct tls_counters tls_count(void);

/* Leave the newest ticket in the file. Dies if there was none. */
WEAK void tls_keep_ticket(const char *ticket_file);

#endif
