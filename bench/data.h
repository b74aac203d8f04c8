/* data.h: finds the end of mail data (RFC 5321, 4.1.1.4): CR LF . CR LF and nothing else. */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum data_state { DATA_LINE_START, DATA_TEXT, DATA_CR, DATA_DOT, DATA_DOT_CR, DATA_ENDED };

struct data_scanner {
    enum data_state state;
    uint64_t octets;    /* of the message, without stuffed dots and without the end of data */
};

/* Begin a message. */
void data_begin(struct data_scanner *scanner);

/* Take what has arrived. Gives how much of it belongs to the mail data; the state is DATA_ENDED when it is complete. */
size_t data_feed(struct data_scanner *scanner, const char *chunk, size_t length);

#endif
