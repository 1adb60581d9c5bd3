"""Personalise image models on this machine or on one's own AWS account."""

__version__ = "0.1.0"
