"""How many rows of a batch this machine computes at once: measured when the server starts.

Rows share the cost of reading the weights: that pays for small images, and for large ones hardly or not at all, while
each request waits for all rows of its batch.
"""

import time
from collections.abc import Callable, Mapping
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
SWEEPS = 4
"""How often all of them are tried: whatever else the machine did for a moment slows one try and not all of them."""


@dataclass(frozen=True)
class Profile:
    """What was measured at one size of images."""

    size: int
    """Side of the images, pixels."""
    rows: int
    """The largest batch whose seconds a row are not worse than those of others."""
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
    """Measure a denoising step of batches of several sizes, in turns, as long as time and memory suffice."""
    conditions = base.encode_prompts([""])
    side = size // base.pipeline.vae_scale_factor
    ends = clock() + SECONDS
    fewest: dict[int, float] = {}
    """Seconds a row by rows: the fewest of all tries."""
    most = max(COUNTS)
    for _ in range(SWEEPS):
        for rows in COUNTS:
            expected = rows * min(fewest.values(), default=0.0)
            if rows > most or clock() + expected > ends:
                break
            try:
                seconds = _step_seconds(base, conditions, rows, side, clock)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                most = rows - 1
                break
            of_row = seconds / rows
            fewest[rows] = min(of_row, fewest.get(rows, of_row))
    return _best(size, fewest)


def _best(size: int, fewest: Mapping[int, float]) -> Profile:
    """Return the profile of the largest batch whose rows take hardly longer than those of any other."""
    best = Profile(size, FEWEST)
    limit = NOT_WORSE * min(fewest.values(), default=0.0)
    for rows, of_row in sorted(fewest.items()):
        if of_row <= limit:
            best = Profile(size, rows, of_row)
    return best


def _step_seconds(
    base: BaseModel,
    conditions: Conditions,
    rows: int,
    side: int,
    clock: Callable[[], float],
) -> float:
    """Return the seconds of a step of some rows."""
    shape = (rows, base.denoiser.config.in_channels, side, side)
    noisy = torch.zeros(shape, device=base.device)
    times = torch.ones(rows, dtype=torch.long, device=base.device)
    repeated: Conditions = {}
    for name, tensor in conditions.items():
        repeated[name] = tensor.expand(rows, *tensor.shape[1:])
    began = clock()
    base.predict(noisy, times, repeated)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began
