"""What every process with torch needs: machine, ranks, randomness, stop, failures, images."""
