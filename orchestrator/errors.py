"""Every failure a person can cause, one class per *who must act*.

OrchestratorError
├── SpecError        the person who wrote the job: its fields contradict the recipe or one another
├── DatasetError     the person who chose the images
├── JobError         the person who manages jobs: a job failed, is missing, or conflicts with another
│   └── JobExistsError
├── EndpointError    the person who manages endpoints: one failed, is missing, or refuses a request
├── MachineError     the person who owns this machine: disk, memory, missing packages
├── HubError         the person with the Hugging Face account: not signed in, terms of a model not accepted
├── AccountError     the person who owns the AWS account
│   ├── CredentialsError   none, expired, wrong region, a wrong clock
│   ├── AccessError        a permission is missing, or the bucket is another account's
│   ├── QuotaError         a quota of the account is exceeded
│   ├── CapacityError      AWS has no free instances of this type now
│   │   └── NoSuchInstanceError    the region has none at all: waiting does not help
│   ├── MissingError       a stack, role, bucket, image or object does not exist
│   └── ConflictError      something of that name exists, or was changed meanwhile
└── ServiceError     nobody: AWS or the Hub does not answer or answers with 5xx; try again
    └── LostAnswerError    the request may have been carried out: the caller must check

Each carries what happened, why, and the next command to type; `__main__` prints them and nothing else does.
"""

from collections.abc import Sequence

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import Problem


class OrchestratorError(Exception):
    """A failure with its cause and the next command to type."""

    exit_code = 1

    code = ""
    """Error code of the service, such as "ResourceLimitExceeded"; empty without one."""
    retry_after: float | None = None
    """Seconds after which the same request may succeed; None when waiting does not help, or nobody knows."""

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        problems: Sequence[Problem] = (),
        warnings: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)

    def add_warnings(self, warnings: Sequence[Problem]) -> None:
        """Add what does not prevent the job, so that a person can mend it together with the problems."""
        new = [warning for warning in warnings if warning not in self.warnings]
        self.warnings = (*self.warnings, *new)

    def render(self) -> str:
        """Return the text a person reads: the cause, each problem and each warning on a line, the next command."""
        lines = [self.message]
        for problem in self.problems:
            lines.append(f"  - {problem.render()}")
        for warning in self.warnings:
            lines.append(f"Warning: {warning.render()}")
        if self.next_step:
            lines.append(f"Next: {self.next_step}")
        return "\n".join(lines)


class SpecError(OrchestratorError):
    """The job as written cannot run; nothing was started."""

    exit_code = 2


class DatasetError(OrchestratorError):
    """The images cannot be trained on; nothing was started."""

    exit_code = 3


class JobError(OrchestratorError):
    """A job failed, does not exist, or conflicts with another."""

    exit_code = 4


class JobExistsError(JobError):
    """A job of that name exists."""

    def __init__(self, name: str, how: str = "exists") -> None:
        super().__init__(f"The job {name} {how}.", next_step=command("jobs", "show", name))


class EndpointError(OrchestratorError):
    """An endpoint failed, does not exist, or refuses a request."""

    exit_code = 9


class MachineError(OrchestratorError):
    """This machine lacks something: disk, memory, a package."""

    exit_code = 5


class HubError(OrchestratorError):
    """The Hugging Face Hub refuses this machine access to a model."""

    exit_code = 8


class AccountError(OrchestratorError):
    """The AWS account, or the identity this machine uses, does not allow the request."""

    exit_code = 6


class CredentialsError(AccountError):
    """This machine is not signed in to AWS, or not correctly: no or expired credentials, region, clock."""


class AccessError(AccountError):
    """The signed-in identity may not do this, or the resource belongs to another account."""


class QuotaError(AccountError):
    """The account's quota is used up or was never raised."""


class CapacityError(AccountError):
    """AWS has no such instances free at the moment."""


class NoSuchInstanceError(CapacityError):
    """The region has no such instances at all: another type may stand in, but waiting does not help."""


class MissingError(AccountError):
    """Something the request names does not exist: a stack, role, bucket, image, object."""


class ConflictError(AccountError):
    """Something of that name exists already, or it changed between being read and being written."""


class ServiceError(OrchestratorError):
    """AWS, the Hub or the network failed; the request was not carried out and can be repeated."""

    exit_code = 7


class LostAnswerError(ServiceError):
    """The request was sent and no answer came: it may have been carried out, so check before repeating it."""
