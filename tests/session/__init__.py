"""Tests of the protocol engine without sockets: dialogues, every split, random peers, the state tables."""
