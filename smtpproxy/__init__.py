"""smtpproxy: an SMTP proxy that gives early pipelining to mail servers that do not know it.

Packages, from the top; each imports only what stands below it (``tests/test_imports.py`` enforces it)::

    cli       the command line
    service   wiring, reload, drain
    ops       logs, counters, the demo
    net       sockets and Twisted
    store     what outlives a session
    session   the protocol, without input or output
    smtp      the grammar

``config`` stands beside them and may be imported from ``net`` upwards.
"""

__version__ = "0.1.0"
