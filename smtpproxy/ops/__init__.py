"""Operating the service: its log, its counters, the demonstration."""
