/* reply.h: reads SMTP replies (RFC 5321, 4.2) octet by octet and tolerates nothing. */
#ifndef BENCH_REPLY_H
#define BENCH_REPLY_H

#include <stddef.h>

struct reply_reader {
    size_t column;      /* octets of the current line so far */
    int line_code;      /* its code, as far as read */
    int code;           /* the code of the reply's first line; 0 before that */
    char separator;     /* what stood behind the code: space, '-', or CR for a bare code */
    char last;          /* the octet before this one */
};

enum { REPLY_INCOMPLETE = 0, REPLY_MALFORMED = -1 };

/* Take one octet. Gives the reply's code when the octet completes it, else REPLY_INCOMPLETE or REPLY_MALFORMED. */
int reply_feed(struct reply_reader *reader, char octet);

#endif
