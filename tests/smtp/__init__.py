"""Tests of the pure grammar, by the numbers of the rules."""
