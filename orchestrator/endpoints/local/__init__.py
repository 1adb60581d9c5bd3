"""Endpoints on this machine: a server process for each, which outlives the command that started it."""
