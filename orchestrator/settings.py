"""Where things lie: on this machine, and in the AWS account that `infra up` prepared."""

import getpass
import json
import os
import re
from pathlib import Path
from typing import Any, Self

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import problems_of
from orchestrator.errors import AccountError, MachineError

HOME_VARIABLE = "ORCHESTRATOR_HOME"
OWNER_VARIABLE = "ORCHESTRATOR_OWNER"
ADAPTERS_PREFIX = "adapters/"
"""Below it lie the finished adapters, one folder a name: on this machine and in the bucket."""
_REGION = r"^[a-z]{2}(-[a-z]+)+-\d+$"
_LISTS = ("subnets", "security_groups")


class AwsSettings(BaseModel):
    """What `infra up` made in an account; the stack's outputs have the same names in CamelCase."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    stack_name: str = "orchestrator"
    """The CloudFormation stack all of it belongs to."""
    region: str = Field(pattern=_REGION)
    """AWS region of everything below."""
    account_id: str = Field(pattern=r"^\d{12}$")
    """The account; every bucket has to belong to it."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """Holds what jobs read and write."""
    role_arn: str = Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    """The role that jobs run as."""
    submit_policy_arn: str | None = None
    """The policy to attach to whoever submits jobs."""
    training_image: str
    """The container that jobs run in, with its tag or digest."""
    inference_image: str | None = None
    """The container that endpoints run in."""
    kms_key_arn: str | None = None
    """The key everything is encrypted with; AWS's own when left out."""
    subnets: tuple[str, ...] = Field((), max_length=16)
    """Subnets jobs run in; none for no VPC."""
    security_groups: tuple[str, ...] = Field((), max_length=5)
    """Security groups of jobs in those subnets."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups go together; give both, or neither")
        return self

    @classmethod
    def placeholder(cls, region: str | None = None) -> Self:
        """Return settings in the right shape that belong to nobody: for a plan without an account."""
        chosen = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        if not re.fullmatch(_REGION, chosen):
            message = f'"{chosen}" is no AWS region.'
            raise MachineError(message, next_step="export AWS_REGION=us-east-1  (the region you want to train in)")
        account = "0" * 12
        return cls(
            region=chosen,
            account_id=account,
            bucket=f"orchestrator-{account}-{chosen}",
            role_arn=f"arn:aws:iam::{account}:role/not-yet-made-by-infra-up",
            training_image=f"{account}.dkr.ecr.{chosen}.amazonaws.com/orchestrator-training:not-yet-pushed",
        )


class Settings(BaseModel):
    """The folders this installation works in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    home: Path
    """Holds everything below; ORCHESTRATOR_HOME, or the platform's data folder."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the settings of this process."""
        chosen = os.environ.get(HOME_VARIABLE)
        named = f'{HOME_VARIABLE} is set to "{chosen}"' if chosen else f"{HOME_VARIABLE} is not set"
        next_step = f"export {HOME_VARIABLE}=~/orchestrator"
        try:
            home = expanded(chosen) if chosen else user_data_path("orchestrator")
            obstacle = _obstacle(home)
        except (ValueError, OSError) as error:
            raise MachineError(f"{named}, which is no folder: {error}.", next_step=next_step) from error
        if obstacle:
            raise MachineError(f"{named}, and {obstacle}.", next_step=next_step)
        return cls(home=home)

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.home / "jobs"

    @property
    def adapters(self) -> Path:
        """One folder an adapter."""
        return self.home / ADAPTERS_PREFIX

    @property
    def sweeps(self) -> Path:
        """One folder a sweep: its contact sheet and what came of each job."""
        return self.home / "sweeps"

    @property
    def store(self) -> Path:
        """Data sets and code bundles, by their hash."""
        return self.home / "store"

    @property
    def cache(self) -> Path:
        """Can be deleted at any time."""
        return self.home / "cache"

    @property
    def aws_file(self) -> Path:
        """What `infra up` has noted of the account."""
        return self.home / "aws.json"

    def aws(self) -> AwsSettings | None:
        """Return the account's settings, or None before `infra up`; raises MachineError when they cannot be used.

        Each field can be set by ORCHESTRATOR_<FIELD> instead; lists are written with commas.
        """
        fields = {**self._noted(), **_from_variables()}
        if not fields:
            return None
        try:
            return AwsSettings.model_validate(fields)
        except ValidationError as error:
            raise MachineError(
                f"The settings of the AWS account ({self.aws_file} and ORCHESTRATOR_ variables) cannot be used.",
                problems=problems_of(error),
                next_step=command("infra", "show"),
            ) from error

    def account(self) -> AwsSettings:
        """Return the account's settings; raises AccountError before `infra up`, and as `aws` does."""
        account = self.aws()
        if account is None:
            raise AccountError("No AWS account is set up for this.", next_step=command("infra", "up"))
        return account

    def _noted(self) -> dict[str, Any]:
        try:
            noted = json.loads(self.aws_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise _unreadable(self.aws_file, str(error)) from error
        if not isinstance(noted, dict):
            raise _unreadable(self.aws_file, "it is no JSON object")
        return noted


def owner() -> str:
    """Return who submits: ORCHESTRATOR_OWNER, or the login name."""
    try:
        return os.environ.get(OWNER_VARIABLE) or getpass.getuser()
    except (KeyError, OSError):  # a process of a user without a name, as in some containers
        return "unknown"


def _from_variables() -> dict[str, Any]:
    given = {name: os.environ.get(f"ORCHESTRATOR_{name.upper()}") for name in AwsSettings.model_fields}
    return {
        name: [part.strip() for part in value.split(",") if part.strip()] if name in _LISTS else value
        for name, value in given.items()
        if value
    }


def _unreadable(path: Path, why: str) -> MachineError:
    return MachineError(f"{path} cannot be read: {why}.", next_step=command("infra", "show"))


def _obstacle(home: Path) -> str:
    """Return why nothing can be kept in `home`, a folder that is there or has to be made, or an empty text."""
    there = next(path for path in (home, *home.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is a file"
    return "" if os.access(there, os.R_OK | os.W_OK | os.X_OK) else f"{there} cannot be written"


def expanded(path: str | Path) -> Path:
    """Return an absolute path with `~` written out; raises ValueError for the home of a user there is not."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
