"""Whether a job that trains still takes steps: one that hangs (a stuck disk, a lost rank) is silent, and costs on."""

from collections import deque
from statistics import median
from typing import NamedTuple

from orchestrator.contract.events import TRAINING_PHASE, Event, Phase, Resumed, Step, Warned

_STEPS_KEPT = 50
_FEWEST_STEPS = 3
_TIMES = 20
"""Of the usual time of a step, after which its end is overdue."""
_LEAST_SECONDS = 600.0
"""Nothing is said earlier: a checkpoint is written, a log travels, a machine is busy with something else."""


class Silence(NamedTuple):
    """A job has taken no step for long."""

    seconds: float
    """Since it said anything."""
    usual: float
    """Seconds that its steps take."""


class Heartbeat:
    """Hears the events of one attempt."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_STEPS_KEPT)  # of the latest steps, each from the end of another
        self._step_ended: float | None = None
        self._heard = 0.0
        self._trains = False

    def hear(self, event: Event) -> None:
        """Take an event in; those of an older version, which have no time, say nothing of it."""
        if event.at is None:
            return
        at = event.at.timestamp()
        self._heard = at
        match event:
            case Step(step=step, of=of):
                if self._step_ended is not None:
                    self._seconds.append(at - self._step_ended)
                self._step_ended = at
                self._trains = step < of
            case Phase(name=name):
                self._trains = name == TRAINING_PHASE
                self._step_ended = None  # the next step is timed from the one after it
            case Warned() | Resumed():
                pass
            case _:  # a checkpoint or an image comes between two steps
                self._step_ended = None

    def silence(self, now: float) -> Silence | None:
        """Return for how long a step has been overdue `now`, in seconds since 1970; None where none is."""
        if not self._trains or len(self._seconds) < _FEWEST_STEPS:
            return None
        usual = median(self._seconds)
        seconds = now - self._heard
        if seconds < max(_LEAST_SECONDS, _TIMES * usual):
            return None
        return Silence(seconds, usual)
