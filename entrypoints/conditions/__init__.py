"""Condition maps of pictures, and how far a picture agrees with one."""
