"""Recipes of ours beside the example scripts of diffusers: time, memory, quality, resume after a kill."""
