"""Outbound: a client's messages on their way to remote servers, without I/O.

``submission.py`` is the client's side, ``delivery.py`` one message on its way to one destination, ``remote.py`` one
session with a server.
"""
