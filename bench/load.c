/* load.c: a lean SMTP load generator. It plays one script in many sessions at a time, checks every reply code, and prints
 * what it saw as one JSON object per line. Exit status: 0 if all replies were right, 1 if not, 2 for wrong usage. */
#include "common.h"
#include "options.h"
#include "reply.h"
#include "script.h"
#include "tls.h"
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024, EVENTS = 256, ERROR_LIMIT = 20, ERRORS_SHOWN = 5, IDLE_SLOTS_AT_ONCE = 16 };

struct session {
    struct wire wire;
    bool held;              /* in mode idle: greeting and EHLO are done */
    size_t flight;          /* which flight is on its way; script.count: all are done */
    uint64_t sent;          /* octets of it that were written */
    size_t replies;         /* replies to it that were read */
    struct reply_reader reader;
    int64_t began;          /* when the current message began: connect(), or the end of the message before */
};

static struct options options;
static struct script script;
static struct session *sessions;
static uint64_t session_total, started, finished, held, errors;
static uint32_t *latencies;     /* microseconds, one for each message */
static uint64_t latency_count;
static int epoll;
static int stdin_mark, timer_mark;  /* their addresses stand for these descriptors in epoll events */

static void session_open(struct session *session);

static void session_close(struct session *session)
{
    wire_close(&session->wire);
    finished++;
}

static void session_fail(struct session *session, const char *what)
{
    if (errors++ < ERRORS_SHOWN)
        fprintf(stderr, "flight %zu, reply %zu: %s\n", session->flight, session->replies, what);
    session_close(session);
}

/* Write what the socket takes. Gives false when the session has failed. */
static bool session_write(struct session *session)
{
    while (session->flight < script.count) {
        const struct flight *flight = &script.flights[session->flight];
        if (session->sent == flight_length(flight))
            return true;
        size_t length = 0;
        const char *piece = flight_piece(flight, session->sent, &length);
        ssize_t written = wire_send(&session->wire, piece, length);
        if (written < 0 && errno == EAGAIN)
            return true;
        if (written < 0) {
            session_fail(session, strerror(errno));
            return false;
        }
        session->sent += (uint64_t)written;
    }
    return true;
}

static void note_latency(struct session *session)
{
    int64_t now = now_ns();
    latencies[latency_count++] = (uint32_t)((now - session->began) / 1000);
    session->began = now;
}

/* One complete reply: it must be the one that is due. Gives false when the session has failed. */
static bool take_reply(struct session *session, int code)
{
    char problem[64];
    const struct flight *flight = session->flight < script.count ? &script.flights[session->flight] : NULL;
    if (flight == NULL || session->replies == flight->reply_count) {
        snprintf(problem, sizeof problem, "unexpected reply %d", code);
        session_fail(session, problem);
        return false;
    }
    const struct expectation *due = &flight->replies[session->replies];
    if (code != due->code) {
        snprintf(problem, sizeof problem, "reply %d where %d was due", code, due->code);
        session_fail(session, problem);
        return false;
    }
    session->replies++;
    if (due->ends_message)
        note_latency(session);
    return true;
}

/* After the last reply of a flight: the next one. */
static void next_flight(struct session *session)
{
    const struct flight *flight = &script.flights[session->flight];
    if (session->replies < flight->reply_count || session->sent < flight_length(flight))
        return;
    if (flight->starts_tls)
        wire_start_tls(&session->wire);
    session->flight++;
    session->sent = 0;
    session->replies = 0;
}

static bool take_octets(struct session *session, const char *octets, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        int code = reply_feed(&session->reader, octets[i]);
        if (code == REPLY_INCOMPLETE)
            continue;
        if (code == REPLY_MALFORMED) {
            session_fail(session, "malformed reply");
            return false;
        }
        if (!take_reply(session, code))
            return false;
        bool plain = session->wire.tls == NULL;
        next_flight(session);
        if (plain && session->wire.tls != NULL && i + 1 < length) {
            session_fail(session, "octets behind the reply to STARTTLS");
            return false;
        }
    }
    return true;
}

static void take_end(struct session *session)
{
    if (options.mode == MODE_IDLE)
        session_fail(session, "closed while idle");
    else if (session->flight < script.count)
        session_fail(session, "closed too early");
    else
        session_close(session);
}

/* Read until nothing is left. Gives false when the session is over. */
static bool session_read(struct session *session)
{
    static char buffer[READ_SIZE];
    for (;;) {
        ssize_t got = wire_receive(&session->wire, buffer, sizeof buffer);
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got < 0)
            session_fail(session, strerror(errno));
        else if (got == 0)
            take_end(session);
        if (got <= 0 || !take_octets(session, buffer, (size_t)got))
            return false;
    }
}

/* Start the next session in a slot that is free, as long as there are more to come. */
static void refill(struct session *slot)
{
    if (started < session_total && errors < ERROR_LIMIT)
        session_open(slot);
}

static void report_held(void)
{
    printf("{\"held\": %llu}\n", (unsigned long long)held);
    fflush(stdout);
}

/* Mode idle: this one stays as it is; the next connection is opened. */
static void hold(struct session *session)
{
    session->held = true;
    if (++held == session_total)
        report_held();
    refill(&sessions[started < session_total ? started : 0]);
}

static void session_event(struct session *session)
{
    bool alive = session_write(session) && session_read(session) && session_write(session);
    if (!alive && options.mode != MODE_IDLE)
        refill(session);
    else if (alive && options.mode == MODE_IDLE && !session->held && session->flight == script.count)
        hold(session);
}

static void session_open(struct session *session)
{
    started++;
    *session = (struct session){.began = now_ns()};
    wire_open(&session->wire, &options.target);
    if (options.tls == TLS_IMPLICIT)
        wire_start_tls(&session->wire);
    watch(epoll, session->wire.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, session);
}

/* Report */

static int compare_latencies(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static unsigned latency(double fraction)
{
    if (latency_count == 0)
        return 0;
    return latencies[(uint64_t)(fraction * (double)(latency_count - 1))];
}

static void report(int64_t nanoseconds)
{
    qsort(latencies, latency_count, sizeof *latencies, compare_latencies);
    struct tls_counters tls = options.tls == TLS_NONE ? (struct tls_counters){0, 0} : tls_count();
    printf("{\"mode\": \"%s\", \"sessions\": %llu, \"messages\": %llu, \"message_size\": %llu, \"errors\": %llu, "
           "\"handshakes\": %llu, \"resumed\": %llu, \"seconds\": %.6f, \"latency_us\": {\"p50\": %u, \"p90\": %u, \"p99\": %u, \"max\": %u}}\n",
           options.mode_name, (unsigned long long)finished, (unsigned long long)latency_count,
           (unsigned long long)options.size, (unsigned long long)errors, (unsigned long long)tls.handshakes,
           (unsigned long long)tls.resumed, (double)nanoseconds / 1e9, latency(0.5), latency(0.9), latency(0.99),
           latency(1.0));
}

/* Running */

static bool stdin_ended(void)
{
    char buffer[256];
    return read(STDIN_FILENO, buffer, sizeof buffer) <= 0;
}

static void watch_timeout(void)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec due = {.it_value.tv_sec = (time_t)options.timeout};
    if (timer < 0 || timerfd_settime(timer, 0, &due, NULL) != 0)
        die("timerfd");
    watch(epoll, timer, EPOLLIN, &timer_mark);
}

static bool all_done(void)
{
    uint64_t limit = options.mode == MODE_IDLE ? 1 : ERROR_LIMIT;
    return errors >= limit || finished == session_total;
}

static bool all_well(void)
{
    return errors == 0 && (options.mode == MODE_IDLE ? held : finished) == session_total;
}

static void give_up(void)
{
    fprintf(stderr, "gave up after %llu s: %llu sessions held, %llu finished of %llu\n",
            (unsigned long long)options.timeout, (unsigned long long)held, (unsigned long long)finished,
            (unsigned long long)session_total);
    errors++;
}

static void loop(void)
{
    struct epoll_event events[EVENTS];
    while (!all_done()) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &stdin_mark) {
                if (stdin_ended())
                    return;
            } else if (events[i].data.ptr == &timer_mark) {
                give_up();
                return;
            } else {
                session_event(events[i].data.ptr);
            }
        }
    }
}

static void start(void)
{
    bool idle = options.mode == MODE_IDLE;
    session_total = idle ? options.messages : options.messages / options.per_session;
    uint64_t slots = idle || options.parallel > session_total ? session_total : options.parallel;
    uint64_t at_once = idle && slots > IDLE_SLOTS_AT_ONCE ? IDLE_SLOTS_AT_ONCE : slots;
    sessions = allocate(slots, sizeof *sessions);
    latencies = allocate(options.messages, sizeof *latencies);
    script = build_script(options.mode, options.size, options.per_session, options.tls == TLS_STARTTLS);
    if (options.tls != TLS_NONE)
        tls_prepare(options.ticket);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    watch_timeout();
    if (idle)
        watch(epoll, STDIN_FILENO, EPOLLIN, &stdin_mark);
    for (uint64_t i = 0; i < at_once; i++)
        session_open(&sessions[i]);
}

int main(int count, char **values)
{
    options = parse_options(count, values);
    int64_t began = now_ns();
    start();
    loop();
    report(now_ns() - began);
    if (options.ticket != NULL && options.tls != TLS_NONE)
        tls_keep_ticket(options.ticket);
    return all_well() ? 0 : 1;
}
