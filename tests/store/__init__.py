"""Tests of what must outlive a session."""
