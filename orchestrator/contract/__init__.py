"""What client and container agree on. Imports pydantic and the standard library, nothing else."""
