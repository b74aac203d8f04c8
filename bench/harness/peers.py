"""All proxies that are measured, by the names that the command line has for them."""

from __future__ import annotations

from harness.errors import UnavailableError
from harness.nginx import Nginx
from harness.others import HAProxy, Stunnel
from harness.ours import SmtpProxy
from harness.peer import WITH_TLS, Peer

EAGER = SmtpProxy("eager", "smtpproxy, dials for each session", connect="eager", reuse="off")
LAZY = SmtpProxy("lazy", "smtpproxy, lazy and reuse", connect="lazy", reuse="on")
STOCK = SmtpProxy("stock", "smtpproxy, stock transports", connect="eager", reuse="off", transport="stock")
EAGER_LOG = SmtpProxy("eager-log", "the same with its log", connect="eager", reuse="off", log=True)
LAZY_LOG = SmtpProxy("lazy-log", "the same with its log", connect="lazy", reuse="on", log=True)
EAGER_TLS = SmtpProxy("eager-tls", "smtpproxy, dials for each session", connect="eager", reuse="off", wires=WITH_TLS)
LAZY_TLS = SmtpProxy("lazy-tls", "smtpproxy, lazy and reuse", connect="lazy", reuse="on", wires=WITH_TLS)
NGINX = Nginx("nginx", "nginx, mail proxy")
NGINX_TLS = Nginx("nginx-tls", "nginx, mail proxy", wires=WITH_TLS)
PLAIN_PEERS: tuple[Peer, ...] = (HAProxy(), NGINX, EAGER, EAGER_LOG, LAZY, LAZY_LOG, STOCK)
TLS_PEERS: tuple[Peer, ...] = (NGINX_TLS, Stunnel(), EAGER_TLS, LAZY_TLS)
PEERS: dict[str, Peer] = {peer.key: peer for peer in (*PLAIN_PEERS, *TLS_PEERS)}
DEFAULT_PEERS = tuple(key for key in PEERS if key != STOCK.key)


def installed(keys: list[str]) -> list[Peer]:
    """The peers of these keys that can run here; says which ones cannot."""
    peers = []
    for key in keys:
        try:
            PEERS[key].check()
        except UnavailableError as error:
            print(f"skipped: {PEERS[key].title}: {error}")
        else:
            peers.append(PEERS[key])
    return peers
