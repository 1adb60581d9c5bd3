"""Slow measurements, each of which rewrites its table in docs/benchmarks.md."""
