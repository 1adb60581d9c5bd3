"""The folders of this machine, and the resources of the AWS account that `infra up` created."""

import getpass
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Self

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import problems_of
from orchestrator.errors import AccountError, MachineError
from orchestrator.terminal import LONGEST_NAME, printable

HOME_VARIABLE = "ORCHESTRATOR_HOME"
OWNER_VARIABLE = "ORCHESTRATOR_OWNER"
ADAPTERS_PREFIX = "adapters/"
"""Prefix of the finished adapters, one folder per name: on this machine and in the bucket."""
IMAGES_PREFIX = "images/"
"""Prefix of the batches of images, one folder per job: on this machine and in the bucket."""
_ANOTHER_HOME = "~/orchestrator"
_REGION = r"^[a-z]{2}(-[a-z]+)+-\d+$"
_LISTS = ("subnets", "security_groups")


class AwsSettings(BaseModel):
    """What `infra up` created in an account; the stack's outputs have the same names in CamelCase."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stack_name: str = "orchestrator"
    """CloudFormation stack of these resources."""
    region: str = Field(pattern=_REGION)
    """AWS region of everything below."""
    account_id: str = Field(pattern=r"^\d{12}$")
    """Twelve digits of the account that owns the bucket."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """Bucket that jobs read and write."""
    role_arn: str = Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    """Execution role of jobs."""
    endpoint_role_arn: str | None = Field(None, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    """Execution role of endpoints."""
    submit_policy_arn: str | None = None
    """Policy to attach to whoever submits jobs."""
    deploy_policy_arn: str | None = None
    """Policy to attach to whoever deploys endpoints and asks them for images."""
    label_policy_arn: str | None = None
    """Policy to attach to whoever labels; None without `infra up --labels`."""
    label_topic_arn: str | None = None
    """Topic that is told of each round that waits for labels; None without `infra up --labels`."""
    label_queue_url: str | None = None
    """Queue to which other tools send labels; None without `infra up --labels`."""
    build_project: str | None = None
    """CodeBuild project that builds the images; None without `infra up --builds`."""
    training_image: str
    """Container image of training jobs, with its tag or digest."""
    inference_image: str | None = None
    """Container image of endpoints."""
    kms_key_arn: str | None = None
    """KMS key for everything that is stored; by default AWS's own."""
    subnets: tuple[str, ...] = Field((), max_length=16)
    """Subnets of jobs; empty without a VPC."""
    security_groups: tuple[str, ...] = Field((), max_length=5)
    """Security groups of jobs in those subnets."""

    @model_validator(mode="after")
    def _check_vpc(self) -> Self:
        has_subnets = bool(self.subnets)
        has_groups = bool(self.security_groups)
        if has_subnets != has_groups:
            raise ValueError("subnets and security_groups go together; give both, or neither")
        return self

    @classmethod
    def placeholder(cls, region: str | None = None) -> Self:
        """Return valid settings of an account that does not exist, for a plan without an account."""
        from_environment = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        chosen = region or from_environment or "us-east-1"
        if not re.fullmatch(_REGION, chosen):
            message = f'"{chosen}" is not an AWS region.'
            raise MachineError(message, next_step="export AWS_REGION=us-east-1  (the region you want to train in)")
        account = "0" * 12
        registry = f"{account}.dkr.ecr.{chosen}.amazonaws.com"
        return cls(
            region=chosen,
            account_id=account,
            bucket=f"orchestrator-{account}-{chosen}",
            role_arn=f"arn:aws:iam::{account}:role/not-yet-made-by-infra-up",
            training_image=f"{registry}/orchestrator-training:not-yet-pushed",
        )


class Settings(BaseModel):
    """The folders of this installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    """Parent of all others: ORCHESTRATOR_HOME, or the platform's data folder."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the settings of this process; raises MachineError when the folder cannot be read.

        Whoever writes to it calls `require_writable` before.
        """
        chosen = os.environ.get(HOME_VARIABLE)
        try:
            home = expanded(chosen) if chosen else user_data_path("orchestrator")
            existing = _existing(home)
        except (ValueError, OSError) as error:
            raise _unusable(f"which cannot be used as a folder: {error}") from error
        if not existing.is_dir():
            raise _unusable(f"and {existing} is a file")
        if not os.access(existing, os.R_OK | os.X_OK):
            raise _unusable(f"and {existing} cannot be read")
        return cls(home=home)

    def require_writable(self) -> None:
        """Raise MachineError unless this process may write to the folders; those that do not exist will be created."""
        folders = (
            self.home,
            self.jobs,
            self.adapters,
            self.evaluations,
            self.images,
            self.endpoints,
            self.sweeps,
            self.labels,
            self.store,
        )
        for folder in folders:
            existing = _existing(folder)
            if not existing.is_dir():
                raise _unusable(f"and {existing} is a file")
            if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
                raise _unusable(f"and {existing} cannot be written")

    @property
    def jobs(self) -> Path:
        """One folder per job."""
        return self.home / "jobs"

    @property
    def queue(self) -> Path:
        """One file per attempt of a local job, in the order in which they started."""
        return self.home / "queue"

    @property
    def adapters(self) -> Path:
        """One folder per adapter."""
        return self.home / ADAPTERS_PREFIX

    @property
    def evaluations(self) -> Path:
        """One folder per evaluation of an adapter, by the name of its job."""
        return self.home / "evaluations"

    @property
    def endpoints(self) -> Path:
        """One folder per endpoint of this machine."""
        return self.home / "endpoints"

    @property
    def images(self) -> Path:
        """One folder per batch of images, by the name of its job."""
        return self.home / IMAGES_PREFIX

    @property
    def sweeps(self) -> Path:
        """One folder per sweep: its contact sheet and the result of each job."""
        return self.home / "sweeps"

    @property
    def labels(self) -> Path:
        """Labels that were given on this machine for jobs in the account, one folder per exchange; sent to it."""
        return self.home / "labels"

    @property
    def store(self) -> Path:
        """Data sets, base models and code bundles, by their hash."""
        return self.home / "store"

    @property
    def cache(self) -> Path:
        """Can be deleted at any time."""
        return self.home / "cache"

    @property
    def aws_file(self) -> Path:
        """What `infra up` recorded of the account."""
        return self.home / "aws.json"

    def aws(self) -> AwsSettings | None:
        """Return the account's settings, or None before `infra up`; raises MachineError when they cannot be used.

        ORCHESTRATOR_<FIELD> overrides a field; lists are separated by commas.
        """
        fields = {**self._from_file(), **_from_variables()}
        if not fields:
            return None
        try:
            return AwsSettings.model_validate(fields)
        except ValidationError as error:
            sources = f"{self.aws_file} and ORCHESTRATOR_ variables"
            raise MachineError(
                f"The settings of the AWS account ({sources}) cannot be used.",
                problems=problems_of(error),
                next_step=command("infra", "show"),
            ) from error

    def account(self) -> AwsSettings:
        """Return the account's settings; raises AccountError before `infra up`, and as `aws` does."""
        account = self.aws()
        if account is None:
            message = "No AWS account is set up for this."
            raise AccountError(message, next_step=command("infra", "up"))
        return account

    def _from_file(self) -> dict[str, Any]:
        try:
            text = self.aws_file.read_text(encoding="utf-8")
            fields = json.loads(text)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise _unreadable(self.aws_file, str(error)) from error
        if not isinstance(fields, dict):
            raise _unreadable(self.aws_file, "it is not a JSON object")
        return fields


def owner() -> str:
    """Return who submits jobs: ORCHESTRATOR_OWNER, or the login name."""
    chosen = os.environ.get(OWNER_VARIABLE)
    try:
        return chosen or getpass.getuser()
    except (KeyError, OSError):  # a process of a user without a name, as in some containers
        return "unknown"


def _from_variables() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in AwsSettings.model_fields:
        value = os.environ.get(f"ORCHESTRATOR_{name.upper()}")
        if not value:
            continue
        fields[name] = value
        if name in _LISTS:
            parts = [part.strip() for part in value.split(",")]
            fields[name] = [part for part in parts if part]
    return fields


def _unreadable(path: Path, why: str) -> MachineError:
    return MachineError(f"{path} cannot be read: {why}.", next_step=command("infra", "show"))


def _unusable(why: str) -> MachineError:
    """Return the error for a home that cannot be used, with how to choose another."""
    chosen = os.environ.get(HOME_VARIABLE)
    cause = f"{HOME_VARIABLE} is not set"
    if chosen:
        cause = f'{HOME_VARIABLE} is set to "{chosen}"'
    folder = _ANOTHER_HOME
    if not _may_write(folder):
        folder = "FOLDER  (one that you may write to)"
    return MachineError(f"{cause}, {why}.", next_step=f"export {HOME_VARIABLE}={folder}")


def _may_write(folder: str) -> bool:
    """Return whether a folder can be used as it is, or be made."""
    try:
        existing = _existing(expanded(folder))
    except (ValueError, OSError):
        return False
    return existing.is_dir() and os.access(existing, os.R_OK | os.W_OK | os.X_OK)


def _existing(folder: Path) -> Path:
    """Return `folder`, or its nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that holds a folder, which need not exist yet."""
    usage = shutil.disk_usage(_existing(folder))
    return usage.free


def expanded(path: str | Path) -> Path:
    """Return an absolute path with `~` expanded; raises ValueError for one that no file can have, and a loop."""
    typed = Path(path)
    try:
        whole = typed.expanduser()
    except RuntimeError as error:
        raise ValueError(printable(f"{path}: this machine knows no home folder {typed.parts[0]}")) from error
    try:
        _require_short_names(whole)
        return whole.resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(printable(f"{path}: {error}")) from error


def _require_short_names(path: Path) -> None:
    """Raise ValueError for a name that no file can have: most calls of the system fail at it."""
    for part in path.parts:
        size = len(os.fsencode(part))
        if size > LONGEST_NAME:
            raise ValueError(printable(f"{part}: a name of {size} bytes; a file's has at most {LONGEST_NAME}"))


def typed_path(path: str | Path) -> Path:
    """Return what `expanded` does for a path of the command line; raises MachineError where it cannot be one."""
    try:
        return expanded(path)
    except ValueError as error:
        raise MachineError(f"{error}.", next_step="write the whole path") from error
