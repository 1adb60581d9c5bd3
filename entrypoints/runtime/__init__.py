"""What every process with torch stands on: machine, randomness, stop, failures, pictures."""
