"""A curve as a page draws it: two lines in a square of 1000 x 1000 units, and the labels of its axes beside it.

The page stretches the square to its own width and writes the labels as text of its own, which stays readable at any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
_ROUNDING = 1e-9
"""Part of a gap by which an end may miss a label, because floats are not exact."""

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


class _Axis(NamedTuple):
    """The axis of values."""

    low: float
    """Value at its lower end."""
    high: float
    """Value at its upper end."""
    gap: float
    """Between its labels; both ends have one."""

    @property
    def height(self) -> float:
        """What lies between its ends."""
        return self.high - self.low


def draw_curve(name: str, steps: Sequence[int], values: Sequence[float], last: int, *, smooth: bool) -> Curve:
    """Return the curve of at least one value, over steps up to `last`.

    `steps` are those of the values, in order. With `smooth` the curve has a line of their mean too.
    """
    mean = smoothed(values)
    axis = _axis_of(values)
    first = _number(mean[0])
    newest = _number(mean[-1])
    summary = f"{name} over {steps[-1]} steps: {first} at first, {newest} at last"
    line = ""
    if smooth:
        summary = f"{summary}, smoothed"
        line = _line(steps, mean, last, axis)
    return Curve(
        name=name,
        summary=f"{summary}.",
        raw=_line(steps, values, last, axis),
        smooth=line,
        across=_labels_of_steps(last),
        up=_labels_of_values(axis),
    )


def _line(steps: Sequence[int], values: Sequence[float], last: int, axis: _Axis) -> str:
    """Return the line of some values as SVG has it."""
    points = []
    for step, value in zip(steps, values, strict=True):
        across = SIDE * step / last
        down = SIDE * (axis.high - value) / axis.height
        points.append((across, down))
    return _points(points)


def _labels_of_values(axis: _Axis) -> list[Label]:
    """Return the labels of the axis of values, the lowest first."""
    first = round(axis.low / axis.gap)
    gaps = round(axis.height / axis.gap)
    labels = []
    for number in range(first, first + gaps + 1):
        value = number * axis.gap
        percent = 100 * (axis.high - value) / axis.height
        labels.append(Label(_number(value), percent))
    return labels


def _labels_of_steps(last: int) -> list[Label]:
    """Return the labels of the steps, from 0 to at most the last one."""
    gap = max(1, round(_label_gap(last, 5)))
    labels = []
    for step in range(0, last + 1, gap):
        percent = 100 * step / last
        labels.append(Label(str(step), percent))
    return labels


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential mean up to each value, without the bias of its beginning (as in Adam, arXiv 1412.6980)."""
    span = max(1.0, len(values) / SMOOTHING)
    keep = 1 - 1 / span
    new = 1 - keep
    total = weight = 0.0
    means = []
    for value in values:
        total = keep * total + new * value
        weight = keep * weight + new
        means.append(total / weight)
    return means


def _axis_of(values: Sequence[float]) -> _Axis:
    """Return the axis that suits values: all of them, or a single one and zero, apart from the highest few."""
    in_order = sorted(values)
    last = len(in_order) - 1
    highest = math.ceil((1 - _CLIPPED) * last)
    low = in_order[0]
    high = in_order[highest]
    if low == high:
        low = min(low, 0.0)
        high = max(high, 0.0)
    if low == high:
        high = 1.0
    gap = _label_gap(high - low, 4)
    first = math.floor(low / gap + _ROUNDING)
    last = math.ceil(high / gap - _ROUNDING)
    return _Axis(gap * first, gap * last, gap)


def _label_gap(length: float, labels: int) -> float:
    """Return a round number that divides a length into about so many parts."""
    exact = length / labels
    power = 10.0 ** math.floor(math.log10(exact))
    for step in _STEPS:
        gap = step * power
        if gap >= exact * 0.999:
            return gap
    return 10 * power


def _number(value: float) -> str:
    """Return a value with three digits: "0.124", "0.0001"."""
    return f"{value:.{_DIGITS}g}"


def _points(line: Sequence[Point]) -> str:
    """Return a line as SVG has it; of many points the lowest and highest of each few, so that no peak is lost."""
    few = math.ceil(2 * len(line) / MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(line), few):
        part = line[start : start + few]
        lowest = max(part, key=_down)
        highest = min(part, key=_down)
        kept += sorted({lowest, highest})
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in kept)


def _down(point: Point) -> float:
    """Return how far a point lies below the upper edge."""
    _, down = point
    return down
