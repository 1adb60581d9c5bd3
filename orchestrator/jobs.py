"""Submit jobs and watch them, on any target."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator import datasets
from orchestrator.bundle import store_bundle
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.events import Event, parse
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.errors import JobError
from orchestrator.explanations import Explanation, explain
from orchestrator.requests import JobInputs, Request, folder_of, job_name, training_job
from orchestrator.settings import Settings
from orchestrator.specs import JobSpec
from orchestrator.storage import FolderStore
from orchestrator.targets.base import JobDescription, JobStatus, Target
from orchestrator.targets.process import ProcessTarget


class Job:
    """A handle on a submitted job."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.name = name

    def describe(self) -> JobDescription:
        """Return what is known of the job now."""
        return self.target.describe(self.name)

    def log_lines(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the log's lines, new ones too until the job ends if `follow`."""
        return self.target.log_lines(self.name, follow=follow)

    def events(self, *, follow: bool = False) -> Iterator[Event]:
        """Yield what the job said of its progress."""
        return (event for line in self.log_lines(follow=follow) if (event := parse(line)) is not None)

    def wait(self) -> JobDescription:
        """Wait for the end and return how it came."""
        while not self.target.wait_for_end(self.name, seconds=60):
            pass
        return self.describe()

    def stop(self) -> None:
        """Ask the job to save a checkpoint and end."""
        self.target.stop(self.name)

    def resume(self) -> None:
        """Go on from the newest checkpoint; raises JobError when there is nothing to go on with."""
        status = self.describe().status
        if status is JobStatus.COMPLETED:
            raise JobError(
                f"The job {self.name} is complete.", next_step=f"python -m orchestrator jobs show {self.name}"
            )
        self.target.resume(self.name)

    def explain(self) -> Explanation:
        """Return why the job stands where it does, the evidence, and what to do."""
        return explain(self.describe(), self.log_lines(), self.target.checkpoint_step(self.name))

    def adapter_folder(self) -> Path:
        """Return the folder the finished adapter lies in."""
        return folder_of(self.describe().output)

    def manifest(self) -> AdapterManifest | None:
        """Return the adapter's manifest, or None while there is no adapter."""
        try:
            return AdapterManifest.read(self.adapter_folder())
        except FileNotFoundError:
            return None


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
    with store.staging() as folder:
        datasets.prepare(dataset, folder)
        dataset_sha256 = tree_sha256(hash_files(folder))
        training = store.put_tree("data", folder)
    identity = spec.identity(dataset_sha256)
    base_model = spec.base_model_folder
    inputs = JobInputs(
        identity=identity,
        training=training.as_uri(),
        base_model=base_model.as_uri() if base_model else None,
        bundle=store_bundle(store).as_uri(),
        output=(settings.adapters / (spec.name or job_name(spec, identity))).as_uri(),
    )
    return Plan(request=training_job(spec, inputs), warnings=dataset.warnings)


def submit(planned: Plan, target: Target, *, resume: bool = False, restart: bool = False) -> Job:
    """Start the planned job, or attach to it when it was submitted before.

    A job that ended early is gone on with by `resume` and begun anew by `restart`; raises JobError when it has a
    checkpoint and neither was said, so that nothing starts over silently.
    """
    name = planned.request["TrainingJobName"]
    job = Job(target, name)
    if name not in target.names():
        _refuse_taken_name(planned.request, target)
        if resume:
            raise JobError("There is no earlier run of this job to resume.", next_step="submit it without --resume")
        target.create(planned.request)
        return job
    status = job.describe().status
    if restart and status.is_final:
        target.discard(name)
        target.create(planned.request)
    elif status in {JobStatus.FAILED, JobStatus.STOPPED}:
        _go_on(job, resume=resume)
    return job


def _go_on(job: Job, *, resume: bool) -> None:
    step = job.target.checkpoint_step(job.name)
    if step is not None and not resume:
        raise JobError(
            f"This job ended early before; its checkpoint at step {step} is kept.",
            next_step="submit with --resume to go on from it, or with --restart to begin anew",
        )
    job.resume()


def _refuse_taken_name(request: Request, target: Target) -> None:
    output = request["OutputDataConfig"]["S3OutputPath"]
    taken = [name for name in target.names() if target.describe(name).output == output]
    if taken or (folder_of(output) / "adapter.json").exists():
        raise JobError(
            f'The adapter name "{folder_of(output).name}" is taken' + (f" by the job {taken[0]}." if taken else "."),
            next_step="submit with another --name",
        )


def find(name: str, target: Target) -> Job:
    """Return the job of that name, or the only one that begins with it; raises JobError."""
    names = target.names()
    matches = [known for known in names if known == name] or [known for known in names if known.startswith(name)]
    if len(matches) == 1:
        return Job(target, matches[0])
    if matches:
        raise JobError(f'"{name}" could be any of: {", ".join(matches)}.', next_step="type more of the name")
    hint = did_you_mean(name, names) if names else "no job was submitted yet"
    raise JobError(f'There is no job "{name}"; {hint}', next_step="python -m orchestrator jobs list")


def local_target(settings: Settings) -> Target:
    """Return the target of this machine."""
    return ProcessTarget(settings)
