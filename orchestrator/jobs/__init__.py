"""Submit jobs and watch them, on any target."""
