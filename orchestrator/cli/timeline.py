"""Where a job stands, by what it said: its stages, its steps, and how long they take by its own clock."""

from typing import NamedTuple

from orchestrator.contract.events import TRAINING_PHASE, Event, Item, Phase, Resumed, Sample, Step
from orchestrator.jobs.heartbeat import Heartbeat
from orchestrator.targets.base import JobStatus

_SERVICE_STAGES = {
    "Starting": "waiting for an instance",
    "Pending": "waiting for an instance",
    "Downloading": "download",
    "Training": "container start",
    "Uploading": "upload",
}
"""The service's stages in words; its "Training" ends for a person when the container prints its first line."""


class Stage(NamedTuple):
    """A stage that has ended."""

    name: str
    """What the job did."""
    seconds: float
    """How long, without the stages in between."""
    done: int
    """Items or steps that were done."""
    of: int
    """Items or steps there are; 0 when that is not known."""
    unit: str
    """What was counted, as in `Timeline.unit`."""


def moment(event: Event, now: float) -> float:
    """Return when an event happened, in seconds since 1970; `now` for one of an older version, which has no time."""
    if event.at is None:
        return now
    return event.at.timestamp()


class Timeline:
    """Follows one attempt of a job; `now` is the time in seconds since 1970."""

    def __init__(self) -> None:
        self.stage = ""
        """What the job does now, empty before it said anything and after its end."""
        self.done = 0
        """Items or steps of the stage that are done."""
        self.of = 0
        """Items or steps of the stage; 0 when that is not known."""
        self.step: Step | None = None
        """The newest step of the training."""
        self.trains = False
        """Whether the stage is the training."""
        self.heartbeat = Heartbeat()
        """When its steps ended."""
        self._began: float | None = None
        self._heard = 0.0
        self._stage_began = 0.0
        self._advanced = 0.0  # when the newest step or item ended
        self._steps_done = 0  # resumed ones included
        self._seconds: dict[str, float] = {}  # of stages that were left and may come again

    @property
    def unit(self) -> str:
        """What the stage counts: steps in the training, images in the others."""
        if self.trains:
            return "step"
        return "image"

    def hear(self, event: Event, now: float) -> Stage | None:
        """Take an event in; return the stage that it ends, if it ends one."""
        at = moment(event, now)
        self.heartbeat.hear(event)
        self._heard = at
        if self._began is None:
            self._began = at
        match event:
            case Phase(name=name, of=of):
                return self._enter(name, of, at)
            case Resumed(step=step):
                self._steps_done = step
            case Step():
                self._take_step(event, at)
            case Item(done=done, of=of):
                self.done = done
                self.of = of
                self._advanced = at
            case Sample():
                self.done = min(self.done + 1, self.of)
        return None

    def end(self, status: JobStatus, ended: float | None) -> Stage | None:
        """Return the stage in which the job ended, if it did not end between two.

        A job that was killed with all that watched it leaves no time of its end: then it is that of its last word.
        """
        if ended is None:
            ended = self._heard
        is_complete = status is JobStatus.COMPLETED
        return self._leave(ended, is_final=not is_complete)

    def elapsed(self, now: float) -> float:
        """Return the seconds since the attempt began."""
        if self._began is None:
            return 0.0
        return max(0.0, now - self._began)

    def left(self, now: float) -> float | None:
        """Return the seconds that the training, or the drawing after it, still takes; None when that is not known."""
        step = self.step
        if step is None:
            return None
        if self.trains:
            # The mean is over the steps of this attempt: what an earlier one had done does not count.
            seconds = (step.of - step.step) * step.seconds_per_step
        elif 0 < self.done < self.of:
            seconds_each = (self._advanced - self._stage_began) / self.done
            seconds = (self.of - self.done) * seconds_each
        else:
            return None
        since = now - self._advanced
        return max(0.0, seconds - since)

    def _take_step(self, event: Step, at: float) -> None:
        self.step = event
        self._advanced = at
        self._steps_done = event.step
        self.trains = True
        self.done = event.step
        self.of = event.of

    def _enter(self, name: str, of: int, at: float) -> Stage | None:
        name = _SERVICE_STAGES.get(name, name)
        if name == self.stage:
            return None
        ended = self._leave(at, is_final=False)
        if name in {status.value for status in JobStatus if status.is_final}:
            return ended
        self.stage = name
        self.of = of
        self.done = 0
        self._stage_began = at
        self.trains = False
        if name == TRAINING_PHASE:
            self.done = self._steps_done
            self.trains = True
        return ended

    def _leave(self, at: float, *, is_final: bool) -> Stage | None:
        """End the stage, or return None when it is left for another before all its steps are done."""
        name = self.stage
        if not name:
            return None
        seconds = self._seconds.pop(name, 0.0) + max(0.0, at - self._stage_began)
        self.stage = ""
        if self.trains and self.done < self.of and not is_final:
            self._seconds[name] = seconds
            return None
        return Stage(
            name,
            seconds,
            self.done,
            self.of,
            self.unit,
        )
