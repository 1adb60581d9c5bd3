"""Finished adapters, here and in the account."""
