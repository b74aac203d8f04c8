"""Outbound sessions without sockets: dialogues, and remotes that fail in every way at every place."""
