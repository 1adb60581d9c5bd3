"""The server beside plain diffusers and beside itself: speed, soundness, and what it does under load."""
