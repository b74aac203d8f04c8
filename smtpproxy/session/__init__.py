"""The protocol engine: sessions as explicit state machines over bytes.

Nothing here does I/O: bytes and time come in as arguments, bytes and a few actions go out.
"""
