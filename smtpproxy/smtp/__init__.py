"""The pure grammar of SMTP: command lines, replies, extensions, mail data, paths.

Nothing here knows a connection, a session or a clock: bytes go in, values come out.
"""
