"""What a running job says, one JSON object a line on stdout.

The progress bar, `jobs logs` and the metrics of the service all read these lines and nothing else, so that a bar
redrawn with carriage returns never has to be parsed out of a log. A line that is not an event is plain log text.
"""

import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

NOTE = "Note: "
"""Begins a line of the log that is no event and no sign of a fault: what a job derived from its settings."""
ATTEMPT_PHASE = "starting"
"""Name of the phase that opens each attempt in a job's log."""
TRAINING_PHASE = "training"
"""Name of the phase whose items are optimizer steps; others may come in between."""


# A line of the log may say anything: what is not within these limits is plain text, and nobody computes with it.
_Count = Annotated[int, Field(ge=0, le=10**12)]
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    # First in the line, as the service's regular expressions expect it (planning/metric_definitions.py).
    event: str
    """The kind of event."""
    at: AwareDatetime | None = None
    """When it happened, by the clock of the job's machine; None in the log of an older version."""


class Phase(_Event):
    """The job has begun a named part of its work."""

    event: Literal["phase"] = "phase"
    name: str
    """What it does now, in words: "class images", "training", "contact sheet"."""
    of: _Count = 0
    """How many items the phase has, 0 when that is not known."""


class Item(_Event):
    """One more item of the current phase is done; training has `Step` instead."""

    event: Literal["item"] = "item"
    done: _Count
    """Items done so far."""
    of: _Count
    """Items in the phase."""


class Step(_Event):
    """One optimizer step is done."""

    event: Literal["step"] = "step"
    step: _Count
    """Optimizer steps done so far, resumed ones included."""
    of: _Count
    """Optimizer steps in the whole run."""
    loss: float
    """Training loss of this step."""
    learning_rate: float
    """Learning rate of this step."""
    seconds_per_step: _Seconds
    """Running mean over this process's steps, in seconds."""
    measures: dict[str, float] = {}
    """Figures of the objective beside its loss, by name."""


class Checkpoint(_Event):
    """A checkpoint is complete on disk."""

    event: Literal["checkpoint"] = "checkpoint"
    step: _Count
    """Optimizer steps it holds."""


class Resumed(_Event):
    """The job goes on from a checkpoint."""

    event: Literal["resumed"] = "resumed"
    step: _Count
    """Optimizer steps already done."""


class Sample(_Event):
    """A picture was written."""

    event: Literal["sample"] = "sample"
    path: str
    """Path below the job's root."""


class Metrics(_Event):
    """Figures measured on the finished adapter."""

    event: Literal["metrics"] = "metrics"
    values: dict[str, float]
    """Name to figure; the names are those of `figures` and documented in docs/metrics.md."""


class Warned(_Event):
    """Something a person should know and the job can live with."""

    event: Literal["warning"] = "warning"
    message: str
    """What, and what to do about it."""


class Failed(_Event):
    """The job has failed; the same words are in the failure file."""

    event: Literal["failed"] = "failed"
    kind: str
    """A stable word for the cause: "nan-loss", "out-of-memory", "disk-full", "base-model", "bug", ..."""
    message: str
    """What happened and why."""
    next_step: str = ""
    """What to type or change next."""


class Listening(_Event):
    """A server takes connections; whether it has loaded its base model, /ping says."""

    event: Literal["listening"] = "listening"
    host: str
    """Address."""
    port: int
    """Port, also where any free one was asked for."""


Event = Annotated[
    Phase | Item | Step | Checkpoint | Resumed | Sample | Metrics | Warned | Failed | Listening,
    Field(discriminator="event"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


_muted = False
_warnings: list[str] = []


def mute() -> None:
    """Write nothing but failures from now on: another process of the same job reports its progress."""
    global _muted  # noqa: PLW0603 - a process has one log, and this decides once who writes it
    _muted = True


def emit(event: Event) -> None:
    """Write an event to stdout at once, with the time."""
    if _muted and not isinstance(event, Failed):
        return
    if isinstance(event, Warned):
        _warnings.append(event.message)
    sys.stdout.write(line_of(event) + "\n")
    sys.stdout.flush()


def warnings_told() -> tuple[str, ...]:
    """Return what this process has warned of since `forget_warnings`, each once."""
    return tuple(dict.fromkeys(_warnings))


def forget_warnings() -> None:
    """Begin another run in the same process."""
    _warnings.clear()


def line_of(event: Event) -> str:
    """Return the log line of an event that happens now."""
    stamped = event.model_copy(update={"at": datetime.now(UTC)})
    return stamped.model_dump_json()


def parse(line: str) -> Event | None:
    """Return the event a log line holds, or None for plain text."""
    if not line.startswith("{"):
        return None
    try:
        return _EVENT.validate_python(json.loads(line))
    except (ValueError, RecursionError):  # ValidationError is one; so is a number of 5000 digits
        return None
