"""Rewards of images, and the alarms of a run that raises them."""
