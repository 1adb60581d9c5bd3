"""What a trained adapter draws, and how it is judged."""
