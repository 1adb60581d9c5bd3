"""The shape of a ControlNet (arXiv 2302.05543) where it does not follow from its base model's U-Net."""

USUAL_WIDTHS = (16, 32, 96, 256)
"""Channels of the small network that brings conditions from pixels to latents an eighth as wide, as published."""


def condition_widths(halvings: int) -> tuple[int, ...]:
    """Return the channels of the network that brings a condition to the size of latents.

    Each width but the first halves the sides, `halvings` times in all, as the autoencoder does with pictures.
    """
    deeper = [USUAL_WIDTHS[-1]] * (halvings + 1 - len(USUAL_WIDTHS))
    return (*USUAL_WIDTHS[: halvings + 1], *deeper)
