"""TLS as the tests of the whole process use it: Python's own ssl module on the other side."""

from __future__ import annotations

import ssl
from typing import Any

from .process import Settings

NAME = "mx.example.org"


def client_context(pki: Any, certificate: Any = None) -> ssl.SSLContext:
    """The context of a client that believes our CA; ``certificate`` is what it shows itself."""
    context = ssl.create_default_context(cafile=str(pki.root.path))
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    return context


def server_context(pair: Any) -> ssl.SSLContext:
    """The context of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def with_tls(pair: Any, mode: str, **more: Any) -> Settings:
    """The settings ``tls`` of a listener with that certificate."""
    return {"mode": mode, "certificates": [{"cert": str(pair.cert), "key": str(pair.key)}], **more}
