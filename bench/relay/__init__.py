"""CPU for each delivered message, beside mail servers that relay: `make bench-relay`. Standard library only."""
