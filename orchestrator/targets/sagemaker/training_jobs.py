"""The training jobs of an account, one method for each call; a job is created only once, whatever call fails.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.aws.instances import instances
from orchestrator.contract.command_line import command
from orchestrator.errors import (
    AccountError,
    ConflictError,
    JobError,
    JobExistsError,
    LostAnswerError,
    MissingError,
    OrchestratorError,
    ServiceError,
    SpecError,
)
from orchestrator.requests import IDENTITY_TAG, NO_PROFILER, Request, identity_of, own_tags, sent_members
from orchestrator.targets.base import JobStatus, deleting
from orchestrator.targets.sagemaker.attempts import attempts_of

_LIST = command("jobs", "list")
_LOOKS = 3
"""Attempts to create a job, and to look for it after a lost answer, before the error is raised."""
_PAGE = 100
"""Jobs in one page of the list; the service's default is ten."""


class TrainingJobs:
    """The training jobs of the service; each attempt of a job is a training job of its own."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._created: set[str] = set()  # by this object: the service's list can lag behind
        self._ours: set[str] = set()  # known to have our tag: jobs of others may have names of the same form

    def create(self, request: Request) -> None:
        """Start a job, or find it started. Idempotent; raises JobExistsError when another job has its name.

        CreateTrainingJob takes no idempotency token, but names are unique: after a lost answer this looks for the job
        and sends the request again only if there is none. Raises LostAnswerError when it cannot tell.
        """
        name = request["TrainingJobName"]
        for looks_left in reversed(range(_LOOKS)):
            try:
                with calling(f"submit the job {name}", not_found=command("infra", "up")):
                    self._client.create_training_job(**request)
            except ConflictError as conflict:  # with an attempt whose answer was lost, or another submit of this job
                self._require_identity(request, conflict)
            except LostAnswerError as lost:
                if not self._may_exist(name, lost):
                    if looks_left:
                        continue
                    raise
                self._require_identity(request, lost)
            self._created.add(name)
            return

    def listed(self, **conditions: str) -> list[Any]:
        """Return the summaries of ListTrainingJobs, the oldest job first."""
        pages = self._client.get_paginator("list_training_jobs").paginate(
            SortBy="CreationTime",
            SortOrder="Ascending",
            PaginationConfig={"PageSize": _PAGE},
            **conditions,
        )
        with calling("list the jobs"):
            return [one for page in pages for one in page["TrainingJobSummaries"]]

    def found(self, name: str) -> list[str]:
        """Return the attempts of a job, in their order; none when there is no such job."""
        names = set(self._created)
        for listed in self.listed(NameContains=name):
            names.add(listed["TrainingJobName"])
        return attempts_of(name, names)

    def attempts(self, name: str) -> list[str]:
        """Return a job's attempts, in their order; raises JobError without any, and for jobs of another program."""
        attempts = self.found(name)
        if not attempts:
            raise JobError(f'There is no job "{name}".', next_step=_LIST)
        if name not in self._ours:
            latest = self.describe(attempts[-1])
            if IDENTITY_TAG not in self.tags(latest):
                message = f"The training job {name} was not submitted with orchestrator."
                raise JobError(message, next_step=_LIST)
            self._ours.add(name)
        return attempts

    def describe(self, attempt: str) -> Any:
        """Return DescribeTrainingJob's answer."""
        with calling(f"look at the job {attempt}", not_found=_LIST):
            return self._client.describe_training_job(TrainingJobName=attempt)

    def latest(self, name: str) -> Any:
        """Return DescribeTrainingJob's answer for the latest attempt of a job."""
        return self.describe(self.attempts(name)[-1])

    def tags(self, described: Any) -> dict[str, str]:
        """Return the tags of a training job by its description."""
        pages = self._client.get_paginator("list_tags").paginate(ResourceArn=described["TrainingJobArn"])
        with calling("read the job's tags"):
            tags: dict[str, str] = {}
            for page in pages:
                for tag in page["Tags"]:
                    tags[tag["Key"]] = tag["Value"]
            return tags

    def request_of(self, described: Any) -> Request:
        """Return the request that created a training job, restored from its description."""
        tags = self.tags(described)
        request = sent_members(described)
        return {
            **request,
            "ResourceConfig": _ordered(request["ResourceConfig"]),
            **NO_PROFILER,
            "Tags": own_tags(tags),
        }

    def status(self, attempt: str) -> JobStatus:
        """Return the status of a training job."""
        return JobStatus(self.describe(attempt)["TrainingJobStatus"])

    def stop(self, attempt: str) -> None:
        """Ask the service to stop a training job if it runs."""
        try:
            if self._may_be_stopped(attempt):
                with calling(f"stop the job {attempt}"):
                    self._client.stop_training_job(TrainingJobName=attempt)
        except SpecError:  # the service refuses to stop a job that is stopping or has just ended
            if self._may_be_stopped(attempt):
                raise

    def delete(self, attempt: str) -> None:
        """Delete an ended training job from the account's list, or find it deleted. Idempotent.

        The service takes a while: until then the job has the status Deleting, and its name is taken.
        """
        try:
            with calling(f"remove the job {attempt}"):
                self._client.delete_training_job(TrainingJobName=attempt)
        except MissingError:  # somebody else was faster
            pass
        except ConflictError:
            if self.status(attempt) is not JobStatus.DELETING:
                raise
        self._created.discard(attempt)

    def _may_be_stopped(self, attempt: str) -> bool:
        status = self.status(attempt)
        return status in {JobStatus.IN_PROGRESS, JobStatus.UNKNOWN}

    @property
    def _client(self) -> Any:
        return self._aws.client("sagemaker")

    def _may_exist(self, attempt: str, doubt: OrchestratorError) -> bool:
        with _doubting(doubt):
            try:
                self.describe(attempt)
            except MissingError:
                return False
        return True

    def _require_identity(self, request: Request, doubt: OrchestratorError) -> None:
        name = request["TrainingJobName"]
        with _doubting(doubt):
            described = self.describe(name)
            identity = self.tags(described).get(IDENTITY_TAG)
        if JobStatus(described["TrainingJobStatus"]) is JobStatus.DELETING:
            raise deleting(name)
        if identity != identity_of(request):
            raise JobExistsError(name)


@contextmanager
def _doubting(doubt: OrchestratorError) -> Iterator[None]:
    """When looking for a job fails too, raise both errors, so that a job which may have started is not forgotten."""
    try:
        yield
    except (AccountError, ServiceError) as error:
        raise LostAnswerError(
            f"{doubt.message} Whether the job exists could not be checked either: {error.message}",
            next_step=f"{error.next_step}; then submit again: a job that was started is not started twice",
        ) from error


def _ordered(resources: Request) -> Request:
    """Return the instances without a volume where the disk is built in: the service tells of it, and takes no order."""
    chosen = instances().get(resources["InstanceType"])
    if chosen is None or chosen.disk_gb is None:
        return resources
    return {name: value for name, value in resources.items() if not name.startswith("Volume")}
