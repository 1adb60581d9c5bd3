"""What reinforcement learning does to the built-in model: rewards on held-out prompts, and what they cost."""
