"""Jobs as SageMaker training jobs.

Nothing is kept on this machine: jobs, their requests and their endings are read from the service, so that every machine
with access sees the same. A resumed job is a new attempt (`attempts.py`) with the request of the previous one, and so
with its checkpoints and its code.
"""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from orchestrator.aws.client import Aws
from orchestrator.contract import checkpoints
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import REPORT_FILE
from orchestrator.contract.labels import LONGEST_ROUND, WAITS
from orchestrator.contract.plurals import counted
from orchestrator.errors import AccountError, JobError, JobExistsError, OrchestratorError, ServiceError
from orchestrator.requests import (
    IDENTITY_TAG,
    Request,
    made_by,
    moved,
    renamed,
    scorer_of,
    training_of,
    with_checkpoints,
)
from orchestrator.storage import Store
from orchestrator.targets.base import BilledAttempt, JobDescription, JobStatus, JobSummary, deleting
from orchestrator.targets.names import TargetName
from orchestrator.targets.sagemaker.attempts import attempt_name, job_of, number_of
from orchestrator.targets.sagemaker.following import Following, log_of
from orchestrator.targets.sagemaker.training_jobs import TrainingJobs

POLL_SECONDS = 5.0
_MOST_TOLD = 20
"""Newest jobs of a list whose recipe and step are asked for, a call each."""
_MAX_FAILED_POLLS = 60
"""Failed polls in a row after which following a job gives up; five minutes at `POLL_SECONDS`."""


class SageMakerTarget:
    """Runs a request on instances of the account."""

    name = TargetName.SAGEMAKER

    def __init__(self, aws: Aws, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self.aws = aws
        self._jobs = TrainingJobs(aws)
        self.store = store
        self.poll_seconds = poll_seconds

    def create(self, request: Request) -> None:
        """Start a job, or find it started. Idempotent; raises JobExistsError when another job has its name."""
        self._jobs.create(self._with_own_checkpoints(request))

    def resume(self, name: str, request: Request | None = None) -> None:
        """Start an ended job again from its newest checkpoint, with the request and the code it was submitted with.

        With a `request`, the job takes over its instances, limits and retries.
        """
        latest = self._ended(name)
        status = JobStatus(latest["TrainingJobStatus"])
        if status is JobStatus.COMPLETED:  # another retry was faster
            raise JobError(f"The job {name} is complete.", next_step=command("jobs", "show", name))
        attempt = self._jobs.request_of(latest)
        if request is not None:
            attempt = moved(attempt, request)
        attempt = renamed(attempt, _next_attempt(latest))
        self._jobs.create(attempt)

    def restart(self, request: Request) -> None:
        """Start an ended job from its beginning; its earlier attempts and their checkpoints stay in the account."""
        latest = self._ended(request["TrainingJobName"])
        attempt = renamed(request, _next_attempt(latest))
        self.create(attempt)

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended job from the account's list; raises JobError while it runs.

        Its files in the bucket stay: adapters may be in use, and checkpoints expire by themselves.
        """
        if adapter:
            remove = command("jobs", "remove", name)
            raise JobError(
                f"The adapter of {name} is in the bucket, where others may use it; it is not deleted with its job.",
                next_step=f"{remove}  # keeps the adapter",
            )
        attempts = self._jobs.attempts(name)
        status = self._jobs.status(attempts[-1])
        if not status.is_final:
            raise JobError(f"The job {name} is running.", next_step=command("jobs", "stop", name))
        for attempt in attempts:
            self._jobs.delete(attempt)

    def describe(self, name: str) -> JobDescription:
        """Return what is known of a job; raises JobError when there is none."""
        attempts = [self._jobs.describe(attempt) for attempt in self._jobs.attempts(name)]
        latest = attempts[-1]
        resources = latest["ResourceConfig"]
        artifacts = latest.get("ModelArtifacts", {})
        output = artifacts.get("S3ModelArtifacts")
        if not output:
            output = latest["OutputDataConfig"]["S3OutputPath"]
        limits = latest["StoppingCondition"]
        tags = self._jobs.tags(latest)
        billed = []
        for attempt in attempts:
            if "BillableTimeInSeconds" in attempt:
                billed.append(self._billed(attempt))
        return JobDescription(
            name=name,
            target=self.name,
            status=_status(latest),
            stage=latest["SecondaryStatus"],
            identity=tags.get(IDENTITY_TAG, ""),
            created=attempts[0]["CreationTime"],
            started=latest.get("TrainingStartTime"),
            ended=latest.get("TrainingEndTime"),
            failure_reason=_reason(latest),
            output=output,
            makes=made_by(latest),
            scorer=scorer_of(latest),
            region=self.aws.region,
            instance_type=resources.get("InstanceType"),
            instance_count=resources.get("InstanceCount", 1),
            runtime_limit_seconds=limits.get("MaxRuntimeInSeconds"),
            billed_attempts=tuple(billed),
        )

    def summaries(self) -> Iterator[JobSummary | OrchestratorError]:
        """Yield every job, the oldest first, with the status of its latest attempt.

        One call for a hundred attempts, and one for each of the newest jobs, whose recipe and step are told too, and
        for each that may wait for people, which only its reason tells.
        """
        jobs = self._listed_by_job()
        first_told = len(jobs) - _MOST_TOLD
        for number, (name, attempts) in enumerate(jobs.items()):
            first = attempts[0]
            latest = max(attempts, key=_number_of)
            details: dict[str, Any] = {"status": JobStatus(latest["TrainingJobStatus"])}
            if number >= first_told or _may_wait(latest):
                details |= self._details(latest["TrainingJobName"])
            yield JobSummary(
                name=name,
                target=self.name,
                created=first["CreationTime"],
                region=self.aws.region,
                **details,
            )

    def _listed_by_job(self) -> dict[str, list[Any]]:
        """Return what the service lists of each job's attempts, the oldest first, by the job's name."""
        jobs: dict[str, list[Any]] = {}
        for listed in self._jobs.listed():
            job = job_of(listed["TrainingJobName"])
            if job is not None:
                attempts = jobs.setdefault(job, [])
                attempts.append(listed)
        return jobs

    def _details(self, attempt: str) -> dict[str, Any]:
        """Return status, recipe, settings and steps of an attempt, as far as the service tells them."""
        try:
            described = self._jobs.describe(attempt)
        except (AccountError, ServiceError):  # the list is worth more than what it says of one job
            return {}
        training = training_of(described.get("HyperParameters", {}))
        details = training._asdict()
        details["status"] = _status(described)
        details["scorer"] = scorer_of(described)
        for metric in described.get("FinalMetricDataList", []):
            if metric["MetricName"] == "step" and math.isfinite(metric["Value"]):  # another program's may be anything
                details["step"] = int(metric["Value"])
        return details

    def has(self, name: str) -> bool:
        """Return whether there is a job of that name; the service searches, however many jobs the account has."""
        return bool(self._jobs.found(name))

    def names(self) -> list[str]:
        """Return the names of all jobs, the oldest first."""
        return list(self._listed_by_job())

    def stop(self, name: str) -> None:
        """Ask a job to save a checkpoint and end; returns at once."""
        latest = self._jobs.attempts(name)[-1]
        self._jobs.stop(latest)

    def kill(self, name: str) -> None:
        """Ask the job to end: the service itself kills a container that has not ended two minutes later."""
        self.stop(name)

    def log_lines(
        self,
        name: str,
        *,
        follow: bool,
        latest_attempt: bool = False,
    ) -> Iterator[str]:
        """Yield the log of all attempts or of the latest; with `follow`, yield new lines until the job ends.

        While following, each new stage of the service ("Starting", "Downloading", ...) is a line of its own.
        """
        attempts = self._jobs.attempts(name)
        if latest_attempt:
            attempts = attempts[-1:]
        for attempt in attempts:
            if follow:
                yield from self._follow(attempt)
            else:
                described = self._jobs.describe(attempt)
                log = log_of(self.aws, described)
                yield from log.fresh_lines()

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until the job has ended, `seconds` at most; return whether it has."""
        latest = self._jobs.attempts(name)[-1]
        deadline = time.monotonic() + seconds
        status = self._jobs.status(latest)
        while not status.is_final:
            if time.monotonic() > deadline:
                return False
            time.sleep(self.poll_seconds)
            status = self._jobs.status(latest)
        return True

    def root(self, name: str) -> None:
        """Return None: the job's files are on another machine."""

    def report(self, name: str) -> str | None:
        """Return the URI of the page that the latest attempt of a job left when it ended; None without one."""
        latest = self._jobs.latest(name)
        output = latest["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        attempt = latest["TrainingJobName"]
        uri = f"{output}/{attempt}/output/data/{REPORT_FILE}"
        return uri if self.store.list_prefix(self.store.name(uri)) else None

    def checkpoints(self, name: str) -> str:
        """Return the URI of the prefix of a job's checkpoints."""
        latest = self._jobs.latest(name)
        return str(latest["CheckpointConfig"]["S3Uri"])

    def checkpoint_step(self, name: str) -> int | None:
        """Return the optimizer steps of the newest checkpoint, or None when there is none.

        A checkpoint that lacks files, because the instance was lost while they were copied, does not count.
        """
        latest = self._jobs.latest(name)
        config = latest["CheckpointConfig"]
        prefix = self.store.name(config["S3Uri"])
        arrived: dict[int, set[str]] = {}
        for key in self.store.list_prefix(prefix):
            path = PurePosixPath(key)
            folder = path.parent.name
            step = checkpoints.step_of(folder)
            if step is not None:
                files = arrived.setdefault(step, set())
                files.add(path.name)
        complete = []
        for step, files in arrived.items():
            if files >= checkpoints.FILES:
                complete.append(step)
        return max(complete, default=None)

    def _follow(self, attempt: str) -> Iterator[str]:
        following = Following(self.aws, self._jobs, attempt, self.poll_seconds)
        failed_polls = 0
        while not following.ended:
            try:
                yield from following.news()
            except ServiceError:
                failed_polls += 1
                if failed_polls > _MAX_FAILED_POLLS:
                    raise
            else:
                failed_polls = 0
            if not following.ended:
                time.sleep(self.poll_seconds)

    def _with_own_checkpoints(self, request: Request) -> Request:
        """Return a request with an unused prefix for checkpoints: those of deleted jobs are still in the bucket."""
        config = request["CheckpointConfig"]
        base = config["S3Uri"].rstrip("/")
        prefix = self.store.name(base)
        keys = list(self.store.list_prefix(prefix))
        uri = f"{base}/"
        number = 1
        while _is_used(self.store.name(uri), keys):
            number += 1
            uri = f"{base}-r{number}/"
        return with_checkpoints(request, uri)

    def _billed(self, described: Any) -> BilledAttempt:
        resources = described["ResourceConfig"]
        return BilledAttempt(
            instance_type=resources["InstanceType"],
            instance_count=resources["InstanceCount"],
            region=self.aws.region,
            seconds=described["BillableTimeInSeconds"],
        )

    def _ended(self, name: str) -> Any:
        """Return the latest attempt's description; raises JobExistsError when it runs.

        The number of the next attempt follows from this one look: two clients that resume a job create one attempt.
        """
        latest = self._jobs.latest(name)
        status = JobStatus(latest["TrainingJobStatus"])
        if status is JobStatus.DELETING:
            raise deleting(name)
        if not status.is_final:
            raise JobExistsError(name, "is running already")
        return latest


def _is_used(prefix: str, keys: Sequence[str]) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _number_of(listed: Any) -> int:
    """Return the number of an attempt."""
    return number_of(listed["TrainingJobName"])


def _next_attempt(latest: Any) -> str:
    name = latest["TrainingJobName"]
    job = str(job_of(name))
    number = number_of(name) + 1
    return attempt_name(job, number)


def _status(described: Any) -> JobStatus:
    """Return the status of an attempt. One that waits for people has stopped, though the service calls it failed."""
    status = JobStatus(described["TrainingJobStatus"])
    if status is JobStatus.FAILED and WAITS in described.get("FailureReason", ""):
        return JobStatus.STOPPED
    return status


def _may_wait(listed: Any) -> bool:
    """Whether an attempt may have ended to wait for people: later, the round that they would label has expired."""
    if JobStatus(listed["TrainingJobStatus"]) is not JobStatus.FAILED:
        return False
    ended: datetime = listed.get("TrainingEndTime", listed["CreationTime"])
    return datetime.now(UTC) - ended <= LONGEST_ROUND


def _reason(described: Any) -> str | None:
    """Return why a job ended early: the service's reason, or for a time limit one of ours."""
    limits = described["StoppingCondition"]
    match described["SecondaryStatus"]:
        case "MaxRuntimeExceeded":
            minutes = limits["MaxRuntimeInSeconds"] / 60
            return f"It reached its time limit of {counted(minutes, 'minute')}."
        case "MaxWaitTimeExceeded":
            minutes = limits["MaxWaitTimeInSeconds"] / 60
            return f"It reached its limit of waiting for spot capacity of {counted(minutes, 'minute')}."
    return described.get("FailureReason") or None
