"""The training jobs of an account, one call at a time, and a job that is created once whatever happens on the way.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.aws.client import Aws, calling
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
from orchestrator.requests import IDENTITY_TAG, Request, identity_of
from orchestrator.targets.base import JobStatus
from orchestrator.targets.sagemaker.attempts import attempts_of

_LIST = command("jobs", "list")
_LOOKS = 3
"""How often a create whose answer was lost is looked for, and asked for again, before that is said."""
_PAGE = 100
"""Jobs in one answer of the list; the service's own choice is ten."""


class TrainingJobs:
    """What the service has and does; each attempt of a job is a training job to it."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._created: set[str] = set()  # by this object: the service's list can lag behind its answers
        self._ours: set[str] = set()  # known to bear our tag: others in the account may only be called like ours

    def create(self, request: Request) -> None:
        """Start a job, or find it started; raises JobExistsError when another one has its name.

        CreateTrainingJob has no token to make it idempotent, but its name is unique: after a lost answer the job is
        looked for, and asked for again only when it is not there. Raises LostAnswerError when no look tells.
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
        """Return what the list says of each training job, the oldest first."""
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
        """Return a job's attempts, in their order; raises JobError when there are none, or they are somebody else's."""
        attempts = self.found(name)
        if not attempts:
            raise JobError(f'There is no job "{name}".', next_step=_LIST)
        if name not in self._ours:
            if IDENTITY_TAG not in self.tags(self.describe(attempts[-1])):
                message = f"The training job {name} is in the account, and was not submitted with orchestrator."
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
        """Return the tags of a job that was described."""
        pages = self._client.get_paginator("list_tags").paginate(ResourceArn=described["TrainingJobArn"])
        with calling("read the job's tags"):
            tags: dict[str, str] = {}
            for page in pages:
                for tag in page["Tags"]:
                    tags[tag["Key"]] = tag["Value"]
            return tags

    def request_of(self, described: Any) -> Request:
        """Return the request that made a job, out of its description."""
        members = self._client.meta.service_model.operation_model("CreateTrainingJob").input_shape.members
        request: Request = {name: described[name] for name in members if name in described}
        tags = self.tags(described)
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        return request

    def status(self, attempt: str) -> JobStatus:
        """Return where a job stands."""
        return JobStatus(self.describe(attempt)["TrainingJobStatus"])

    def stop(self, attempt: str) -> None:
        """Ask for the end of a job if it runs."""
        try:
            if self.status(attempt) is JobStatus.IN_PROGRESS:
                with calling(f"stop the job {attempt}"):
                    self._client.stop_training_job(TrainingJobName=attempt)
        except SpecError:  # the service refuses to stop what it is stopping, and what has ended meanwhile
            if self.status(attempt) is JobStatus.IN_PROGRESS:
                raise

    def delete(self, attempt: str) -> None:
        """Take an ended job from the account's list."""
        with calling(f"remove the job {attempt}"):
            self._client.delete_training_job(TrainingJobName=attempt)
        self._created.discard(attempt)

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
            identity = self.tags(self.describe(name)).get(IDENTITY_TAG)
        if identity != identity_of(request):
            raise JobExistsError(name)


@contextmanager
def _doubting(doubt: OrchestratorError) -> Iterator[None]:
    """Let a look that fails not hide that a job may have been started: what is raised then is the doubt and this."""
    try:
        yield
    except (AccountError, ServiceError) as error:
        raise LostAnswerError(
            f"{doubt.message} Whether the job runs could not be seen either: {error.message}",
            next_step=f"{error.next_step}; then submit again: a job that was started is found, not started twice",
        ) from error
