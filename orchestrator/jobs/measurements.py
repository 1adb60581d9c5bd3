"""How fast earlier jobs were on this machine, from which the duration of the next one is estimated."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache

from orchestrator.contract.environment import BASE_MODEL_CHANNEL
from orchestrator.contract.events import ATTEMPT_PHASE, Event, Item, Phase, Resumed, Step, parse
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.recipe import from_hyperparameters
from orchestrator.errors import JobError
from orchestrator.models.size import of_folder, of_hub, of_source
from orchestrator.planning.duration import DrawnBatch, Duration, MeasuredRun, here
from orchestrator.requests import channel_uris
from orchestrator.specs.base_model import Hub
from orchestrator.specs.job import JobSpec
from orchestrator.storage import folder_of
from orchestrator.targets.local.job_folder import JobFolder, processors
from orchestrator.targets.local.local_jobs import LocalJobs

_NEWEST = 20  # jobs to read: the state of the machine changes, and so do its jobs
_MOST_BYTES = 2**20  # of the beginning, and of the end, of a log
_LEAST_STEPS = 5  # the first steps of a process are slow


def expected_here(spec: JobSpec, runs: Sequence[MeasuredRun]) -> Duration | None:
    """Return how long a job is likely to run on this machine, or None when none of its `runs` tells."""
    source = spec.base_model
    size = of_source(source)
    if isinstance(source, Hub):
        return here(spec.recipe, source.id, size, runs)
    folder = source.folder.as_uri()
    return here(spec.recipe, folder, size, runs)


def measured_runs(target: LocalJobs) -> list[MeasuredRun]:
    """Return the runs of a machine that tell how fast it is, the newest first; unreadable jobs are left out."""
    runs = []
    size_of = cache(_size_of)  # many jobs have the same model, whose headers are read then
    newest = target.names()[-_NEWEST:]
    for name in reversed(newest):
        job = JobFolder(target.settings.jobs / name)
        try:
            run = _measured(job, size_of)
        except (JobError, OSError, ValueError, KeyError, TypeError):
            continue
        if run is not None:
            runs.append(run)
    return runs


def _measured(job: JobFolder, size_of: Callable[[str], ModelSize | None]) -> MeasuredRun | None:
    """Return how fast the latest attempt of a job was, or None when it took too few steps."""
    state = job.state()
    if state is None:
        return None
    opening = _opening(job, state.log_start)
    closing = _closing(job, state.log_start)
    if not opening or not closing:
        return None
    first_step = 0
    if isinstance(opening[-1], Resumed):
        first_step = opening[-1].step
    last = closing[0]
    if not isinstance(last, Step) or last.step - first_step < _LEAST_STEPS:
        return None
    if last.seconds_per_step == 0:
        return None
    request = job.request()
    recipe = from_hyperparameters(request["HyperParameters"])
    base_model = channel_uris(request).get(BASE_MODEL_CHANNEL)
    if base_model is None:
        base_model = recipe.base_model
    return MeasuredRun(
        job=job.name,
        base_model=base_model,
        size=size_of(base_model),
        recipe=recipe,
        seconds_per_step=last.seconds_per_step,
        start_seconds=_start_seconds(opening),
        batch=_drawn_batch(opening, closing),
        same_processors=state.processors in (None, processors()),
    )


def _size_of(base_model: str) -> ModelSize | None:
    """Return the sizes of a base model, by the URI of its folder or its name on the Hub; raises ValueError."""
    if base_model.startswith("file:"):
        return of_folder(folder_of(base_model))
    return of_hub(base_model)


def _opening(job: JobFolder, log_start: int) -> list[Event]:
    """Return the events of an attempt up to its first step, or to where it says from which step it resumes.

    Empty where the log does not tell, which may have grown to any size.
    """
    with job.log.open("rb") as log:
        log.seek(log_start)
        head = log.read(_MOST_BYTES)
    events: list[Event] = []
    for line in head.decode(errors="replace").splitlines():
        event = parse(line)
        if event is None:
            continue
        events.append(event)
        if isinstance(event, Resumed | Step):
            return events
    return []


def _closing(job: JobFolder, log_start: int) -> list[Event]:
    """Return the events of an attempt from its newest step on; empty where the log does not tell."""
    with job.log.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(log_start, size - _MOST_BYTES))
        tail = log.read(_MOST_BYTES)
    events: list[Event] = []
    for line in reversed(tail.decode(errors="replace").splitlines()):
        event = parse(line)
        if event is None:
            continue
        events.append(event)
        if isinstance(event, Step):
            events.reverse()
            return events
    return []


def _start_seconds(opening: Sequence[Event]) -> float | None:
    """Return the time from the start of an attempt, when its turn has come, to its first class image or step."""
    began = None
    for event in opening:
        if not isinstance(event, Phase):
            continue
        if event.name == ATTEMPT_PHASE:
            began = event.at
        if event.of:
            return _seconds_between(began, event.at)
    return None


def _drawn_batch(opening: Sequence[Event], closing: Sequence[Event]) -> DrawnBatch | None:
    """Return the images that were drawn at once, of the largest number; None before any were drawn.

    At the end the quickest: some waited for a model, or the machine slept. At the beginning the last: those before may
    lie in the cache.
    """
    drawn = _largest(closing)
    if drawn:
        return min(drawn, key=lambda batch: batch.seconds)
    drawn = _largest(opening)
    if drawn:
        return drawn[-1]
    return None


def _largest(events: Sequence[Event]) -> list[DrawnBatch]:
    """Return the batches of the largest number of images, as they were drawn."""
    batches: list[DrawnBatch] = []
    done = 0
    since = None
    for event in events:
        if isinstance(event, Phase):
            done = 0
            since = event.at
        elif isinstance(event, Item):
            images = event.done - done
            seconds = _seconds_between(since, event.at)
            if images > 0 and seconds is not None:
                batch = DrawnBatch(images, seconds)
                batches.append(batch)
            done = event.done
            since = event.at
    most = max((batch.images for batch in batches), default=0)
    return [batch for batch in batches if batch.images == most]


def _seconds_between(earlier: datetime | None, later: datetime | None) -> float | None:
    """Return the time between two events; None where the log does not tell, or the clock was set back."""
    if earlier is None or later is None:
        return None
    seconds = (later - earlier).total_seconds()
    if seconds <= 0:
        return None
    return seconds
