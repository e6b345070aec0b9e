"""Benchmarks: run with `make bench`; never timed tests."""
