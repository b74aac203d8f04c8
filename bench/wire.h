/* wire.h: the connection of one session: a socket, sooner or later with TLS on it. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "common.h"

#include <sys/types.h>

struct ssl_st;

struct wire {
    int fd;
    struct ssl_st *tls;     /* NULL: octets go as they are */
};

/* Begin to connect, without waiting for it. Dies on failure. */
void wire_open(struct wire *wire, const struct endpoint *target);

/* From now on everything goes through TLS; the handshake runs as soon as something is sent or received. */
void wire_start_tls(struct wire *wire);

/* Like send() and recv() of a non-blocking socket: -1 with EAGAIN in errno means later. */
ssize_t wire_send(struct wire *wire, const char *octets, size_t length);
ssize_t wire_receive(struct wire *wire, char *buffer, size_t length);

/* Close it, inside TLS with a close_notify. */
void wire_close(struct wire *wire);

#endif
