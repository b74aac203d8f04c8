/* script.c: works out the flights of a session and the text of the messages. */
#include "script.h"

#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_LENGTH = 78, DOTTED_LINE = 20, BLOCK_SIZE = 1 << 20, MINIMUM_SIZE = 1024, SHORT_TEXT = 256 };

static const char header[] =
    "From: <sender@example.com>\r\n"
    "To: <recipient@example.org>\r\n"
    "Subject: a message of the benchmark\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    "\r\n";

enum mode parse_mode(const char *name)
{
    static const char *const names[] = {
        [MODE_LOCKSTEP] = "lockstep", [MODE_PIPELINED] = "pipelined", [MODE_EARLY] = "early",
        [MODE_BDAT] = "bdat",         [MODE_IDLE] = "idle",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum mode)i;
    errno = 0;
    die("no such mode: %s", name);
}

/* Message text */

/* One line with its CR LF. Some begin with a dot, which DATA doubles and BDAT does not. */
static size_t put_line(char *target, size_t length, size_t number, bool stuffed)
{
    bool dotted = number % DOTTED_LINE == DOTTED_LINE - 1;
    size_t extra = dotted && stuffed ? 1 : 0;
    for (size_t i = 0; i < length - 2; i++)
        target[extra + i] = (char)('a' + (number + i) % 26);
    if (dotted)
        target[0] = target[extra] = '.';
    memcpy(target + extra + length - 2, "\r\n", 2);
    return extra + length;
}

/* The length of the next line, so that the last one is neither empty nor cut in two. */
static size_t line_length(size_t left)
{
    if (left <= LINE_LENGTH)
        return left;
    return left < 2 * LINE_LENGTH ? left / 2 : LINE_LENGTH;
}

/* Lines of `size` octets in all, not counting stuffed dots. */
static size_t put_lines(char *target, size_t size, bool stuffed)
{
    size_t written = 0;
    for (size_t number = 0; size > 0; number++) {
        size_t length = line_length(size);
        written += put_line(target + written, length, number, stuffed);
        size -= length;
    }
    return written;
}

/* Room for `size` octets of text: a stuffed dot costs one more octet in every DOTTED_LINE lines. */
static char *text_buffer(size_t size)
{
    return allocate(size + size / LINE_LENGTH + LINE_LENGTH, 1);
}

/* Flights */

static struct flight *new_flight(struct script *script)
{
    script->flights = reallocate(script->flights, script->count + 1, sizeof *script->flights);
    struct flight *flight = &script->flights[script->count++];
    *flight = (struct flight){.text = NULL};
    return flight;
}

static void expect(struct flight *flight, int code, bool ends_message)
{
    flight->replies = reallocate(flight->replies, flight->reply_count + 1, sizeof *flight->replies);
    flight->replies[flight->reply_count++] = (struct expectation){code, ends_message};
}

/* Append octets: to the text, or behind the repeated block where there is one. */
static void append(struct flight *flight, const char *octets, size_t length)
{
    char **target = flight->block == NULL ? &flight->text : &flight->rest;
    size_t *used = flight->block == NULL ? &flight->text_length : &flight->rest_length;
    *target = reallocate(*target, *used + length + 1, 1);
    memcpy(*target + *used, octets, length);
    *used += length;
}

static void __attribute__((format(printf, 3, 4))) command(struct flight *flight, int code, const char *format, ...)
{
    char line[SHORT_TEXT];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    append(flight, line, (size_t)length);
    expect(flight, code, false);
}

static void add_block(struct flight *flight, uint64_t times, bool stuffed)
{
    char *block = text_buffer(BLOCK_SIZE);
    flight->block_length = put_lines(block, BLOCK_SIZE, stuffed);
    flight->block_times = times;
    flight->block = block;
}

/* A message of `size` octets; a large one ends in a block that is sent many times. */
static void add_message(struct flight *flight, uint64_t size, bool stuffed)
{
    uint64_t times = size > 2 * BLOCK_SIZE ? size / BLOCK_SIZE - 1 : 0;
    size_t first = (size_t)(size - times * BLOCK_SIZE);
    char *text = text_buffer(first);
    size_t length = sizeof header - 1;
    memcpy(text, header, length);
    length += put_lines(text + length, first - length, stuffed);
    append(flight, text, length);
    free(text);
    if (times > 0)
        add_block(flight, times, stuffed);
}

static void add_data(struct flight *flight, uint64_t size)
{
    add_message(flight, size, true);
    append(flight, ".\r\n", 3);
    expect(flight, 250, true);
}

static void add_bdat(struct flight *flight, uint64_t size)
{
    char line[SHORT_TEXT];
    int length = snprintf(line, sizeof line, "BDAT %llu LAST\r\n", (unsigned long long)size);
    append(flight, line, (size_t)length);
    add_message(flight, size, false);
    expect(flight, 250, true);
}

static void add_envelope(struct flight *flight)
{
    command(flight, 250, "MAIL FROM:<sender@example.com>\r\n");
    command(flight, 250, "RCPT TO:<recipient@example.org>\r\n");
}

static void add_quit(struct flight *flight)
{
    command(flight, 221, "QUIT\r\n");
}

/* Scripts */

static struct flight *last_flight(const struct script *script)
{
    return &script->flights[script->count - 1];
}

/* The flight for what may be said without waiting: that of the words before, or a new one for a patient client. */
static struct flight *following_flight(struct script *script, bool early)
{
    return early ? last_flight(script) : new_flight(script);
}

/* The greeting and EHLO: each waited for, or both left open for what follows in the same flight. With STARTTLS the same
 * once more, as far as the handshake allows: a new EHLO behind it. */
static void start_session(struct script *script, bool early, bool starttls)
{
    expect(new_flight(script), 220, false);
    command(following_flight(script, early), 250, "EHLO client.example.com\r\n");
    if (!starttls)
        return;
    command(following_flight(script, early), 220, "STARTTLS\r\n");
    last_flight(script)->starts_tls = true;
    command(new_flight(script), 250, "EHLO client.example.com\r\n");
}

static void build_lockstep(struct script *script, uint64_t size, uint64_t messages)
{
    for (uint64_t i = 0; i < messages; i++) {
        command(new_flight(script), 250, "MAIL FROM:<sender@example.com>\r\n");
        command(new_flight(script), 250, "RCPT TO:<recipient@example.org>\r\n");
        command(new_flight(script), 354, "DATA\r\n");
        add_data(new_flight(script), size);
    }
    add_quit(new_flight(script));
}

/* Groups end in DATA; what follows the message rides with it. Early: the first group rides with EHLO. */
static void build_groups(struct script *script, uint64_t size, uint64_t messages, bool early)
{
    struct flight *flight = following_flight(script, early);
    for (uint64_t i = 0; i < messages; i++) {
        add_envelope(flight);
        command(flight, 354, "DATA\r\n");
        flight = new_flight(script);
        add_data(flight, size);
    }
    add_quit(flight);
}

/* The first message goes out with EHLO, each further one when its predecessor was accepted, QUIT with the last. */
static void build_bdat(struct script *script, uint64_t size, uint64_t messages)
{
    struct flight *flight = last_flight(script);
    for (uint64_t i = 0; i < messages; i++) {
        if (i > 0)
            flight = new_flight(script);
        add_envelope(flight);
        add_bdat(flight, size);
    }
    add_quit(flight);
}

struct script build_script(enum mode mode, uint64_t size, uint64_t messages, bool starttls)
{
    struct script script = {NULL, 0};
    bool early = mode == MODE_EARLY || mode == MODE_BDAT;
    errno = 0;
    if (size < MINIMUM_SIZE)
        die("a message needs at least %d octets", MINIMUM_SIZE);
    start_session(&script, early, starttls);
    if (mode == MODE_LOCKSTEP)
        build_lockstep(&script, size, messages);
    else if (mode == MODE_BDAT)
        build_bdat(&script, size, messages);
    else if (mode != MODE_IDLE)
        build_groups(&script, size, messages, early);
    return script;
}

uint64_t flight_length(const struct flight *flight)
{
    return flight->text_length + flight->block_length * flight->block_times + flight->rest_length;
}

const char *flight_piece(const struct flight *flight, uint64_t offset, size_t *length)
{
    if (offset < flight->text_length) {
        *length = flight->text_length - (size_t)offset;
        return flight->text + offset;
    }
    offset -= flight->text_length;
    if (offset < flight->block_length * flight->block_times) {
        size_t inside = (size_t)(offset % flight->block_length);
        *length = flight->block_length - inside;
        return flight->block + inside;
    }
    offset -= flight->block_length * flight->block_times;
    *length = flight->rest_length - (size_t)offset;
    return flight->rest + offset;
}
