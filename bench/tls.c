/* tls.c: the client's side of TLS 1.3, by libssl, with its tickets. */
#include "tls.h"

#include "common.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

static SSL_CTX *context;
static SSL_SESSION *newest;     /* what the next connection offers; NULL: nothing */
static struct tls_counters counters;

/* Called by libssl for each ticket; the answer 1 means that the session is ours now. */
static int take_ticket(SSL *tls, SSL_SESSION *session)
{
    (void)tls;
    SSL_SESSION_free(newest);
    newest = session;
    return 1;
}

static void read_ticket(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return;
    newest = PEM_read_SSL_SESSION(file, NULL, NULL, NULL);
    fclose(file);
    if (newest == NULL)
        die("%s holds no ticket", path);
}

/* One version, one cipher, one group: all servers do the same work. The certificate was made for this run, so that there
 * is nobody to vouch for it; its signature is checked all the same. A server may close without close_notify: some do. */
void tls_prepare(const char *ticket_file)
{
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") != 1 ||
        SSL_CTX_set1_groups_list(context, "X25519") != 1)
        die("libssl has no TLS 1.3");
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    if (ticket_file == NULL)
        return;
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, take_ticket);
    read_ticket(ticket_file);
}

/* A copy: libssl lets each TLS 1.3 session be offered only once, and connections begin faster than new tickets come. */
static void offer_ticket(SSL *tls)
{
    SSL_SESSION *copy = SSL_SESSION_dup(newest);
    if (copy == NULL || SSL_set_session(tls, copy) != 1)
        die("libssl refuses the ticket");
    SSL_SESSION_free(copy);
}

SSL *tls_begin(int fd)
{
    SSL *tls = SSL_new(context);
    if (tls == NULL || SSL_set_fd(tls, fd) != 1 || SSL_set_tlsext_host_name(tls, "proxy.example.org") != 1)
        die("libssl");
    if (newest != NULL)
        offer_ticket(tls);
    SSL_set_connect_state(tls);
    return tls;
}

/* What a call of libssl that gave `result` means, in the words of recv(). */
static ssize_t outcome(SSL *tls, int result)
{
    if (result > 0)
        return result;
    switch (SSL_get_error(tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: errno = errno == 0 ? ECONNRESET : errno; return -1;
    default: break;
    }
    ERR_print_errors_fp(stderr);
    errno = EPROTO;
    return -1;
}

static int piece(size_t length)
{
    return length > INT_MAX ? INT_MAX : (int)length;
}

ssize_t tls_send(SSL *tls, const char *octets, size_t length)
{
    ERR_clear_error();
    errno = 0;
    ssize_t sent = outcome(tls, SSL_write(tls, octets, piece(length)));
    if (sent != 0)
        return sent;
    errno = EPIPE;
    return -1;
}

ssize_t tls_receive(SSL *tls, char *buffer, size_t length)
{
    ERR_clear_error();
    errno = 0;
    return outcome(tls, SSL_read(tls, buffer, piece(length)));
}

/* Without close_notify libssl would take the session for broken and never offer its ticket again. */
void tls_end(SSL *tls)
{
    if (SSL_is_init_finished(tls)) {
        counters.handshakes++;
        counters.resumed += SSL_session_reused(tls) == 1;
        SSL_shutdown(tls);
    }
    ERR_clear_error();
    SSL_free(tls);
}

struct tls_counters tls_count(void)
{
    return counters;
}

void tls_keep_ticket(const char *ticket_file)
{
    errno = 0;
    if (newest == NULL)
        die("no ticket came");
    FILE *file = fopen(ticket_file, "w");
    bool written = file != NULL && PEM_write_SSL_SESSION(file, newest) == 1;
    if (file == NULL || fclose(file) != 0 || !written)
        die("%s", ticket_file);
}
