"""Bootstrap intervals (Efron 1979): how far a mean may be off because other images could have been drawn.

Every figure is the mean of one value for each image. The images are drawn again from themselves, with replacement, and
the percentiles of the means of many such resamples are the ends of the interval. A single value is drawn again as
itself alone: its resamples are all equal, which is no sign of exactness, and it gets no interval.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.contract.evaluation_result import Estimate

CONFIDENCE = 0.95
DIGITS = 4
"""Of a figure: the rest is noise."""
LEAST = 2
"""Values that an interval can be estimated from."""
MEASURED_ONCE = "it rests on one image, or on one pair of images"
_ENDS = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))  # in percent

Values = NDArray[np.float64]


class Bootstrap:
    """Resamples, the same for all figures of one number of images, so that their differences are paired."""

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def means(self, values: Values, of: int = 0) -> Values:
        """Return the mean of each resample; `of` tells apart what is resampled independently."""
        generator = np.random.default_rng([self.seed, of])
        chosen = generator.integers(len(values), size=(self.resamples, len(values)))
        means: Values = values[chosen].mean(axis=1)
        return means

    def mean(self, values: Values, of: int = 0) -> Estimate:
        """Return the mean of values with its interval, if there are enough for one."""
        value = float(values.mean())
        if len(values) < LEAST:
            return measured_once(value)
        return estimate(value, self.means(values, of))


def estimate(value: float, resampled: Values | Sequence[float]) -> Estimate:
    """Return a figure with the interval that its resamples give."""
    low, high = np.percentile(resampled, _ENDS)
    return Estimate(value=round(value, DIGITS), low=round(float(low), DIGITS), high=round(float(high), DIGITS))


def measured_once(value: float) -> Estimate:
    """Return a figure without an interval."""
    return Estimate(value=round(value, DIGITS), no_interval=MEASURED_ONCE)
