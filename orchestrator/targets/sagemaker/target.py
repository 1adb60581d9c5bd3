"""Jobs as SageMaker training jobs.

The service is the only memory: which jobs there are, what they were asked to do and how they ended is read from it, so
that any machine with access sees the same. A job that is gone on with is a new attempt (`attempts.py`) with the request
of the one before, and so with its checkpoints and its code.
"""

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from orchestrator.aws.client import Aws
from orchestrator.contract.events import Phase
from orchestrator.errors import JobError, JobExistsError, OrchestratorError, ServiceError
from orchestrator.requests import IDENTITY_TAG, Request, moved, renamed, with_checkpoints
from orchestrator.storage import Store
from orchestrator.targets.base import Bill, JobDescription, JobStatus, JobSummary
from orchestrator.targets.sagemaker.attempts import attempt_name, job_of, number_of
from orchestrator.targets.sagemaker.cloudwatch import TrainingLog
from orchestrator.targets.sagemaker.training_jobs import TrainingJobs

POLL_SECONDS = 5.0
_PATIENCE = 60
"""Failed polls in a row after which following a job gives up; five minutes at `POLL_SECONDS`."""
_WORKING = "Training"
"""The stage in which the container prints; what it printed comes before whatever stage follows."""
_CHECKPOINT = re.compile(r"/step-(\d+)/(checkpoint\.json|tensors\.safetensors)$")
_CHECKPOINT_FILES = 2
_ENDED_BY_THE_CLOCK = {"MaxRuntimeExceeded": "time limit", "MaxWaitTimeExceeded": "limit of waiting for spot capacity"}


class SageMakerTarget:
    """Runs a request on instances of the account."""

    def __init__(self, aws: Aws, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self.aws = aws
        self.kind, self.place = "sagemaker", aws.region
        self._jobs = TrainingJobs(aws)
        self.store = store
        self.poll_seconds = poll_seconds

    def create(self, request: Request) -> None:
        """Start a job, or find it started; raises JobExistsError when another one has its name."""
        self._jobs.create(self._begun_anew(request))

    def resume(self, name: str, machines: Request | None = None) -> None:
        """Start an ended job again from its newest checkpoint, with the request and the code it was submitted with.

        It gets the machines and limits of the request `machines` if one is given.
        """
        latest = self._ended(name)
        if JobStatus(latest["TrainingJobStatus"]) is JobStatus.COMPLETED:  # another retry was quicker
            raise JobError(f"The job {name} is complete.", next_step=f"python -m orchestrator jobs show {name}")
        request = self._jobs.request_of(latest)
        self._jobs.create(renamed(moved(request, machines) if machines else request, _next_attempt(latest)))

    def restart(self, request: Request) -> None:
        """Begin an ended job anew; its earlier attempts stay in the account's list, their checkpoints too."""
        self.create(renamed(request, _next_attempt(self._ended(request["TrainingJobName"]))))

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended job's entries from the account's list; raises JobError while it runs.

        What it left in the bucket stays there: the bucket keeps versions, and `infra down` is the one that empties it.
        """
        if adapter:
            raise JobError(
                f"The adapter of {name} is in the bucket, where others may use it; it is not removed with its job.",
                next_step=f"python -m orchestrator jobs remove {name}  # keeps the adapter",
            )
        attempts = self._jobs.attempts(name)
        if not self._jobs.status(attempts[-1]).is_final:
            raise JobError(f"The job {name} is running.", next_step=f"python -m orchestrator jobs stop {name}")
        for attempt in attempts:
            self._jobs.delete(attempt)

    def describe(self, name: str) -> JobDescription:
        """Return what is known of a job; raises JobError when there is none."""
        attempts = [self._jobs.describe(attempt) for attempt in self._jobs.attempts(name)]
        latest = attempts[-1]
        resources, artifacts = latest["ResourceConfig"], latest.get("ModelArtifacts", {})
        return JobDescription(
            name=name,
            status=JobStatus(latest["TrainingJobStatus"]),
            stage=latest["SecondaryStatus"],
            identity=self._jobs.tags(latest).get(IDENTITY_TAG, ""),
            created=attempts[0]["CreationTime"],
            started=latest.get("TrainingStartTime"),
            ended=latest.get("TrainingEndTime"),
            failure_reason=_reason(latest),
            output=artifacts.get("S3ModelArtifacts") or latest["OutputDataConfig"]["S3OutputPath"],
            region=self.aws.region,
            instance_type=resources.get("InstanceType"),
            instance_count=resources.get("InstanceCount", 1),
            runtime_limit_seconds=latest["StoppingCondition"].get("MaxRuntimeInSeconds"),
            bills=tuple(_bill(each) for each in attempts if "BillableTimeInSeconds" in each),
        )

    def summaries(self) -> Iterator[JobSummary | OrchestratorError]:
        """Yield every job, the oldest first, with the status of its latest attempt: a call for a hundred attempts."""
        jobs: dict[str, list[Any]] = {}
        for listed in self._jobs.listed():
            if job := job_of(listed["TrainingJobName"]):
                jobs.setdefault(job, []).append(listed)
        for name, attempts in jobs.items():
            latest = max(attempts, key=lambda one: number_of(one["TrainingJobName"]))
            status, created = JobStatus(latest["TrainingJobStatus"]), attempts[0]["CreationTime"]
            yield JobSummary(name=name, status=status, created=created, region=self.aws.region)

    def has(self, name: str) -> bool:
        """Return whether there is a job of that name: the service looks for it, whatever else the account runs."""
        return bool(self._jobs.found(name))

    def names(self) -> list[str]:
        """Return the names of all jobs, the oldest first."""
        return list(dict.fromkeys(job for one in self._jobs.listed() if (job := job_of(one["TrainingJobName"]))))

    def stop(self, name: str) -> None:
        """Ask a job to save a checkpoint and end; returns at once."""
        self._jobs.stop(self._jobs.attempts(name)[-1])

    def kill(self, name: str, reason: str) -> None:  # noqa: ARG002  (the service has a word of its own for it)
        """Ask once more: the service itself kills a container that has not ended two minutes after being asked."""
        self.stop(name)

    def log_lines(self, name: str, *, follow: bool, latest_attempt: bool = False) -> Iterator[str]:
        """Yield the log, of all attempts or the latest; go on with new lines until the job ends if `follow`.

        While following, each new stage of the service ("Starting", "Downloading", ...) comes as a line of its own.
        """
        attempts = self._jobs.attempts(name)
        for attempt in attempts[-1:] if latest_attempt else attempts:
            yield from self._follow(attempt) if follow else self._log(self._jobs.describe(attempt)).fresh_lines()

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until the job has ended, `seconds` at most; return whether it has."""
        latest = self._jobs.attempts(name)[-1]
        deadline = time.monotonic() + seconds
        while not self._jobs.status(latest).is_final:
            if time.monotonic() > deadline:
                return False
            time.sleep(self.poll_seconds)
        return True

    def checkpoint_step(self, name: str) -> int | None:
        """Return the optimizer steps of the newest checkpoint, or None when there is none.

        One whose files have not all arrived, because the machine was lost while they were copied, does not count.
        """
        config = self._jobs.latest(name)["CheckpointConfig"]
        keys = self.store.list_prefix(self.store.name(config["S3Uri"]))
        files = Counter(int(match[1]) for key in keys if (match := _CHECKPOINT.search(key)))
        return max((step for step, count in files.items() if count == _CHECKPOINT_FILES), default=None)

    def _follow(self, attempt: str) -> Iterator[str]:
        log: TrainingLog | None = None
        stage, failures = "", 0
        while True:
            try:
                described = self._jobs.describe(attempt)  # before the log, so that its last lines are not missed
                log = log or self._log(described)
                now, ended = described["SecondaryStatus"], JobStatus(described["TrainingJobStatus"]).is_final
                if ended:
                    time.sleep(self.poll_seconds)  # the last lines reach CloudWatch a little after the job's end
                if now == _WORKING != stage:
                    stage = now
                    yield Phase(name=stage).model_dump_json()
                yield from log.fresh_lines()
                if now != stage:
                    stage = now
                    yield Phase(name=stage).model_dump_json()
            except ServiceError:
                failures += 1
                if failures > _PATIENCE:
                    raise
            else:
                failures = 0
                if ended:
                    return
            time.sleep(self.poll_seconds)

    def _log(self, described: Any) -> TrainingLog:
        return TrainingLog(self.aws, described["TrainingJobName"], described["CreationTime"])

    def _begun_anew(self, request: Request) -> Request:
        """Return a request whose checkpoints have a place of their own: those of removed jobs stay in the bucket."""
        uri = request["CheckpointConfig"]["S3Uri"].rstrip("/")
        places = (f"{uri}/" if number == 1 else f"{uri}-r{number}/" for number in itertools.count(1))
        taken = list(self.store.list_prefix(self.store.name(uri)))
        free = next(one for one in places if not any(key.startswith(self.store.name(one)) for key in taken))
        return with_checkpoints(request, free)

    def _ended(self, name: str) -> Any:
        """Return the latest attempt's description; raises JobExistsError when it runs: somebody was quicker.

        The next attempt's number follows from this one look, so that two who go on with a job make one attempt.
        """
        latest = self._jobs.latest(name)
        if not JobStatus(latest["TrainingJobStatus"]).is_final:
            raise JobExistsError(name, "is running already")
        return latest


def _next_attempt(latest: Any) -> str:
    name = latest["TrainingJobName"]
    return attempt_name(str(job_of(name)), number_of(name) + 1)


def _reason(described: Any) -> str | None:
    """Return why a job ended before its end, in the service's words or, for a time limit, in ours."""
    limit = _ENDED_BY_THE_CLOCK.get(described["SecondaryStatus"])
    if limit:
        return f"It reached its {limit} of {_minutes(described):.0f} minutes."
    return described.get("FailureReason") or None


def _bill(described: Any) -> Bill:
    resources = described["ResourceConfig"]
    return Bill(
        instance_type=resources["InstanceType"],
        instance_count=resources["InstanceCount"],
        seconds=described["BillableTimeInSeconds"],
    )


def _minutes(described: Any) -> float:
    condition = described["StoppingCondition"]
    waited = described["SecondaryStatus"] == "MaxWaitTimeExceeded"
    return float(condition["MaxWaitTimeInSeconds" if waited else "MaxRuntimeInSeconds"]) / 60
