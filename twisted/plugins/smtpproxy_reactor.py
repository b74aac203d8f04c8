"""``twistd --reactor smtpproxy-lean``: the leaner epoll reactor as a plugin."""

from twisted.application.reactors import Reactor

__all__ = ["lean"]

lean = Reactor("smtpproxy-lean", "smtpproxy.net.reactor", "epoll(7), with a shorter way to smtpproxy's own transports.")
