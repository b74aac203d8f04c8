"""The Twisted shell round the protocol engine: sockets, listeners, backend connections, time.

The reactor is always handed in.
"""
