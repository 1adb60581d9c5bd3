"""How many images are drawn at once.

The client needs it to estimate a job's memory. In the container it decides how the images come out to the last bit:
another batch rounds differently.
"""

PIXELS_AT_ONCE_CPU = 32 * 64 * 64
"""Enough to fill two cores."""
PIXELS_AT_ONCE_GPU = 4 * 512 * 512


def images_at_once(size: int, *, gpu: bool) -> int:
    """Return how many square images with a side of `size` pixels make a batch; at least one."""
    pixels = PIXELS_AT_ONCE_GPU if gpu else PIXELS_AT_ONCE_CPU
    return max(1, pixels // size**2)
