"""A CloudFormation stack: made, changed by change set, followed event by event, explained when it is stuck."""

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
_REVIEWED_ONLY = "REVIEW_IN_PROGRESS"  # a change set was made and never executed: there is nothing yet
_USABLE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"}
_BEING_PLANNED = {"CREATE_PENDING", "CREATE_IN_PROGRESS"}
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}


class StackEvent(NamedTuple):
    """One thing that happened to one resource."""

    at: datetime
    resource: str
    kind: str
    status: str
    reason: str

    @property
    def is_failure(self) -> bool:
        """Whether the resource could not be made, changed or deleted, for a reason of its own."""
        was_cancelled = "cancelled" in self.reason.lower()
        return self.status.endswith("_FAILED") and not was_cancelled


class Stack:
    """One stack by its name; every verb looks at the stack first, so that each is idempotent."""

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
        """Return where the stack stands, or None when there is none."""
        described = self._describe(self.name)
        return str(described["StackStatus"]) if described else None

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs; raises MissingError without a stack."""
        outputs = {}
        for output in self._require_stack().get("Outputs", []):
            outputs[output["OutputKey"]] = output["OutputValue"]
        return outputs

    def parameters(self) -> dict[str, str]:
        """Return the parameters the stack was last applied with; none without a stack."""
        described = self._describe(self.name) or {}
        parameters = {}
        for one in described.get("Parameters", []):
            parameters[one["ParameterKey"]] = one.get("ParameterValue", "")
        return parameters

    def apply(self, template: str, parameters: Mapping[str, str]) -> Iterator[StackEvent]:
        """Create or change the stack and yield what happens; yields nothing when nothing is to be changed.

        Raises AccountError with cause and next command when it cannot be applied.
        """
        yield from self._finish_earlier()
        status = self.status()
        if status == _REVIEWED_ONLY:
            yield from self.delete()
            status = None
        if status is not None and status not in _USABLE:
            raise self._stuck(status)
        known = self._newest_event()
        if status is None:
            request = self._request(template, parameters)
            with calling(f"make the stack {self.name}"):
                self._client.create_stack(**request, ClientRequestToken=_token())
        else:
            change_set = self._make_change_set(template, parameters)
            if change_set is None:
                return
            with calling(f"change the stack {self.name}"):
                self._client.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        yield from self._follow(self._require_stack()["StackId"], known)

    def delete(self) -> Iterator[StackEvent]:
        """Delete the stack and yield what happens; raises AccountError with the cause when something stays."""
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
        described = self._describe(self.name)
        if described is None:
            raise MissingError(f"There is no stack {self.name} in {self.aws.region}.", next_step=_UP)
        return described

    def _describe(self, name_or_id: str) -> dict[str, Any] | None:
        try:
            with calling(f"look at the stack {self.name}"):
                described: dict[str, Any] = self._client.describe_stacks(StackName=name_or_id)["Stacks"][0]
        except MissingError:
            return None
        if name_or_id == self.name and described["StackStatus"] == "DELETE_COMPLETE":
            return None
        return described

    def _make_change_set(self, template: str, parameters: Mapping[str, str]) -> str | None:
        """Return the ARN of a change set that can be executed, or None when it would change nothing."""
        doing = f"plan the changes to the stack {self.name}"
        with calling(doing):
            made = self._client.create_change_set(
                **self._request(template, parameters),
                ChangeSetName=_token(),
                ChangeSetType="UPDATE",
            )["Id"]
        described = self._described_change_set(str(made))
        while described["Status"] in _BEING_PLANNED:
            self._pause(_POLL_SECONDS)
            described = self._described_change_set(str(made))
        if described["Status"] == "CREATE_COMPLETE":
            return str(made)
        reason = str(described.get("StatusReason", "no reason was given"))
        with calling(doing):
            self._client.delete_change_set(StackName=self.name, ChangeSetName=made)
        if any(words in reason for words in _NOTHING_CHANGED):
            return None
        raise AccountError(f"Could not {doing}: {reason}", next_step=SHOW)

    def _request(self, template: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        return {
            "StackName": self.name,
            "TemplateBody": template,
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "orchestrator:stack", "Value": self.name}],
        }

    def _described_change_set(self, change_set: str) -> dict[str, Any]:
        with calling(f"plan the changes to the stack {self.name}"):
            described: dict[str, Any] = self._client.describe_change_set(StackName=self.name, ChangeSetName=change_set)
        return described

    def _finish_earlier(self) -> Iterator[StackEvent]:
        """Wait for what another command has begun."""
        described = self._describe(self.name)
        if described is not None and described["StackStatus"] != _REVIEWED_ONLY:
            yield from self._until_final(described["StackId"], self._newest_event())

    def _follow(self, stack_id: str, known: str) -> Iterator[StackEvent]:
        failure: StackEvent | None = None
        for event in self._until_final(stack_id, known):
            if event.is_failure and failure is None:
                failure = event
            yield event
        described = self._describe(stack_id)
        status = described["StackStatus"] if described else "DELETE_COMPLETE"
        if status not in _DONE:
            raise self._stuck(status, failure)

    def _until_final(self, stack_id: str, known: str) -> Iterator[StackEvent]:
        while True:
            described = self._describe(stack_id)  # before the events, so that the last ones are not missed
            for event in self._events(stack_id, known):
                known = event["EventId"]
                yield _event(event)
            if described is None or not described["StackStatus"].endswith("_IN_PROGRESS"):
                return
            self._pause(_POLL_SECONDS)

    def _newest_event(self) -> str:
        described = self._describe(self.name)
        if described is None:
            return ""
        newest = next(self._pages(described["StackId"]), None)
        return str(newest["EventId"]) if newest else ""

    def _events(self, stack_id: str, known: str) -> list[dict[str, Any]]:
        """Return the events after the `known` one, the oldest first."""
        newer = []
        for event in self._pages(stack_id):
            if event["EventId"] == known:
                break
            newer.append(event)
        return newer[::-1]

    def _pages(self, stack_id: str) -> Iterator[dict[str, Any]]:
        with calling(f"look at the stack {self.name}"):
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
                yield from page["StackEvents"]

    def _stuck(self, status: str, failure: StackEvent | None = None) -> AccountError:
        """Return what is wrong with a stack in a status it cannot be worked with, and how to get it out of there."""
        message = f"The stack {self.name} is in {status}."
        failure = failure or self._last_failure()
        if failure is not None:
            message = f"{message} {failure.resource} ({failure.kind}): {failure.reason}"
        return AccountError(message, next_step=_way_out(status, self.name))

    def _last_failure(self) -> StackEvent | None:
        """Return what began the newest run of failures."""
        described = self._describe(self.name)
        if described is None:
            return None
        found = None
        for raw in self._pages(described["StackId"]):  # the newest first
            event = _event(raw)
            begins_the_run = event.resource == self.name and event.status.endswith("_IN_PROGRESS")
            if found is not None and begins_the_run:
                break
            if event.is_failure:
                found = event
        return found


def _token() -> str:
    """Return a name that no other attempt has; the SDK's own repeats of a request share it."""
    return f"up-{uuid.uuid4().hex}"


def _event(raw: dict[str, Any]) -> StackEvent:
    return StackEvent(
        at=raw["Timestamp"],
        resource=str(raw.get("LogicalResourceId", "")),
        kind=str(raw.get("ResourceType", "")),
        status=str(raw.get("ResourceStatus", "")),
        reason=str(raw.get("ResourceStatusReason", "")),
    )


def _way_out(status: str, name: str) -> str:
    match status:
        case "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED":  # was never made: nothing is lost with it
            return f"fix the cause, then: {_DOWN} && {_UP}"
        case "DELETE_FAILED":
            return f"fix the cause, then: {_DOWN}"
        case "UPDATE_ROLLBACK_FAILED":
            return f"fix the cause, then: aws cloudformation continue-update-rollback --stack-name {name}"
        case "UPDATE_ROLLBACK_COMPLETE":
            return f"fix the cause, then: {_UP}"
    return SHOW
