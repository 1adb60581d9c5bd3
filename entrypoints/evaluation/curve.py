"""A curve as a page draws it: two lines in a square of 1000 x 1000 units, and the labels of its axes beside it.

The page stretches the square to its own width and writes the labels as text of its own, which stays readable at any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SIDE = 1000
"""Units of the square; 0, 0 is its upper left corner."""
MOST_POINTS = 1000
"""Of a line; more are not told apart on a screen."""
SMOOTHING = 12
"""The smoothed line is an exponential mean over one in so many parts of the curve."""
_CLIPPED = 0.02
"""Part of the points that may lie above the square: single steps of a large loss would flatten all others."""
_STEPS = (1, 2, 2.5, 5, 10)
"""Between the labels of an axis, times a power of ten."""
_DIGITS = 3
"""Of a label."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """A label of an axis."""

    text: str
    """As it is read."""
    percent: float
    """Where it stands: from the left, or from the top."""


@dataclass(frozen=True)
class Curve:
    """What the page draws."""

    name: str
    """What the curve is of."""
    summary: str
    """In words, for those who do not see it."""
    raw: str
    """Points of the line of all values, as SVG has them."""
    smooth: str
    """Points of the smoothed line; empty where there is nothing to smooth."""
    across: Sequence[Label]
    """Labels of the steps."""
    up: Sequence[Label]
    """Labels of the values."""


def draw_curve(name: str, steps: Sequence[int], values: Sequence[float], last: int, *, smooth: bool) -> Curve:
    """Return the curve of at least one value, over steps up to `last`."""
    mean = smoothed(values)
    low, high, gap = _range(values)
    height = high - low

    def place(step: float, value: float) -> Point:
        return SIDE * step / last, SIDE * (high - value) / height

    raw = [place(step, value) for step, value in zip(steps, values, strict=True)]
    line = ""
    if smooth:
        line = _points([place(step, value) for step, value in zip(steps, mean, strict=True)])
    up = []
    first = round(low / gap)
    for number in range(first, first + round(height / gap) + 1):
        value = number * gap
        up.append(Label(_number(value), 100 * (high - value) / height))
    across = [Label(str(step), 100 * step / last) for step in _step_labels(last)]
    summary = f"{name} over {steps[-1]} steps: {_number(mean[0])} at first, {_number(mean[-1])} at last"
    if smooth:
        summary += ", smoothed"
    return Curve(name, f"{summary}.", _points(raw), line, across, up)


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential mean up to each value, without the bias of its beginning (as in Adam, arXiv 1412.6980)."""
    span = max(1.0, len(values) / SMOOTHING)
    keep = 1 - 1 / span
    total = weight = 0.0
    means = []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        means.append(total / weight)
    return means


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the ends of the axis of values, and the step between its labels."""
    in_order = sorted(values)
    low = in_order[0]
    high = in_order[math.ceil((1 - _CLIPPED) * (len(in_order) - 1))]
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0
    gap = _label_gap(high - low, 4)
    return gap * math.floor(low / gap + 1e-9), gap * math.ceil(high / gap - 1e-9), gap


def _label_gap(length: float, labels: int) -> float:
    """Return a round number that divides a length into about so many parts."""
    exact = length / labels
    power = 10.0 ** math.floor(math.log10(exact))
    for step in _STEPS:
        if step * power >= exact * 0.999:
            return step * power
    return 10 * power


def _step_labels(last: int) -> list[int]:
    gap = max(1, round(_label_gap(last, 5)))
    return list(range(0, last + 1, gap))


def _number(value: float) -> str:
    """Return a value with three digits: "0.124", "0.0001"."""
    return f"{value:.{_DIGITS}g}"


def _points(line: Sequence[Point]) -> str:
    """Return a line as SVG has it; of many points the lowest and highest of each few, so that no peak is lost."""
    few = math.ceil(2 * len(line) / MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(line), few):
        part = line[start : start + few]
        ends = {min(part, key=_height), max(part, key=_height)}
        kept += sorted(ends)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in kept)


def _height(point: Point) -> float:
    return point[1]
