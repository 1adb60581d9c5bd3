"""Finished adapters, on this machine and in the account."""
