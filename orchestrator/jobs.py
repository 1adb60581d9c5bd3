"""Submit jobs and watch them, on any target."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator import datasets
from orchestrator.bundle import store_bundle
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.events import Event, parse
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.contract.words import holds_word
from orchestrator.errors import DatasetError, JobError, JobExistsError
from orchestrator.explanations import Explanation, explain
from orchestrator.hashes import HashMemory
from orchestrator.requests import IDENTITY_TAG, JobInputs, Request, folder_of, job_name, training_job
from orchestrator.settings import Settings
from orchestrator.specs import JobSpec
from orchestrator.storage import FolderStore
from orchestrator.targets.base import JobDescription, JobStatus, Target
from orchestrator.targets.process import ProcessTarget

GRACE_SECONDS = 120.0  # what the service gives a container between SIGTERM and SIGKILL
_LOST = "What came after its newest checkpoint is lost."
ENDED_EARLY = {JobStatus.FAILED, JobStatus.STOPPED}


class Job:
    """A handle on a submitted job."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.name = name

    def describe(self) -> JobDescription:
        """Return what is known of the job now."""
        return self.target.describe(self.name)

    def log_lines(self, *, follow: bool = False, latest_attempt: bool = False) -> Iterator[str]:
        """Yield the log's lines, new ones too until the job ends if `follow`."""
        return self.target.log_lines(self.name, follow=follow, latest_attempt=latest_attempt)

    def events(self, *, follow: bool = False, latest_attempt: bool = False) -> Iterator[Event]:
        """Yield what the job said of its progress."""
        lines = self.log_lines(follow=follow, latest_attempt=latest_attempt)
        return (event for line in lines if (event := parse(line)) is not None)

    def wait(self) -> JobDescription:
        """Wait for the end and return how it came."""
        while not self.target.wait_for_end(self.name, seconds=60):
            pass
        return self.describe()

    def stop(self, *, now: bool = False, grace_seconds: float = GRACE_SECONDS) -> JobDescription:
        """Ask the job to save a checkpoint and end, kill it when it has not after the grace or at once if `now`.

        Returns how it ended.
        """
        if now:
            self.target.kill(self.name, f"It was killed at once, as asked. {_LOST}")
        else:
            self.target.stop(self.name)
            if not self.target.wait_for_end(self.name, grace_seconds):
                reason = f"It did not end within {grace_seconds:.0f} s of the request to stop and was killed."
                self.target.kill(self.name, f"{reason} {_LOST}")
        return self.wait()

    def remove(self, *, adapter: bool) -> None:
        """Forget the ended job and let go of its name, with its adapter if so asked; raises JobError while it runs."""
        self.target.discard(self.name, adapter=adapter)

    def resume(self) -> None:
        """Go on from the newest checkpoint; raises JobError when the job is complete or has not ended."""
        status = self.describe().status
        if status not in ENDED_EARLY:
            raise JobError(
                f"The job {self.name} is {status}; only one that failed or was stopped can be resumed.",
                next_step=f"python -m orchestrator jobs {'show' if status.is_final else 'wait'} {self.name}",
            )
        self.target.resume(self.name)

    def explain(self) -> Explanation:
        """Return why the job stands where it does, the evidence, and what to do."""
        return explain(self.describe(), self.log_lines(latest_attempt=True), self.target.checkpoint_step(self.name))

    def adapter_folder(self) -> Path:
        """Return the folder the finished adapter lies in."""
        return folder_of(self.describe().output)

    def manifest(self) -> AdapterManifest | None:
        """Return the adapter's manifest, or None while there is no adapter."""
        try:
            return AdapterManifest.read(self.adapter_folder())
        except FileNotFoundError:
            return None
        except ValueError as error:
            folder = self.adapter_folder()
            message = f"{folder / MANIFEST_FILE} cannot be read; it was changed, or a newer version wrote it."
            raise JobError(message, next_step="submit the job again with --restart") from error


class Plan(BaseModel):
    """What a submit would start."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    request: Request
    """The CreateTrainingJob request."""
    warnings: tuple[Problem, ...]
    """What is odd about the pictures."""


def plan(spec: JobSpec, settings: Settings, store: FolderStore) -> Plan:
    """Look at the pictures, store what the job reads, and return the request; starts nothing.

    Raises DatasetError when the pictures cannot be trained on.
    """
    dataset = datasets.inspect(spec.images, resolution=spec.recipe.resolution)
    _insist_on_word(dataset, spec.recipe.caption_word)
    with store.staging() as folder:
        datasets.prepare(dataset, folder)
        dataset_sha256 = tree_sha256(hash_files(folder))
        training = store.put_tree("data", folder)
    identity = spec.identity(dataset_sha256, HashMemory(settings.cache / "hashes").digest)
    base_model = spec.base_model_folder
    inputs = JobInputs(
        identity=identity,
        training=training.as_uri(),
        base_model=base_model.as_uri() if base_model else None,
        bundle=store_bundle(store).as_uri(),
        output=(settings.adapters / (spec.name or job_name(spec, identity))).as_uri(),
    )
    return Plan(request=training_job(spec, inputs), warnings=dataset.warnings)


def _insist_on_word(dataset: datasets.Dataset, word: str | None) -> None:
    """Raise DatasetError for captions from which the word that is to be learnt is missing: it would never be seen."""
    if word is None:
        return
    problems = [
        Problem(where=str(picture.file), what=f'its caption does not hold "{word}"', fix="add the word to the caption")
        for picture in dataset.pictures
        if picture.caption is not None and not holds_word(picture.caption, word)
    ]
    if problems:
        next_step = "mend the captions or take them out of the folder, then submit again"
        raise DatasetError("The captions would not teach the new word.", next_step=next_step, problems=problems)


class Submission(NamedTuple):
    """What a submit came to."""

    job: Job
    started: bool
    """False when the same job was submitted before and is attached to."""


def submit(planned: Plan, target: Target, *, resume: bool = False, restart: bool = False) -> Submission:
    """Start the planned job, or attach to it when it was submitted before.

    A job that ended early is gone on with by `resume` and begun anew by `restart`; raises JobError when it has a
    checkpoint and neither was said, so that nothing starts over silently.
    """
    request = planned.request
    job = Job(target, request["TrainingJobName"])
    if job.name not in target.names():
        if resume:
            raise JobError("There is no earlier run of this job to resume.", next_step="submit it without --resume")
        return _create(job, request)
    status = job.describe().status
    if restart:
        return _begin_anew(job, request, status)
    if status in ENDED_EARLY:
        return _go_on(job, request, resume=resume)
    if status is JobStatus.COMPLETED and job.manifest() is None:
        raise JobError(
            f"The job {job.name} is complete, but its adapter is gone from {job.adapter_folder()}.",
            next_step="submit it again with --restart",
        )
    return Submission(job, started=False)


def _create(job: Job, request: Request) -> Submission:
    try:
        job.target.create(request)
    except JobExistsError:  # another submit of the same job was quicker
        if job.describe().identity != _identity(request):
            raise
        return Submission(job, started=False)
    return Submission(job, started=True)


def _begin_anew(job: Job, request: Request, status: JobStatus) -> Submission:
    if not status.is_final:
        raise JobError(f"The job {job.name} is running.", next_step=f"python -m orchestrator jobs stop {job.name}")
    job.target.discard(job.name)
    return _create(job, request)


def _go_on(job: Job, request: Request, *, resume: bool) -> Submission:
    step = job.target.checkpoint_step(job.name)
    if step is None:  # nothing to lose: begin anew, with the code of today
        return _begin_anew(job, request, JobStatus.FAILED)
    if not resume:
        raise JobError(
            f"This job ended early before; its checkpoint at step {step} is kept. Submitted with --resume it goes on "
            "from there, with --restart it begins anew.",
            next_step=f"python -m orchestrator jobs retry {job.name}",
        )
    job.resume()
    return Submission(job, started=True)


def _identity(request: Request) -> str:
    return next(str(tag["Value"]) for tag in request["Tags"] if tag["Key"] == IDENTITY_TAG)


def find(name: str, target: Target) -> Job:
    """Return the job of that name, or the only one that begins with it; raises JobError."""
    names = target.names()
    if not name:
        raise JobError("The name of the job is empty.", next_step="python -m orchestrator jobs list")
    matches = [known for known in names if known == name] or [known for known in names if known.startswith(name)]
    if len(matches) == 1:
        return Job(target, matches[0])
    if matches:
        raise JobError(f'"{name}" could be any of: {", ".join(matches)}.', next_step="python -m orchestrator jobs list")
    hint = did_you_mean(name, names) if names else "no job was submitted yet."
    raise JobError(f'There is no job "{name}"{hint and f"; {hint}"}', next_step="python -m orchestrator jobs list")


def local_target(settings: Settings) -> Target:
    """Return the target of this machine."""
    return ProcessTarget(settings)
