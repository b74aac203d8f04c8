/* options.h: the command line of the load generator. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "common.h"
#include "script.h"

enum tls { TLS_NONE, TLS_STARTTLS, TLS_IMPLICIT };

struct options {
    const char *mode_name;
    enum mode mode;
    uint64_t parallel;      /* sessions at the same time */
    uint64_t messages;      /* in all; in mode idle: connections to hold */
    uint64_t size;          /* octets of a message */
    uint64_t per_session;   /* messages in one session */
    uint64_t timeout;       /* seconds until the whole run is given up */
    enum tls tls;
    const char *ticket;     /* the file of the newest TLS ticket; NULL: full handshakes only */
    struct endpoint target;
};

/* Read the command line. Prints the usage and ends the program with status 2 if there is a mistake in it. */
struct options parse_options(int count, char **values);

#endif
