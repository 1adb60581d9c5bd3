"""Our ddpo beside that of trl 0.23.1, the last version that trains diffusion models."""
