/* options.c: the command line of the load generator. */
#include "options.h"

#include "tls.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void usage(void)
{
    fputs("usage: load [options] HOST PORT\n"
          "  --mode lockstep|pipelined|early|bdat|idle   how the client talks (lockstep)\n"
          "  --parallel N      sessions at the same time (16)\n"
          "  --messages N      messages in all; idle: connections to hold until standard input ends (1000)\n"
          "  --size N[K|M|G]   octets of a message (4096)\n"
          "  --per-session N   messages in one session (1)\n"
          "  --timeout S       give up after so many seconds (60)\n"
          "  --tls none|starttls|implicit                TLS 1.3 (none)\n"
          "  --ticket FILE     resume with the ticket that is in there, leave the newest one; else full handshakes\n",
          stderr);
    exit(2);
}

static enum tls parse_tls(const char *name)
{
    bool starttls = strcmp(name, "starttls") == 0;
    if (strcmp(name, "none") == 0)
        return TLS_NONE;
    if (!starttls && strcmp(name, "implicit") != 0)
        usage();
    errno = 0;
    if (tls_prepare == NULL)
        die("this load generator was built without libssl");
    return starttls ? TLS_STARTTLS : TLS_IMPLICIT;
}

static void set_option(struct options *options, char letter, const char *value)
{
    switch (letter) {
    case 'm': options->mode_name = value; break;
    case 'p': options->parallel = parse_number(value, "--parallel"); break;
    case 'n': options->messages = parse_number(value, "--messages"); break;
    case 's': options->size = parse_number(value, "--size"); break;
    case 'k': options->per_session = parse_number(value, "--per-session"); break;
    case 't': options->timeout = parse_number(value, "--timeout"); break;
    case 'l': options->tls = parse_tls(value); break;
    case 'r': options->ticket = value; break;
    default: usage();
    }
}

struct options parse_options(int count, char **values)
{
    static const struct option names[] = {
        {"mode", required_argument, NULL, 'm'},        {"parallel", required_argument, NULL, 'p'},
        {"messages", required_argument, NULL, 'n'},    {"size", required_argument, NULL, 's'},
        {"per-session", required_argument, NULL, 'k'}, {"timeout", required_argument, NULL, 't'},
        {"tls", required_argument, NULL, 'l'},         {"ticket", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {
        .mode_name = "lockstep", .parallel = 16, .messages = 1000, .size = 4096, .per_session = 1, .timeout = 60};
    int letter;
    while ((letter = getopt_long(count, values, "", names, NULL)) != -1)
        set_option(&options, (char)letter, optarg);
    bool positive = options.parallel > 0 && options.messages > 0 && options.per_session > 0 && options.timeout > 0;
    if (optind + 2 != count || !positive || options.messages % options.per_session != 0)
        usage();
    options.mode = parse_mode(options.mode_name);
    options.target = parse_endpoint(values[optind], values[optind + 1]);
    return options;
}
