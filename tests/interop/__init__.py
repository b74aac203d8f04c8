"""Interoperation tests: smtpproxy between real mail software, all of it started on free loopback ports.

tests/interop/install.sh                            once, as root, on Debian 12
pytest tests/interop                                what is not installed is skipped, with the reason
SMTPPROXY_INTEROP=require pytest tests/interop      what is not installed fails
"""
