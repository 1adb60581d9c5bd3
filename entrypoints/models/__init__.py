"""Base models: loading, families, noise, drawing."""
