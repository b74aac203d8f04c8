"""Round trips of a delivery over a long line: `make bench-wan`. Standard library only."""
