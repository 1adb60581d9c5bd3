"""How fast earlier jobs were on this machine, from which the duration of the next one is estimated."""

from collections.abc import Sequence

from orchestrator.contract.environment import BASE_MODEL_CHANNEL
from orchestrator.contract.events import Resumed, Step, parse
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
    newest = target.names()[-_NEWEST:]
    for name in reversed(newest):
        job = JobFolder(target.settings.jobs / name)
        try:
            run = _measured(job)
        except (JobError, OSError, ValueError, KeyError, TypeError):
            continue
        if run is not None:
            runs.append(run)
    return runs


def _measured(job: JobFolder) -> MeasuredRun | None:
    """Return how fast the latest attempt of a job was, or None when it took too few steps."""
    state = job.state()
    if state is None:
        return None
    last, first_step = _steps(job, state.log_start)
    if last is None:
        return None
    steps = last.step - first_step
    if steps < _LEAST_STEPS:
        return None
    request = job.request()
    recipe = from_hyperparameters(request["HyperParameters"])
    base_model = channel_uris(request).get(BASE_MODEL_CHANNEL)
    if base_model is None:
        base_model = recipe.base_model
        size = of_hub(base_model)
    else:
        size = of_folder(folder_of(base_model))
    other_seconds = None
    in_one_attempt = state.status is JobStatus.COMPLETED and first_step == 0
    if in_one_attempt and state.ended is not None:
        duration = state.ended - state.started
        training_seconds = steps * last.seconds_per_step
        other_seconds = max(0.0, duration.total_seconds() - training_seconds)
    return MeasuredRun(
        job=job.name,
        base_model=base_model,
        size=size,
        recipe=recipe,
        seconds_per_step=last.seconds_per_step,
        other_seconds=other_seconds,
    )


def _steps(job: JobFolder, log_start: int) -> tuple[Step | None, int]:
    """Return the last step of the attempt that begins there in the log, and the step that it resumed from."""
    with job.log.open("rb") as log:
        log.seek(log_start)
        content = log.read()
    lines = content.decode(errors="replace").splitlines()
    resumed_from = 0
    for line in lines:
        if '"resumed"' not in line:  # most lines need not be parsed
            continue
        event = parse(line)
        if isinstance(event, Resumed):
            resumed_from = event.step
    last = None
    for line in reversed(lines):
        event = parse(line)
        if isinstance(event, Step):
            last = event
            break
    return last, resumed_from
