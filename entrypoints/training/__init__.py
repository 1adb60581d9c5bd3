"""The training engine that recipes are written with."""
