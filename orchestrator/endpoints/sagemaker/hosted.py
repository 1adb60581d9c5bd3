"""The models, configurations, endpoints and components of an account, one method for each call.

Each is made only once, and changed or deleted to the end, whatever answer is lost: no call takes an idempotency token,
but names are unique, and everything carries the hash of what it was made from.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.endpoints.sagemaker.tags import BLUEPRINT_TAG, DEPLOYMENT_TAG, Tags
from orchestrator.errors import (
    AccountError,
    ConflictError,
    EndpointError,
    LostAnswerError,
    MissingError,
    OrchestratorError,
    ServiceError,
)
from orchestrator.requests import ENDPOINT_TAG, Request, tag

LIST = command("endpoints", "list")
_LOOKS = 3
"""Attempts to create something, and to look for it after a lost answer, before the error is raised."""


class Kind(NamedTuple):
    """A kind of what is created for an endpoint, and how its calls are named."""

    noun: str
    """In messages."""
    operation: str
    """Behind create_, describe_ and delete_."""
    name: str
    """Field of its name; its ARN's has the same beginning."""
    summaries: str
    """Field of its summaries in a list."""

    @property
    def arn(self) -> str:
        """Field of its ARN."""
        return f"{self.name.removesuffix('Name')}Arn"


MODEL = Kind(
    "model",
    "model",
    "ModelName",
    "Models",
)
CONFIG = Kind(
    "endpoint configuration",
    "endpoint_config",
    "EndpointConfigName",
    "EndpointConfigs",
)
ENDPOINT = Kind(
    "endpoint",
    "endpoint",
    "EndpointName",
    "Endpoints",
)
COMPONENT = Kind(
    "inference component",
    "inference_component",
    "InferenceComponentName",
    "InferenceComponents",
)


class Summary(NamedTuple):
    """What a list says of one thing."""

    name: str
    """Its name."""
    arn: str
    """Its ARN, by which its tags are read."""
    created: datetime
    """When it was made."""
    status: str
    """Its status; empty for a kind that has none."""


class Hosted:
    """What an account hosts."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def create(self, kind: Kind, request: Request) -> None:
        """Create something, or find it created. Idempotent; raises EndpointError when another one has its name."""
        name = request[kind.name]
        for looks_left in reversed(range(_LOOKS)):
            try:
                self._call(f"create_{kind.operation}", f"create the {kind.noun} {name}", request)
            except ConflictError as conflict:  # with an attempt whose answer was lost, or another deployment of this
                self._require_same(kind, request, conflict)
            except LostAnswerError as lost:
                if self._found_despite(kind, name, lost) is None:
                    if looks_left:
                        continue
                    raise
                self._require_same(kind, request, lost)
            return

    def find(self, kind: Kind, name: str) -> Any | None:
        """Return the description of something, or None when there is none."""
        try:
            return self._call(
                f"describe_{kind.operation}",
                f"look at the {kind.noun} {name}",
                {kind.name: name},
            )
        except MissingError:
            return None

    def delete(self, kind: Kind, name: str) -> bool:
        """Delete something, or begin to; return whether it was there. Idempotent.

        Raises ConflictError for an endpoint or a component that is being changed, which cannot be deleted yet.
        """
        try:
            self._call(
                f"delete_{kind.operation}",
                f"delete the {kind.noun} {name}",
                {kind.name: name},
            )
        except MissingError:
            return False
        except ConflictError:
            found = self.find(kind, name)
            if found is not None and status_of(found) != "Deleting":
                raise
        return True

    def update_endpoint(self, request: Request) -> None:
        """Give an endpoint another configuration. Idempotent."""
        name = request["EndpointName"]
        try:
            self._call("update_endpoint", f"update the endpoint {name}", request)
        except ConflictError:  # with an attempt whose answer was lost, or with somebody else's
            found = self.find(ENDPOINT, name)
            if found is None or configuration_of(found) != request["EndpointConfigName"]:
                raise

    def update_component(self, request: Request) -> None:
        """Give a component another specification, or find that it is being given one. Idempotent."""
        name = request["InferenceComponentName"]
        try:
            self._call(
                "update_inference_component",
                f"update the inference component {name}",
                request,
            )
        except ConflictError:
            found = self.find(COMPONENT, name)
            if found is None or status_of(found) != "Updating":
                raise

    def set_instances(
        self,
        name: str,
        variant: str,
        count: int,
    ) -> None:
        """Give a variant a number of instances. Idempotent."""
        wanted = [{"VariantName": variant, "DesiredInstanceCount": count}]
        request = {"EndpointName": name, "DesiredWeightsAndCapacities": wanted}
        self._call("update_endpoint_weights_and_capacities", f"scale the endpoint {name}", request)

    def set_copies(self, name: str, count: int) -> None:
        """Give a component a number of copies. Idempotent."""
        request = {"InferenceComponentName": name, "DesiredRuntimeConfig": {"CopyCount": count}}
        self._call(
            "update_inference_component_runtime_config",
            f"scale the inference component {name}",
            request,
        )

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of something; none when it is gone meanwhile."""
        pages = self._client.get_paginator("list_tags").paginate(ResourceArn=arn)
        found = {}
        try:
            with calling("read tags"):
                for page in pages:
                    for one in page["Tags"]:
                        found[one["Key"]] = one["Value"]
        except MissingError:
            return {}
        return found

    def add_tags(self, arn: str, tags: Tags) -> None:
        """Set tags; those of other keys stay. Idempotent."""
        self._call("add_tags", "set tags", {"ResourceArn": arn, "Tags": tags})

    def listed(self, kind: Kind, **conditions: str) -> Iterator[Summary]:
        """Yield everything of a kind, the oldest first."""
        # The service sorts components by their time too, and names the field in the singular everywhere.
        pages = self._client.get_paginator(f"list_{kind.operation}s").paginate(
            SortBy="CreationTime",
            SortOrder="Ascending",
            **conditions,
        )
        with calling(f"list what is hosted ({kind.noun})"):
            for page in pages:
                for one in page[kind.summaries]:
                    yield Summary(
                        one[kind.name],
                        one[kind.arn],
                        one["CreationTime"],
                        status_of(one),
                    )

    def components_of(self, endpoint: str) -> list[Summary]:
        """Return the components of an endpoint, the oldest first."""
        return list(self.listed(COMPONENT, EndpointNameEquals=endpoint))

    @property
    def _client(self) -> Any:
        return self._aws.client("sagemaker")

    def _call(
        self,
        operation: str,
        doing: str,
        request: Request,
    ) -> Any:
        not_found = "" if operation.startswith("create_") else LIST
        with calling(doing, not_found=not_found):
            return getattr(self._client, operation)(**request)

    def _found_despite(
        self,
        kind: Kind,
        name: str,
        doubt: OrchestratorError,
    ) -> Any | None:
        """Look for something that may have been created; when that fails too, raise both errors."""
        try:
            return self.find(kind, name)
        except (AccountError, ServiceError) as error:
            raise LostAnswerError(
                f"{doubt.message} Whether it exists could not be checked either: {error.message}",
                next_step=f"{error.next_step}; then deploy again: nothing is created twice",
            ) from error

    def _require_same(
        self,
        kind: Kind,
        request: Request,
        doubt: OrchestratorError,
    ) -> None:
        """Raise EndpointError unless what has the name was created by the same request.

        Of the same model in other words, the blueprint is set to that of the request.
        """
        name = request[kind.name]
        found = self._found_despite(kind, name, doubt)
        if found is None:  # deleted since
            raise doubt
        if status_of(found) == "Deleting":
            raise EndpointError(
                f"The {kind.noun} {name} is being deleted, which takes a few minutes.",
                next_step="deploy again then",
            )
        wanted = {one["Key"]: one["Value"] for one in request["Tags"]}
        tags = self.tags(found[kind.arn])
        for key in (ENDPOINT_TAG, DEPLOYMENT_TAG):
            if tags.get(key) != wanted.get(key):
                raise EndpointError(
                    f"The account has another {kind.noun} with the name {name}; it was left as it is.",
                    next_step="deploy under another name",
                )
        if kind is MODEL and tags.get(BLUEPRINT_TAG) != wanted[BLUEPRINT_TAG]:
            self.add_tags(found[kind.arn], [tag(BLUEPRINT_TAG, wanted[BLUEPRINT_TAG])])


def status_of(described: Mapping[str, Any]) -> str:
    """Return the status of an endpoint or a component; empty for what has none."""
    for field in ("EndpointStatus", "InferenceComponentStatus"):
        if field in described:
            return str(described[field])
    return ""


def configuration_of(endpoint: Mapping[str, Any]) -> str:
    """Return the configuration of an endpoint: the one that it is being updated to, or else the one it has."""
    pending = endpoint.get("PendingDeploymentSummary", {})
    return str(pending.get("EndpointConfigName") or endpoint["EndpointConfigName"])


def model_of_component(component: Mapping[str, Any]) -> str | None:
    """Return the model of a component; None for an adapter's."""
    name = component.get("Specification", {}).get("ModelName")
    return None if name is None else str(name)
