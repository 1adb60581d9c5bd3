"""How fast earlier jobs were on this machine, from which the duration of the next one is estimated."""

from collections.abc import Callable, Sequence
from functools import cache

from orchestrator.contract.environment import BASE_MODEL_CHANNEL
from orchestrator.contract.events import Resumed, Step, parse
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.recipe import from_hyperparameters
from orchestrator.errors import JobError
from orchestrator.models.size import of_folder, of_hub, of_source
from orchestrator.planning.duration import Duration, MeasuredRun, here
from orchestrator.requests import channel_uris
from orchestrator.specs.base_model import Hub
from orchestrator.specs.job import JobSpec
from orchestrator.storage import folder_of
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
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
    last = job.last_step(_MOST_BYTES)
    first_step = _first_step(job, state.log_start)
    if last is None or first_step is None or last.seconds_per_step == 0:
        return None
    steps = last.step - first_step
    if steps < _LEAST_STEPS:
        return None
    request = job.request()
    recipe = from_hyperparameters(request["HyperParameters"])
    base_model = channel_uris(request).get(BASE_MODEL_CHANNEL)
    if base_model is None:
        base_model = recipe.base_model
    other_seconds = None
    in_one_attempt = state.status is JobStatus.COMPLETED and first_step == 0
    if in_one_attempt and state.ended is not None:
        duration = state.ended - state.started
        training_seconds = steps * last.seconds_per_step
        other_seconds = max(0.0, duration.total_seconds() - training_seconds)
    return MeasuredRun(
        job=job.name,
        base_model=base_model,
        size=size_of(base_model),
        recipe=recipe,
        seconds_per_step=last.seconds_per_step,
        other_seconds=other_seconds,
    )


def _size_of(base_model: str) -> ModelSize | None:
    """Return the sizes of a base model, by the URI of its folder or its name on the Hub; raises ValueError."""
    if base_model.startswith("file:"):
        return of_folder(folder_of(base_model))
    return of_hub(base_model)


def _first_step(job: JobFolder, log_start: int) -> int | None:
    """Return the step that an attempt began at: 0, or the one that it resumed from; None where its log does not tell.

    It says so before its first step. A log may have grown to any size.
    """
    with job.log.open("rb") as log:
        log.seek(log_start)
        head = log.read(_MOST_BYTES)
    for line in head.decode(errors="replace").splitlines():
        event = parse(line)
        if isinstance(event, Resumed):
            return event.step
        if isinstance(event, Step):
            return 0
    return None
