"""Tests of the Twisted shell: real sockets where the kernel matters, an injected clock everywhere."""
