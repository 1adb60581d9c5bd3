"""What is trained of a base model, and the files it becomes."""
