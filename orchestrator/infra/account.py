"""What orchestrator needs in an AWS account: made, shown and removed.

All of it is one CloudFormation stack, `infra/stack.yaml`, whose outputs become the account's settings on this machine.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.client import Aws, calling
from orchestrator.errors import AccountError, JobError, MachineError, MissingError, SpecError
from orchestrator.infra.emptying import adapter_names, empty
from orchestrator.infra.stack import Stack, StackEvent
from orchestrator.infra.training_image import image_tag
from orchestrator.resources import STACK_TEMPLATE
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage import write_atomically
from orchestrator.storage.bucket import Bucket

STACK = "orchestrator"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
PARAMETERS = {
    "AlarmEmail": "",
    "MonthlyBudgetUsd": "50",
    "Subnets": "",
    "SecurityGroups": "",
    "ImageTag": image_tag(),
    "LogGroup": "make",
    "LogDays": "90",
    "CheckpointDays": "30",
}
"""Those of the template, and what they are at first."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")  # repositories of images are called after it, and take no capitals
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LISTS = {"subnets", "security_groups"}

Told = Callable[[StackEvent], None]
"""Is told what happens to each resource."""


class Bill(BaseModel):
    """What is billed while no job runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    what: str
    """The thing."""
    price: str
    """What it costs, by the us-east-1 list."""


BILLED = (
    Bill(what="encryption key", price="$1 a month"),
    Bill(what="bucket", price="$0.023 a GB and month, replaced versions for 30 days too"),
    Bill(what="container images", price="$0.10 a GB and month"),
    Bill(what="log lines", price="$0.50 a GB when written, $0.03 a GB and month"),
    Bill(what="jobs", price="nothing but while they run, see `submit --dry-run`"),
)


class Removal(BaseModel):
    """What `infra down` did."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    removed: bool
    """False when there was nothing to remove."""
    objects: int
    """Object versions that were deleted from the bucket."""
    left: tuple[str, ...]
    """What stays in the account."""


def up(aws: Aws, settings: Settings, wanted: Mapping[str, str], *, name: str = STACK, told: Told) -> AwsSettings:
    """Make the stack, or bring it up to date, and note its outputs on this machine; can be said twice.

    `wanted` are parameters of the template; what is left out stays as it is. Raises SpecError for a name that
    cannot be, and AccountError with cause and next command when the stack cannot be applied.
    """
    if not _NAME.fullmatch(name):
        message = f'"{name}" is no name for the stack; use small letters, digits and hyphens, 40 at most.'
        raise SpecError(message, next_step="python -m orchestrator infra up --help")
    stack = Stack(aws, name)
    before = stack.parameters() or {"LogGroup": "leave" if _log_group_exists(aws) else "make"}
    parameters = {**PARAMETERS, **before, "ImageTag": image_tag(), **wanted}
    known = {key: value for key, value in parameters.items() if key in PARAMETERS}  # an older stack may have others
    for event in stack.apply(STACK_TEMPLATE.read_text(encoding="utf-8"), known):
        told(event)
    return _note(stack, settings)


def show(aws: Aws, settings: Settings, *, name: str = STACK) -> AwsSettings:
    """Read the stack's outputs and note them on this machine; raises MissingError without a stack."""
    return _note(Stack(aws, name), settings)


def down(aws: Aws, settings: Settings, *, name: str = STACK, delete_adapters: bool = False, told: Told) -> Removal:
    """Empty the bucket and delete the stack; can be said twice.

    Raises JobError while jobs run, and AccountError when the bucket holds adapters and `delete_adapters` was not said.
    """
    stack = Stack(aws, name)
    if stack.status() is None:
        _forget(settings, aws, name)
        return Removal(removed=False, objects=0, left=())
    outputs, kept_log = stack.outputs(), stack.parameters().get("LogGroup") == "make"
    bucket = Bucket(aws, outputs["Bucket"], aws.account_id()) if "Bucket" in outputs else None
    _insist_on_no_jobs(aws, outputs.get("RoleArn", ""))
    if bucket and not delete_adapters:
        _insist_on_no_adapters(bucket)
    deleted = empty(bucket) if bucket else 0
    for event in stack.delete():
        told(event)
    _forget(settings, aws, name)
    left = [f"the log group {LOG_GROUP}, which other jobs of the account use too"] if kept_log else []
    if key := outputs.get("KmsKeyArn"):
        left.append(f"the key {key}, which is deleted in 30 days and can be had back until then")
    return Removal(removed=True, objects=deleted, left=tuple(left))


def _forget(settings: Settings, aws: Aws, name: str) -> None:
    """Forget what was noted of a stack that is gone; another one that was noted stays."""
    try:
        noted = settings.aws()
    except MachineError:  # it is of no use to anybody
        noted = None
    if noted is None or (noted.stack_name, noted.region) == (name, aws.region):
        settings.aws_file.unlink(missing_ok=True)


def _insist_on_no_adapters(bucket: Bucket) -> None:
    if names := adapter_names(bucket):
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")  # noqa: PLR2004  (enough to know them by)
        raise AccountError(
            f"The bucket holds adapters, which would be lost: {some} ({len(names)} in all). Nothing was deleted.",
            next_step="save them with adapters pull, then: python -m orchestrator infra down --delete-adapters",
        )


def _insist_on_no_jobs(aws: Aws, role_arn: str) -> None:
    client = aws.client("sagemaker")
    with calling("look for running jobs"):
        pages = client.get_paginator("list_training_jobs").paginate(StatusEquals="InProgress")
        names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
        ours = [name for name in names if client.describe_training_job(TrainingJobName=name)["RoleArn"] == role_arn]
    if ours:
        raise JobError(
            f"Jobs are running in it: {', '.join(ours)}. Nothing was deleted.",
            next_step=f"python -m orchestrator jobs stop {ours[0]}",
        )


def _log_group_exists(aws: Aws) -> bool:
    with calling("look for SageMaker's log group"):
        found = aws.client("logs").describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
    return any(group["logGroupName"] == LOG_GROUP for group in found)


def _note(stack: Stack, settings: Settings) -> AwsSettings:
    """Write the stack's outputs where `Settings.aws` reads them."""
    outputs = stack.outputs()
    fields: dict[str, Any] = {_WORDS.sub("_", name).lower(): value for name, value in outputs.items()}
    fields |= {name: fields[name].split(",") for name in _LISTS & fields.keys()}
    if "bucket" not in fields:
        raise MissingError(
            f"The stack {stack.name} is {stack.status()} and has no outputs yet.",
            next_step="python -m orchestrator infra up",
        )
    account = AwsSettings.model_validate(fields)
    write_atomically(settings.aws_file, account.model_dump_json(indent=2) + "\n")
    return account
