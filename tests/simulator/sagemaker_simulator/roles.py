"""Execution roles, as moto's IAM and STS know them: in this process, so that no permission is needed to look."""

import json
from typing import Protocol

from .policies import Access, allows

SERVICE = "sagemaker.amazonaws.com"


class Actor(Protocol):
    """What SageMaker assumes a role for: a job, or a model."""

    @property
    def role(self) -> str:
        """ARN of the role."""

    @property
    def region(self) -> str:
        """Where it acts."""

    @property
    def arn(self) -> str:
        """Of the job or the model, which the trust of a role can ask for."""

    @property
    def is_isolated(self) -> bool:
        """Whether its container has no network."""


def account_of(access_key: str | None) -> str:
    """Return the account an access key belongs to."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.iam.models import get_account_id_from

    return get_account_id_from(access_key) if access_key else DEFAULT_ACCOUNT_ID


def trusts_service(role_arn: str, job_arn: str, service: str = SERVICE) -> bool:
    """Return whether a role exists and lets a service assume it for a job: conditions on whose job it is count."""
    from moto.iam.models import iam_backends

    roles = iam_backends[role_arn.split(":")[4]]["aws"].roles.values()
    trust = [json.loads(role.assume_role_policy_document) for role in roles if role.arn == role_arn]
    context = {"aws:SourceAccount": job_arn.split(":")[4], "aws:SourceArn": job_arn}
    return allows(trust, Access("sts:AssumeRole", context=context), service)


def assume(role_arn: str, region: str) -> dict[str, str]:
    """Return credentials of a role: whatever moto enforces for the role is enforced for them."""
    from moto.sts.models import sts_backends

    backend = sts_backends[role_arn.split(":")[4]]["aws"]
    role = backend.assume_role(region, "SageMaker", role_arn, "", 3600, "")
    return {
        "aws_access_key_id": role.access_key_id,
        "aws_secret_access_key": role.secret_access_key,
        "aws_session_token": role.session_token,
    }
