/* script.h: what a client says in one session, and which replies it must get, worked out once for all sessions. */
#ifndef BENCH_SCRIPT_H
#define BENCH_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode { MODE_LOCKSTEP, MODE_PIPELINED, MODE_EARLY, MODE_BDAT, MODE_IDLE };

struct expectation {
    int code;
    bool ends_message;  /* the reply to the end of data or to BDAT LAST */
};

/* What is sent without waiting (`text`, then `block` so many times, then `rest`) and the replies that must come before
 * the next flight. The block lets a message be larger than memory. */
struct flight {
    char *text;
    size_t text_length;
    const char *block;
    size_t block_length;
    uint64_t block_times;
    char *rest;
    size_t rest_length;
    struct expectation *replies;
    size_t reply_count;
    bool starts_tls;    /* ends in STARTTLS: what follows goes through TLS */
};

struct script {
    struct flight *flights;
    size_t count;
};

/* Turn a mode's name into the mode. Dies if there is none. */
enum mode parse_mode(const char *name);

/* The script for `messages` messages of `size` octets each (at least 1024) in one session, after STARTTLS if it is asked
 * for. */
struct script build_script(enum mode mode, uint64_t size, uint64_t messages, bool starttls);

/* How many octets a flight has. */
uint64_t flight_length(const struct flight *flight);

/* The octets that lie in one piece at an offset below flight_length(); `length` gets how many. */
const char *flight_piece(const struct flight *flight, uint64_t offset, size_t *length);

#endif
