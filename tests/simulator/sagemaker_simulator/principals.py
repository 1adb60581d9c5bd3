"""Who somebody is to moto's IAM, and what may be done in that name: with keys' and buckets' own policies."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .policies import Access, Document, allows, denies


@dataclass(frozen=True)
class Principal:
    """A user or a role."""

    arn: str
    documents: tuple[Document, ...]
    """The policies it has."""


def of_access_key(key: Any) -> Principal:
    """Return whom one of moto's access keys belongs to: a session of a role may what its role may."""
    name = getattr(key, "_owner_role_name", None)
    if name is None:
        return Principal(key.arn, _documents(key.collect_policies()))
    return of_role(key.backend.get_role(name).arn)


def of_role(arn: str) -> Principal:
    """Return a role."""
    from moto.iam.models import iam_backends

    backend = iam_backends[arn.split(":")[4]]["aws"]
    name = arn.rpartition("/")[2]
    inline = [backend.get_role_policy(name, policy)[1] for policy in backend.list_role_policies(name)]
    return Principal(arn, _documents([*inline, *backend.list_attached_role_policies(name)[0]]))


def of_arn(arn: str) -> Principal | None:
    """Return a role or a user that has policies; None for anybody else."""
    from moto.iam.models import iam_backends

    kind, _, path = arn.rpartition(":")[2].partition("/")
    name = path.rpartition("/")[2]
    backend = iam_backends[arn.split(":")[4]]["aws"]
    if kind == "role" and any(role.name == name for role in backend.get_roles()):
        return of_role(arn)
    if kind != "user" or name not in backend.users:
        return None
    user = backend.users[name]
    return Principal(arn, _documents([*user.policies.values(), *user.managed_policies.values()]))


def may(principal: Principal, access: Access) -> bool:
    """Return whether somebody may do something: a key's own policy counts too, and that of a bucket can forbid it."""
    service = access.action.partition(":")[0]
    if service == "kms" and access.resource != "*":
        return _may_use_key(principal, access)
    if service == "s3" and denies(_bucket_policies(principal, access), access, principal.arn):
        return False
    return allows(principal.documents, access)


def _may_use_key(principal: Principal, access: Access) -> bool:
    """Apply a key's policy: to whom it names, and by their own policies to those of an account that it trusts."""
    from moto.kms.models import kms_backends

    _, _, _, region, account, _ = access.resource.split(":")
    policies = [_document(kms_backends[account][region].get_key_policy(access.resource))]
    if denies(principal.documents, access):
        return False
    by_account = allows(policies, access, f"arn:aws:iam::{account}:root") and allows(principal.documents, access)
    return by_account or allows(policies, access, principal.arn)


def _bucket_policies(principal: Principal, access: Access) -> list[Document]:
    from moto.s3.models import s3_backends

    name = access.resource.rpartition(":::")[2].partition("/")[0]
    bucket = s3_backends[principal.arn.split(":")[4]]["aws"].buckets.get(name)
    return [_document(bucket.policy)] if bucket is not None and bucket.policy else []


def _document(policy: Any) -> Document:
    """Return a policy that moto keeps as a text, or as a template's own value."""
    return json.loads(policy) if isinstance(policy, str | bytes) else policy


def _documents(policies: Iterable[Any]) -> tuple[Document, ...]:
    from moto.iam.access_control import IAMPolicy

    return tuple(IAMPolicy(policy)._policy_json for policy in policies)
