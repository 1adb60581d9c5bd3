"""Reinforcement learning of a denoiser: rounds of images, their advantages, and the losses that learn from them."""
