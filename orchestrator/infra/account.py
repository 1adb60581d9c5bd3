"""Create, show and remove what orchestrator needs in an AWS account.

All of it is one CloudFormation stack, `infra/stack.yaml`, whose outputs become the account's settings on this machine.
"""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.client import Aws, calling
from orchestrator.aws.logs import LOG_GROUP
from orchestrator.container_images import image_tag
from orchestrator.contract.command_line import command
from orchestrator.errors import AccountError, EndpointError, JobError, MachineError, MissingError, SpecError
from orchestrator.infra.builds import USD_PER_MINUTE
from orchestrator.infra.codebuild import require_no_builds
from orchestrator.infra.emptying import empty, result_names
from orchestrator.infra.stack import Stack, StackEvent
from orchestrator.requests import ENDPOINT_TAG
from orchestrator.resources import STACK_TEMPLATE
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage import write_atomically
from orchestrator.storage.bucket import Bucket

STACK = "orchestrator"
PARAMETERS = {
    "AlarmEmail": "",
    "MonthlyBudgetUsd": "50",
    "Subnets": "",
    "SecurityGroups": "",
    "ImageTag": image_tag(),
    "LogGroup": "make",
    "LogDays": "90",
    "CheckpointDays": "30",
    "Labels": "leave",
    "Builds": "leave",
}
"""The parameters of the template and their first values."""
_WITHOUT_BUDGETS = frozenset(
    [
        "af-south-1",
        "ap-east-1",
        "ap-east-2",
        "ap-northeast-3",
        "ap-south-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-west-1",
        "eu-central-2",
        "eu-north-1",
        "eu-south-1",
        "eu-south-2",
        "il-central-1",
        "me-central-1",
        "mx-central-1",
        "us-gov-east-1",
        "us-gov-west-1",
    ]
)
"""Regions in which CloudFormation has no AWS::Budgets::Budget, by the registry that cfn-lint 1.58 carries."""
_WITHOUT_PROJECTS = frozenset(["ap-east-2", "ca-west-1", "mx-central-1"])
"""The same for AWS::CodeBuild::Project."""
_ALARM = re.compile(r"^  # -+ alarm$.*?(?=^\S)", re.MULTILINE | re.DOTALL)
"""The part of the template that makes the alarm."""
_BUILDS = re.compile(r"^  # -+ builds$.*?(?=^  # --|^\S)", re.MULTILINE | re.DOTALL)
"""The part of the template that makes the project which builds the images."""
_ENDING_SECONDS = 900  # of a job that stops: two minutes for its checkpoint, then it uploads what it has
_POLL_SECONDS = 5.0
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")  # image repositories contain it, and allow no capitals
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LISTS = {"subnets", "security_groups"}
_SHOWN = 3  # names of adapters in a message

Listener = Callable[[StackEvent], None]
"""Called with what happens to each resource."""


class IdleCharge(BaseModel):
    """One thing that is billed while no job runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    """What is billed."""
    price: str
    """List price in us-east-1."""


IDLE_CHARGES = (
    IdleCharge(what="encryption key", price="$1 a month"),
    IdleCharge(
        what="bucket",
        price="$0.023 a GB and month, replaced versions for 30 days too",
    ),
    IdleCharge(what="container images", price="$0.10 a GB and month"),
    IdleCharge(
        what="log lines",
        price="$0.50 a GB when written, $0.03 a GB and month",
    ),
    IdleCharge(
        what="labels (with --labels)",
        price="$0.40 for a million requests of the queue, $2 for 100,000 mails of the topic; the first ones are free",
    ),
    IdleCharge(
        what="builds (with --builds)",
        price=f"nothing except while an image is built: ${USD_PER_MINUTE} a minute",
    ),
    IdleCharge(
        what="jobs",
        price="nothing except while they run, see `submit --dry-run`",
    ),
)


class Removal(BaseModel):
    """What `infra down` did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    removed: bool
    """False when there was nothing to remove."""
    objects: int
    """Object versions that were deleted from the bucket."""
    left: tuple[str, ...]
    """What remains in the account."""


def up(
    aws: Aws,
    settings: Settings,
    wanted: Mapping[str, str],
    *,
    name: str = STACK,
    report: Listener,
) -> AwsSettings:
    """Create or update the stack and save its outputs on this machine. Idempotent.

    `wanted` are parameters of the template; those left out keep their values. Raises SpecError for an invalid name,
    and AccountError with cause and next command when the stack cannot be applied, or would lose the project of a build
    that runs.
    """
    if not _NAME.fullmatch(name):
        message = f'"{name}" is not a valid name for the stack; use small letters, digits and hyphens, 40 at most.'
        raise SpecError(message, next_step=command("infra", "up", "--help"))
    if wanted.get("AlarmEmail") and aws.region in _WITHOUT_BUDGETS:
        raise SpecError(
            f"CloudFormation makes no budgets in {aws.region}, so the stack can have no alarm there. Nothing was made.",
            next_step="leave --alarm-email out, and set the alarm at https://console.aws.amazon.com/costmanagement/budgets",
        )
    if wanted.get("Builds") == "make" and aws.region in _WITHOUT_PROJECTS:
        raise SpecError(
            f"CloudFormation makes no CodeBuild projects in {aws.region}, so images cannot be built there. "
            "Nothing was made.",
            next_step=f"{command('infra', 'up')}  (then, on a machine with docker: {command('infra', 'image')})",
        )
    stack = Stack(aws, name)
    before = stack.parameters()
    if not before:
        log_group = "leave" if _log_group_exists(aws) else "make"
        before = {"LogGroup": log_group}
    elif wanted.get("Builds") == "leave":
        require_no_builds(
            aws,
            stack.outputs().get("BuildProject"),
            undone="Nothing was changed.",
            again=command("infra", "up", "--no-builds"),
        )
    parameters = {**PARAMETERS, **before, "ImageTag": image_tag(), **wanted}
    for unknown in parameters.keys() - PARAMETERS.keys():  # an older template had other parameters
        del parameters[unknown]
    for event in stack.apply(template_for(aws.region), parameters):
        report(event)
    return _save_outputs(stack, settings)


def template_for(region: str) -> str:
    """Return the template of the stack, with the types that CloudFormation has in a region."""
    template = STACK_TEMPLATE.read_text(encoding="utf-8")
    if region in _WITHOUT_BUDGETS:
        template = _ALARM.sub("", template)
    if region in _WITHOUT_PROJECTS:
        template = _BUILDS.sub("", template)
    return template


def show(aws: Aws, settings: Settings, *, name: str = STACK) -> AwsSettings:
    """Save the stack's outputs on this machine; raises MissingError without a stack."""
    return _save_outputs(Stack(aws, name), settings)


def down(
    aws: Aws,
    settings: Settings,
    *,
    name: str = STACK,
    delete_adapters: bool = False,
    report: Listener,
    pause: Callable[[float], None] = time.sleep,
) -> Removal:
    """Empty the bucket, delete the stack and forget it on this machine. Idempotent.

    Waits for jobs that are stopping: they still write to the bucket. Raises JobError while jobs run, EndpointError
    while there are endpoints, and AccountError while an image is built, or when the bucket holds adapters and
    `delete_adapters` is False.
    """
    stack = Stack(aws, name)
    if stack.status() is None:
        _forget(settings, aws, name)
        return Removal(removed=False, objects=0, left=())
    outputs = stack.outputs()
    made_log_group = stack.parameters().get("LogGroup") == "make"
    _require_no_jobs(aws, outputs.get("RoleArn", ""))
    _require_no_endpoints(aws)
    require_no_builds(
        aws,
        outputs.get("BuildProject"),
        undone="Nothing was deleted.",
        again=command("infra", "down"),
    )
    _wait_for_stopping(aws, outputs.get("RoleArn", ""), report, pause)
    deleted = 0
    if "Bucket" in outputs:
        bucket = Bucket(aws, outputs["Bucket"], aws.account_id())
        if not delete_adapters:
            _require_no_results(bucket)
        deleted = empty(bucket)
    for event in stack.delete():
        report(event)
    _forget(settings, aws, name)
    left = []
    if made_log_group:
        left.append(f"the log group {LOG_GROUP}, which other jobs of the account use too")
    if "KmsKeyArn" in outputs:
        key = outputs["KmsKeyArn"]
        left.append(f"the key {key}, which is deleted in 30 days and can be restored until then")
    return Removal(removed=True, objects=deleted, left=tuple(left))


def _forget(settings: Settings, aws: Aws, name: str) -> None:
    """Delete the saved outputs of a stack that is gone; those of another stack stay."""
    try:
        saved = settings.aws()
    except MachineError:  # damaged: of no use to anybody
        saved = None
    if saved is None or (saved.stack_name, saved.region) == (name, aws.region):
        settings.aws_file.unlink(missing_ok=True)


def _require_no_results(bucket: Bucket) -> None:
    names = result_names(bucket)
    if names:
        some = ", ".join(names[:_SHOWN])
        if len(names) > _SHOWN:
            some = f"{some}, ..."
        some = f"{some} ({len(names)} in all)"
        down_all = command("infra", "down", "--delete-adapters")
        raise AccountError(
            f"The bucket holds adapters or images, which would be lost: {some}. Nothing was deleted.",
            next_step=f"save them with adapters pull, images with generate --batch FILE -o DIR, then: {down_all}",
        )


def _require_no_jobs(aws: Aws, role_arn: str) -> None:
    ours = _jobs_of(aws, role_arn, "InProgress")
    if ours:
        names = ", ".join(ours)
        raise JobError(
            f"Jobs that use this stack are running: {names}. Nothing was deleted.",
            next_step=command("jobs", "stop", ours[0]),
        )


def _require_no_endpoints(aws: Aws) -> None:
    """Raise EndpointError while this program has endpoints in the region: they would go on being billed."""
    client = aws.client("sagemaker")
    names = []
    with calling("look for endpoints"):
        for page in client.get_paginator("list_endpoints").paginate():
            for listed in page["Endpoints"]:
                tags = client.list_tags(ResourceArn=listed["EndpointArn"])["Tags"]
                if any(tag["Key"] == ENDPOINT_TAG for tag in tags):
                    names.append(listed["EndpointName"])
    if names:
        some = ", ".join(names[:_SHOWN])
        raise EndpointError(
            f"Endpoints are billed until they are deleted, and need this stack: {some}. Nothing was deleted.",
            next_step=command("endpoints", "delete", names[0]),
        )


def _wait_for_stopping(
    aws: Aws,
    role_arn: str,
    report: Listener,
    pause: Callable[[float], None],
) -> None:
    """Wait until no job of this stack is stopping; raises JobError for one that does not end."""
    waited = 0.0
    told: set[str] = set()
    while stopping := _jobs_of(aws, role_arn, "Stopping"):
        for name in sorted(set(stopping) - told):
            told.add(name)
            event = StackEvent(
                at=datetime.now(UTC),
                resource=name,
                kind="training job",
                status="STOPPING",
                reason="waiting until it has ended",
            )
            report(event)
        if waited >= _ENDING_SECONDS:
            names = ", ".join(stopping)
            raise JobError(
                f"Jobs that use this stack are stopping and do not end: {names}. Nothing was deleted.",
                next_step=command("jobs", "wait", stopping[0]),
            )
        pause(_POLL_SECONDS)
        waited += _POLL_SECONDS


def _jobs_of(aws: Aws, role_arn: str, status: str) -> list[str]:
    """Return the names of the training jobs of a status that run as a role."""
    client = aws.client("sagemaker")
    pages = client.get_paginator("list_training_jobs").paginate(StatusEquals=status)
    found: list[str] = []
    with calling("look for running jobs"):
        for page in pages:
            for listed in page["TrainingJobSummaries"]:
                name = listed["TrainingJobName"]
                described = client.describe_training_job(TrainingJobName=name)
                if described["RoleArn"] == role_arn:
                    found.append(name)
    return found


def _log_group_exists(aws: Aws) -> bool:
    with calling("look for SageMaker's log group"):
        answer = aws.client("logs").describe_log_groups(logGroupNamePrefix=LOG_GROUP)
    return any(group["logGroupName"] == LOG_GROUP for group in answer["logGroups"])


def _save_outputs(stack: Stack, settings: Settings) -> AwsSettings:
    """Write the stack's outputs where `Settings.aws` reads them."""
    outputs = stack.outputs()
    fields: dict[str, Any] = {}
    for name, value in outputs.items():
        snake_case = _WORDS.sub("_", name)
        field = snake_case.lower()
        fields[field] = value
        if field in _LISTS:
            fields[field] = value.split(",")
    if "bucket" not in fields:
        status = stack.status()
        raise MissingError(
            f"The stack {stack.name} is in {status} and has no outputs yet.",
            next_step=command("infra", "up"),
        )
    account = AwsSettings.model_validate(fields)
    text = account.model_dump_json(indent=2)
    write_atomically(settings.aws_file, f"{text}\n")
    return account
