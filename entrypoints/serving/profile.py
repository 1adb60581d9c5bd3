"""How many rows of a batch this machine computes at once: measured when the server starts.

Rows share the cost of reading the weights: that pays for small images, and for large ones hardly or not at all, while
each request waits for all rows of its batch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from entrypoints.models.base import BaseModel, Conditions
from entrypoints.runtime.failures import is_out_of_memory

COUNTS = (2, 4, 8, 16, 32)
"""Rows that are tried; an image with guidance takes two."""
SECONDS = 3.0
"""That measuring may take, about."""
NOT_WORSE = 1.05
"""Times the fewest seconds a row, up to which a batch counts as no slower: measurements vary so much."""
FEWEST = 2
REPEATS = 2


@dataclass(frozen=True)
class Profile:
    """What was measured at one size of images."""

    size: int
    """Side of the images, pixels."""
    rows: int
    """The largest batch whose seconds a row are not worse than those of smaller ones."""
    seconds_per_row: float = 0.0
    """Of that batch; 0 when it was not measured."""

    def rows_at(self, pixels: int) -> int:
        """Return how many rows are computed at once of images with so many pixels: as many pixels in all."""
        return max(FEWEST, self.rows * self.size**2 // pixels)

    @property
    def seconds_per_work(self) -> float:
        """Seconds for a pixel of an image with guidance in a step."""
        return 2 * self.seconds_per_row / self.size**2


@torch.no_grad()
def profiled(
    base: BaseModel,
    size: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Measure a denoising step of growing batches, until one is slower for each row, or time or memory is short."""
    conditions = base.encode_prompts([""])
    side = size // base.pipeline.vae_scale_factor
    began = clock()
    best = Profile(size, FEWEST)
    fewest_seconds = float("inf")
    for rows in COUNTS:
        try:
            seconds = _step_seconds(base, conditions, rows, side, clock)
        except Exception as error:
            if is_out_of_memory(error):
                return best
            raise
        of_row = seconds / rows
        if of_row > NOT_WORSE * fewest_seconds:
            return best
        best = Profile(size, rows, of_row)
        fewest_seconds = min(fewest_seconds, of_row)
        expected = 2 * REPEATS * seconds  # of twice as many rows
        if clock() - began + expected > SECONDS:
            return best
    return best


def _step_seconds(
    base: BaseModel,
    conditions: Conditions,
    rows: int,
    side: int,
    clock: Callable[[], float],
) -> float:
    """Return the seconds of a step of some rows, the shortest of a few."""
    shape = (rows, base.denoiser.config.in_channels, side, side)
    noisy = torch.zeros(shape, device=base.device)
    times = torch.ones(rows, dtype=torch.long, device=base.device)
    repeated: Conditions = {}
    for name, tensor in conditions.items():
        repeated[name] = tensor.expand(rows, *tensor.shape[1:])
    seconds = []
    for _ in range(REPEATS):
        began = clock()
        base.predict(noisy, times, repeated)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(clock() - began)
    return min(seconds)
