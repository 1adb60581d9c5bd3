"""What the timelines of jobs and of endpoints have in common."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Stages:
    """Seconds of each stage on the simulator's clock: the fields of a subclass that are floats."""

    @classmethod
    def _without_waiting(cls, **kept: float) -> Self:
        """Return a timeline whose stages take no time, but for those that are named: they are waits between tries."""
        seconds = {one.name: 0.0 for one in fields(cls) if one.type is float}
        return cls(**(seconds | kept))
