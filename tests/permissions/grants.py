"""The policies of the stack as they were deployed, and how one is put in force with less in it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.settings import AwsSettings

Document = dict[str, Any]
_INLINE = {"JobPolicy": "job", "JobNetworkPolicy": "job-network"}


class Grants:
    """Reads and writes the policies of one stack, which go by their names in its template."""

    def __init__(self, owner: Callable[[str], Any], account: AwsSettings) -> None:
        self.iam = owner("iam")
        self.kms = owner("kms")
        self.key = account.kms_key_arn
        self.managed = account.submit_policy_arn
        self.role = account.role_arn.rpartition("/")[2]

    @contextmanager
    def without(self, resource: str, action: str, below: str = "") -> Iterator[None]:
        """Take one action from a policy for a while, everywhere or `below` one prefix of the bucket."""
        before = self.read(resource)
        self._write(resource, {**before, "Statement": [*_less(before, action, below)]})
        try:
            yield
        finally:
            self._write(resource, before)

    def read(self, resource: str) -> Document:
        """Return a policy as it is in force."""
        if resource == "Key":
            return _document(self.kms.get_key_policy(KeyId=self.key, PolicyName="default")["Policy"])
        if resource in _INLINE:
            return _document(
                self.iam.get_role_policy(RoleName=self.role, PolicyName=_INLINE[resource])["PolicyDocument"]
            )
        version = self.iam.get_policy(PolicyArn=self.managed)["Policy"]["DefaultVersionId"]
        answer = self.iam.get_policy_version(PolicyArn=self.managed, VersionId=version)
        return _document(answer["PolicyVersion"]["Document"])

    def _write(self, resource: str, document: Document) -> None:
        text = json.dumps(document)
        if resource == "Key":
            self.kms.put_key_policy(KeyId=self.key, PolicyName="default", Policy=text)
        elif resource in _INLINE:
            self.iam.put_role_policy(RoleName=self.role, PolicyName=_INLINE[resource], PolicyDocument=text)
        else:
            self.iam.create_policy_version(PolicyArn=self.managed, PolicyDocument=text, SetAsDefault=True)
            for version in self.iam.list_policy_versions(PolicyArn=self.managed)["Versions"]:
                if not version["IsDefaultVersion"]:
                    self.iam.delete_policy_version(PolicyArn=self.managed, VersionId=version["VersionId"])


def actions_of(document: Document) -> list[str]:
    """Return every action a policy grants by its name."""
    return sorted({action for one in document["Statement"] for action in _listed(one["Action"]) if "*" not in action})


def prefixes_of(document: Document, action: str) -> list[str]:
    """Return the prefixes of the bucket below which a policy grants an action."""
    resources = [arn for one in document["Statement"] if action in _listed(one["Action"]) for arn in _places(one)]
    return sorted(arn.split("/")[1] for arn in resources)


def _less(document: Document, action: str, below: str) -> Iterator[Document]:
    for statement in document["Statement"]:
        if action not in _listed(statement["Action"]):
            yield statement
            continue
        if others := [one for one in _listed(statement["Action"]) if one != action]:
            yield {**statement, "Action": others}
        if below:
            left = [arn for arn in _places(statement) if not arn.endswith(f"/{below}/*")]
            yield {**statement, "Sid": "Less", "Action": action, "Resource": left}


def _places(statement: Document) -> list[str]:
    return _listed(statement["Resource"])


def _document(said: Any) -> Document:
    loaded: Document = json.loads(said) if isinstance(said, str) else said
    # CloudFormation leaves AWS::NoValue out of a list, and moto does not.
    statements = [one for one in _listed(loaded["Statement"]) if one is not None]
    return {**loaded, "Statement": statements}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
