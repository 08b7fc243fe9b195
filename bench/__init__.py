"""Benchmarks: what the engine costs, beside its peers and beside the bare store, in one session on one machine."""
