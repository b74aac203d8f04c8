/* server.h: the SMTP server's side of a conversation, without sockets: octets in, replies out. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "data.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPLY_LIMIT = 64 * 1024 };

/* What all conversations of one process share. */
struct service {
    bool pipelining, chunking;      /* what is offered; without pipelining lock-step is enforced */
    bool early;                     /* PIPECONNECT is offered as well */
    uint64_t messages, octets;      /* accepted so far */
    uint64_t violations, errors;    /* breaches of lock-step; 5xx replies in all */
    char replies[REPLY_LIMIT];      /* to the input just taken: to be sent by the caller, who then sets the length to 0 */
    size_t reply_length;
    bool reply_overflow;            /* more replies than the buffer holds: the connection must be closed */
};

enum phase { COMMANDS, DATA, CHUNK, CLOSING };

/* One conversation. All zero at the start. */
struct server {
    enum phase phase;
    bool greeted, mail, recipient;      /* which commands were accepted */
    struct data_scanner scanner;
    uint64_t chunk_left, chunk_octets;  /* BDAT: still to come; taken so far in this message */
    bool last_chunk;
    char *line;                         /* an incomplete command line; NULL: there is none */
    size_t line_length;
};

/* Greet a client. */
void server_greet(struct service *service);

/* Take input. In phase CLOSING the connection must be closed once the replies are sent. */
void server_feed(struct service *service, struct server *server, const char *input, size_t length);

/* The client spoke while it had to wait for a reply: count it and cut it off. */
void server_violation(struct service *service, struct server *server);

/* Let go of what a conversation holds. */
void server_end(struct server *server);

#endif
