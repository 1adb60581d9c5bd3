"""A training job: its state, the course it takes, and the process it runs."""
