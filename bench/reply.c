/* reply.c: reads SMTP replies octet by octet and tolerates nothing. */
#include "reply.h"

#include <stdbool.h>

enum { LINE_LIMIT = 1024, CODE_LENGTH = 3 };

static bool separates(char octet)
{
    return octet == ' ' || octet == '-' || octet == '\r';
}

/* The end of a line: its code must be that of the lines before; only the last line has no '-'. */
static int end_line(struct reply_reader *reader)
{
    int code = reader->line_code;
    bool wrong = code < 200 || code > 599 || (reader->code != 0 && reader->code != code);
    bool final = reader->separator != '-';
    *reader = (struct reply_reader){.code = final ? 0 : code};
    if (wrong)
        return REPLY_MALFORMED;
    return final ? code : REPLY_INCOMPLETE;
}

int reply_feed(struct reply_reader *reader, char octet)
{
    size_t column = reader->column++;
    if (column < CODE_LENGTH) {
        if (octet < '0' || octet > '9')
            return REPLY_MALFORMED;
        reader->line_code = reader->line_code * 10 + (octet - '0');
        return REPLY_INCOMPLETE;
    }
    if (column == CODE_LENGTH) {
        if (!separates(octet))
            return REPLY_MALFORMED;
        reader->separator = octet;
    }
    bool after_cr = reader->last == '\r';
    reader->last = octet;
    if (after_cr != (octet == '\n') || column >= LINE_LIMIT)
        return REPLY_MALFORMED;
    return after_cr ? end_line(reader) : REPLY_INCOMPLETE;
}
