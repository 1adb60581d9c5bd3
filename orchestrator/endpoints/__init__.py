"""Endpoints: servers that draw with many adapters, on this machine and in the account."""
