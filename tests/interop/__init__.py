"""Interoperation tests: smtpproxy between real mail software, all of it started by the tests on free
loopback ports.
"""
