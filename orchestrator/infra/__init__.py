"""What jobs need in an AWS account."""
