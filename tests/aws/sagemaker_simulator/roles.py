"""Execution roles, as moto's IAM and STS know them: in this process, so that no permission is needed to look."""

import json
from collections.abc import Iterator
from typing import Any

SERVICE = "sagemaker.amazonaws.com"


def account_of(access_key: str | None) -> str:
    """Return the account an access key belongs to."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.iam.models import get_account_id_from

    return get_account_id_from(access_key) if access_key else DEFAULT_ACCOUNT_ID


def trusts_service(role_arn: str) -> bool:
    """Return whether a role exists and lets SageMaker assume it."""
    from moto.iam.models import iam_backends

    account = role_arn.split(":")[4]
    roles = iam_backends[account]["aws"].roles.values()
    documents = [role.assume_role_policy_document for role in roles if role.arn == role_arn]
    return any(_allows(statement) for document in documents for statement in _statements(document))


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


def _statements(document: Any) -> Iterator[dict[str, Any]]:
    content = json.loads(document) if isinstance(document, str) else document
    statements = content["Statement"]
    yield from statements if isinstance(statements, list) else [statements]


def _allows(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, dict) else []
    actions = statement.get("Action", [])
    return (
        statement.get("Effect") == "Allow"
        and SERVICE in ([services] if isinstance(services, str) else services)
        and "sts:AssumeRole" in ([actions] if isinstance(actions, str) else actions)
    )
