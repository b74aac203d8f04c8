"""Tests of the service as a user runs it: a process of its own, clients and mail servers round it."""
