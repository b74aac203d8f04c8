/* data.c: finds the end of mail data and counts the message's octets. */
#include "data.h"

#include <string.h>

void data_begin(struct data_scanner *scanner)
{
    *scanner = (struct data_scanner){.state = DATA_LINE_START};
}

/* Where the text without any CR ends. */
static size_t text_length(const char *chunk, size_t length)
{
    const char *cr = memchr(chunk, '\r', length);
    return cr == NULL ? length : (size_t)(cr - chunk);
}

static enum data_state text_state(char octet)
{
    return octet == '\r' ? DATA_CR : DATA_TEXT;
}

/* One octet in any state but DATA_ENDED. A dot at the start of a line is no part of the message: either it was stuffed or
 * it is the end of data, whose CR LF is taken back as well. */
static void step(struct data_scanner *scanner, char octet)
{
    enum data_state before = scanner->state;
    scanner->octets++;
    if (before == DATA_LINE_START && octet == '.') {
        scanner->state = DATA_DOT;
        scanner->octets--;
    } else if (before == DATA_CR && octet == '\n') {
        scanner->state = DATA_LINE_START;
    } else if (before == DATA_DOT && octet == '\r') {
        scanner->state = DATA_DOT_CR;
    } else if (before == DATA_DOT_CR && octet == '\n') {
        scanner->state = DATA_ENDED;
        scanner->octets -= 2;
    } else {
        scanner->state = text_state(octet);
    }
}

size_t data_feed(struct data_scanner *scanner, const char *chunk, size_t length)
{
    size_t used = 0;
    while (used < length && scanner->state != DATA_ENDED) {
        if (scanner->state == DATA_TEXT) {
            size_t text = text_length(chunk + used, length - used);
            scanner->octets += text;
            used += text;
            if (used == length)
                break;
        }
        step(scanner, chunk[used++]);
    }
    return used;
}
