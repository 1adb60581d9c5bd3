"""Personalise image models on this machine or on one's own AWS account."""
