"""A CloudFormation stack: create it, update it by change set, follow its events, and explain why it failed.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.errors import AccountError, MissingError

SHOW = command("infra", "show")
_UP = command("infra", "up")
_DOWN = command("infra", "down")
_POLL_SECONDS = 3.0
_NOTHING_CHANGED = ("didn't contain changes", "No updates are to be performed")
_REVIEWED_ONLY = "REVIEW_IN_PROGRESS"  # its first change set was never executed: it has no resources
_USABLE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
}
_PENDING = {"CREATE_PENDING", "CREATE_IN_PROGRESS"}
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}


class StackEvent(NamedTuple):
    """A change in the status of one resource."""

    at: datetime
    """When, with time zone."""
    resource: str
    """Logical id in the template; the stack's name for the stack itself."""
    kind: str
    """Resource type: "AWS::S3::Bucket"."""
    status: str
    """ResourceStatus: "CREATE_FAILED"."""
    reason: str
    """ResourceStatusReason; mostly empty."""

    @property
    def is_failure(self) -> bool:
        """Whether the resource failed for a reason of its own; the failure of one cancels the others."""
        was_cancelled = "cancelled" in self.reason.lower()
        has_failed = self.status.endswith("_FAILED")
        return has_failed and not was_cancelled


class Stack:
    """A stack by its name. Each method looks at the stack first and is idempotent."""

    def __init__(
        self,
        aws: Aws,
        name: str,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.aws = aws
        self.name = name
        self._pause = pause

    def status(self) -> str | None:
        """Return StackStatus, or None without a stack."""
        described = self._describe(self.name)
        if described is None:
            return None
        return str(described["StackStatus"])

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs; raises MissingError without a stack."""
        described = self._require_stack()
        outputs = {}
        for output in described.get("Outputs", []):
            outputs[output["OutputKey"]] = output["OutputValue"]
        return outputs

    def parameters(self) -> dict[str, str]:
        """Return the parameters that the stack was last applied with; none without a stack."""
        described = self._describe(self.name) or {}
        parameters = {}
        for parameter in described.get("Parameters", []):
            key = parameter["ParameterKey"]
            parameters[key] = parameter.get("ParameterValue", "")
        return parameters

    def apply(self, template: str, parameters: Mapping[str, str]) -> Iterator[StackEvent]:
        """Create or update the stack and yield its events; yields none when nothing has to change.

        Raises AccountError with cause and next command when it cannot be applied.
        """
        yield from self._finish_earlier()
        status = self.status()
        if status == _REVIEWED_ONLY:
            yield from self.delete()
            status = None
        if status is not None and status not in _USABLE:
            raise self._failure(status)
        known = self._newest_event()
        if status is None:
            self._create(template, parameters)
        else:
            change_set = self._make_change_set(template, parameters)
            if change_set is None:
                return
            self._execute(change_set)
        described = self._require_stack()
        yield from self._follow(described["StackId"], known)

    def delete(self) -> Iterator[StackEvent]:
        """Delete the stack and yield its events; raises AccountError with the cause when a resource remains."""
        yield from self._finish_earlier()
        described = self._describe(self.name)
        if described is None:
            return
        known = self._newest_event()
        with calling(f"delete the stack {self.name}"):
            self._client.delete_stack(StackName=self.name)
        yield from self._follow(described["StackId"], known)

    @property
    def _client(self) -> Any:  # boto3's CloudFormation client
        return self.aws.client("cloudformation")

    def _require_stack(self) -> dict[str, Any]:
        """Return the stack's description; raises MissingError without a stack."""
        described = self._describe(self.name)
        if described is None:
            raise MissingError(f"There is no stack {self.name} in {self.aws.region}.", next_step=_UP)
        return described

    def _describe(self, name_or_id: str) -> dict[str, Any] | None:
        """Return a stack's description; by its name, None once it is deleted. By its id it can be read even then."""
        try:
            with calling(f"look at the stack {self.name}"):
                answer = self._client.describe_stacks(StackName=name_or_id)
        except MissingError:
            return None
        described: dict[str, Any] = answer["Stacks"][0]
        is_deleted = described["StackStatus"] == "DELETE_COMPLETE"
        if is_deleted and name_or_id == self.name:
            return None
        return described

    def _create(self, template: str, parameters: Mapping[str, str]) -> None:
        """Begin to create the stack."""
        request = self._request(template, parameters)
        with calling(f"create the stack {self.name}"):
            self._client.create_stack(
                **request,
                ClientRequestToken=_token(),
            )

    def _execute(self, change_set: str) -> None:
        """Begin to update the stack by a change set, given by its ARN."""
        with calling(f"update the stack {self.name}"):
            self._client.execute_change_set(
                StackName=self.name,
                ChangeSetName=change_set,
            )

    def _make_change_set(self, template: str, parameters: Mapping[str, str]) -> str | None:
        """Return the ARN of a change set that is ready to execute, or None when it would change nothing."""
        request = self._request(template, parameters)
        doing = f"plan the changes to the stack {self.name}"
        with calling(doing):
            answer = self._client.create_change_set(
                **request,
                ChangeSetName=_token(),
                ChangeSetType="UPDATE",
            )
        change_set = str(answer["Id"])
        described = self._describe_change_set(change_set)
        while described["Status"] in _PENDING:
            self._pause(_POLL_SECONDS)
            described = self._describe_change_set(change_set)
        if described["Status"] == "CREATE_COMPLETE":
            return change_set
        reason = str(described.get("StatusReason", "no reason was given"))
        with calling(doing):
            self._client.delete_change_set(
                StackName=self.name,
                ChangeSetName=change_set,
            )
        for words in _NOTHING_CHANGED:
            if words in reason:
                return None
        raise AccountError(f"Could not {doing}: {reason}", next_step=SHOW)

    def _request(self, template: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return what creating a stack and planning its changes have in common."""
        pairs = []
        for key, value in parameters.items():
            pairs.append({"ParameterKey": key, "ParameterValue": value})
        return {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": pairs,
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "orchestrator:stack", "Value": self.name}],
        }

    def _describe_change_set(self, change_set: str) -> dict[str, Any]:
        """Return the description of a change set, given by its ARN."""
        with calling(f"plan the changes to the stack {self.name}"):
            described: dict[str, Any] = self._client.describe_change_set(
                StackName=self.name,
                ChangeSetName=change_set,
            )
        return described

    def _finish_earlier(self) -> Iterator[StackEvent]:
        """Wait for an operation that another command started, and yield its events."""
        described = self._describe(self.name)
        if described is None or described["StackStatus"] == _REVIEWED_ONLY:
            return
        known = self._newest_event()
        yield from self._until_final(described["StackId"], known)

    def _follow(self, stack_id: str, known: str) -> Iterator[StackEvent]:
        """Yield the events after the `known` one until the operation ends; raises AccountError when it failed."""
        failure: StackEvent | None = None
        for event in self._until_final(stack_id, known):
            if event.is_failure and failure is None:
                failure = event
            yield event
        described = self._describe(stack_id)
        if described is None:
            return
        status = described["StackStatus"]
        if status not in _DONE:
            raise self._failure(status, failure)

    def _until_final(self, stack_id: str, known: str) -> Iterator[StackEvent]:
        """Yield the events after the `known` one until the stack's status is final."""
        while True:
            described = self._describe(stack_id)  # before the events, so that the last ones are not missed
            for event in self._events(stack_id, known):
                known = event["EventId"]
                yield _event(event)
            if described is None:
                return
            status = str(described["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return
            self._pause(_POLL_SECONDS)

    def _newest_event(self) -> str:
        """Return the id of the stack's newest event; empty without one."""
        described = self._describe(self.name)
        if described is None:
            return ""
        events = self._newest_first(described["StackId"])
        newest = next(events, None)
        if newest is None:
            return ""
        return str(newest["EventId"])

    def _events(self, stack_id: str, known: str) -> list[dict[str, Any]]:
        """Return the events after the `known` one, the oldest first."""
        newer = []
        for event in self._newest_first(stack_id):
            if event["EventId"] == known:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def _newest_first(self, stack_id: str) -> Iterator[dict[str, Any]]:
        """Yield all events of a stack, the newest first."""
        paginator = self._client.get_paginator("describe_stack_events")
        pages = paginator.paginate(StackName=stack_id)
        with calling(f"look at the stack {self.name}"):
            for page in pages:
                yield from page["StackEvents"]

    def _failure(self, status: str, cause: StackEvent | None = None) -> AccountError:
        """Return the error for a stack whose status allows no update, with its cause and the way out."""
        message = f"The stack {self.name} is in {status}."
        if cause is None:
            cause = self._last_failure()
        if cause is not None:
            message = f"{message} {cause.resource} ({cause.kind}): {cause.reason}"
        return AccountError(message, next_step=_way_out(status, self.name))

    def _last_failure(self) -> StackEvent | None:
        """Return the first failure of the latest operation, which caused the others."""
        described = self._describe(self.name)
        if described is None:
            return None
        found = None
        for raw in self._newest_first(described["StackId"]):
            event = _event(raw)
            is_stack = event.resource == self.name
            starts_operation = is_stack and event.status.endswith("_IN_PROGRESS")
            if starts_operation and found is not None:
                break
            if event.is_failure:
                found = event
        return found


def _token() -> str:
    """Return a unique idempotency token, which the SDK's own retries of a request share."""
    unique = uuid.uuid4()
    return f"up-{unique.hex}"


def _event(raw: dict[str, Any]) -> StackEvent:
    """Return an event as CloudFormation describes it."""
    return StackEvent(
        at=raw["Timestamp"],
        resource=str(raw.get("LogicalResourceId", "")),
        kind=str(raw.get("ResourceType", "")),
        status=str(raw.get("ResourceStatus", "")),
        reason=str(raw.get("ResourceStatusReason", "")),
    )


def _way_out(status: str, name: str) -> str:
    """Return the next command for a stack in a status that allows no update."""
    match status:
        case "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED":  # it never worked: deleting it loses nothing
            return f"fix the cause, then: {_DOWN} && {_UP}"
        case "DELETE_FAILED":
            return f"fix the cause, then: {_DOWN}"
        case "UPDATE_ROLLBACK_FAILED":
            return f"fix the cause, then: aws cloudformation continue-update-rollback --stack-name {name}"
        case "UPDATE_ROLLBACK_COMPLETE":
            return f"fix the cause, then: {_UP}"
    return SHOW
