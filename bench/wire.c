/* wire.c: the connection of one session. */
#include "wire.h"

#include "tls.h"

#include <errno.h>
#include <unistd.h>

void wire_open(struct wire *wire, const struct endpoint *target)
{
    *wire = (struct wire){.fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (wire->fd < 0)
        die("socket");
    set_nodelay(wire->fd);
    if (connect(wire->fd, (const struct sockaddr *)&target->address, target->length) != 0 && errno != EINPROGRESS)
        die("connect");
}

void wire_start_tls(struct wire *wire)
{
    wire->tls = tls_begin(wire->fd);
}

ssize_t wire_send(struct wire *wire, const char *octets, size_t length)
{
    if (wire->tls != NULL)
        return tls_send(wire->tls, octets, length);
    return send(wire->fd, octets, length, MSG_NOSIGNAL);
}

ssize_t wire_receive(struct wire *wire, char *buffer, size_t length)
{
    if (wire->tls != NULL)
        return tls_receive(wire->tls, buffer, length);
    return recv(wire->fd, buffer, length, 0);
}

void wire_close(struct wire *wire)
{
    if (wire->tls != NULL)
        tls_end(wire->tls);
    close(wire->fd);
    *wire = (struct wire){.fd = -1};
}
