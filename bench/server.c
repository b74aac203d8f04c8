/* server.c: the SMTP server's side of a conversation (RFC 5321, RFC 2920, RFC 3030), as far as a benchmark needs it. */
#include "server.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LINE_LIMIT = 4096 };

static void reply(struct service *service, const char *text)
{
    size_t length = strlen(text);
    if (text[0] == '5')
        service->errors++;
    if (service->reply_length + length > sizeof service->replies) {
        service->reply_overflow = true;
        return;
    }
    memcpy(service->replies + service->reply_length, text, length);
    service->reply_length += length;
}

static void refuse(struct service *service, struct server *server, const char *text)
{
    server->phase = CLOSING;
    reply(service, text);
}

static void forget_transaction(struct server *server)
{
    server->mail = server->recipient = false;
    server->chunk_octets = 0;
}

/* Commands */

static void ehlo(struct service *service, struct server *server)
{
    server->greeted = true;
    forget_transaction(server);
    reply(service, "250-sink.example.org\r\n250-SIZE\r\n250-8BITMIME\r\n");
    if (service->pipelining)
        reply(service, "250-PIPELINING\r\n");
    if (service->chunking)
        reply(service, "250-CHUNKING\r\n");
    if (service->early)
        reply(service, "250-PIPECONNECT\r\n");
    reply(service, "250 ENHANCEDSTATUSCODES\r\n");
}

static void helo(struct service *service, struct server *server)
{
    server->greeted = true;
    forget_transaction(server);
    reply(service, "250 sink.example.org\r\n");
}

static void mail(struct service *service, struct server *server)
{
    bool allowed = server->greeted && !server->mail;
    server->mail = server->mail || allowed;
    reply(service, allowed ? "250 2.1.0 sender ok\r\n" : "503 5.5.1 EHLO first, and one MAIL\r\n");
}

static void rcpt(struct service *service, struct server *server)
{
    server->recipient = server->mail;
    reply(service, server->mail ? "250 2.1.5 recipient ok\r\n" : "503 5.5.1 MAIL first\r\n");
}

static void data(struct service *service, struct server *server)
{
    if (!server->recipient) {
        reply(service, "503 5.5.1 RCPT first\r\n");
        return;
    }
    server->phase = DATA;
    data_begin(&server->scanner);
    reply(service, "354 go ahead\r\n");
}

/* A BDAT that cannot be taken ends the connection: its octets must not be read as commands. */
static void bdat(struct service *service, struct server *server, const char *argument)
{
    char *end = NULL;
    unsigned long long size = strtoull(argument, &end, 10);
    server->last_chunk = strcasecmp(end, " LAST") == 0;
    bool well_formed = end != argument && (*end == '\0' || server->last_chunk);
    if (!service->chunking || !server->recipient || !well_formed) {
        refuse(service, server, "503 5.5.1 no BDAT here\r\n");
        return;
    }
    server->phase = CHUNK;
    server->chunk_left = size;
}

static void rset(struct service *service, struct server *server)
{
    forget_transaction(server);
    reply(service, "250 2.0.0 ok\r\n");
}

static void noop(struct service *service, struct server *server)
{
    (void)server;
    reply(service, "250 2.0.0 ok\r\n");
}

static void quit(struct service *service, struct server *server)
{
    refuse(service, server, "221 2.0.0 bye\r\n");
}

static bool begins(const char *line, const char *prefix)
{
    return strncasecmp(line, prefix, strlen(prefix)) == 0;
}

/* One command line without its CR LF. */
static void run_command(struct service *service, struct server *server, const char *line)
{
    static const struct {
        const char *prefix;
        void (*run)(struct service *, struct server *);
    } commands[] = {
        {"EHLO ", ehlo}, {"HELO ", helo}, {"MAIL FROM:", mail}, {"RCPT TO:", rcpt},
        {"DATA", data},  {"RSET", rset},  {"NOOP", noop},       {"QUIT", quit},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (begins(line, commands[i].prefix)) {
            commands[i].run(service, server);
            return;
        }
    }
    if (begins(line, "BDAT "))
        bdat(service, server, line + 5);
    else
        reply(service, "500 5.5.1 unknown\r\n");
}

/* Input. Each of these gives how many octets it used. */

/* Run the command line that is complete in server->line. */
static void end_line(struct service *service, struct server *server)
{
    char *line = server->line;
    size_t length = server->line_length;
    server->line = NULL;
    server->line_length = 0;
    if (length >= 2 && line[length - 2] == '\r') {
        line[length - 2] = '\0';
        run_command(service, server, line);
    } else {
        refuse(service, server, "500 5.5.2 bare LF\r\n");
    }
    free(line);
}

static size_t take_line(struct service *service, struct server *server, const char *input, size_t length)
{
    const char *end = memchr(input, '\n', length);
    size_t used = end == NULL ? length : (size_t)(end - input) + 1;
    if (server->line_length + used > LINE_LIMIT) {
        refuse(service, server, "500 5.5.2 line too long\r\n");
        return length;
    }
    if (server->line == NULL)
        server->line = allocate(LINE_LIMIT, 1);
    memcpy(server->line + server->line_length, input, used);
    server->line_length += used;
    if (end != NULL)
        end_line(service, server);
    return used;
}

static void message_taken(struct service *service, struct server *server, uint64_t octets)
{
    service->messages++;
    service->octets += octets;
    server->phase = COMMANDS;
    forget_transaction(server);
    reply(service, "250 2.0.0 taken\r\n");
}

static size_t take_data(struct service *service, struct server *server, const char *input, size_t length)
{
    size_t used = data_feed(&server->scanner, input, length);
    if (server->scanner.state == DATA_ENDED)
        message_taken(service, server, server->scanner.octets);
    return used;
}

static size_t take_chunk(struct service *service, struct server *server, size_t length)
{
    size_t used = length < server->chunk_left ? length : (size_t)server->chunk_left;
    server->chunk_left -= used;
    server->chunk_octets += used;
    if (server->chunk_left > 0)
        return used;
    if (server->last_chunk) {
        message_taken(service, server, server->chunk_octets);
    } else {
        server->phase = COMMANDS;
        reply(service, "250 2.0.0 chunk taken\r\n");
    }
    return used;
}

static size_t take_some(struct service *service, struct server *server, const char *input, size_t length)
{
    switch (server->phase) {
    case COMMANDS: return take_line(service, server, input, length);
    case DATA: return take_data(service, server, input, length);
    case CHUNK: return take_chunk(service, server, length);
    case CLOSING: break;
    }
    return length;
}

/* Interface */

void server_greet(struct service *service)
{
    reply(service, "220 sink.example.org ESMTP\r\n");
}

void server_feed(struct service *service, struct server *server, const char *input, size_t length)
{
    size_t used = 0;
    /* A chunk of no octets is complete without any input behind its command. */
    while (used < length || (server->phase == CHUNK && server->chunk_left == 0)) {
        used += take_some(service, server, input + used, length - used);
        if (!service->pipelining && service->reply_length > 0 && used < length) {
            server_violation(service, server);
            return;
        }
    }
}

void server_violation(struct service *service, struct server *server)
{
    service->violations++;
    refuse(service, server, "554 5.5.0 wait for the reply\r\n");
}

void server_end(struct server *server)
{
    free(server->line);
    server->line = NULL;
}
