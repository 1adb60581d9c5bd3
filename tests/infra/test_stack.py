"""A stack that is stuck, being worked on, or refused: what is said, and what to type."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from moto.cloudformation.models import cloudformation_backends
from moto.core import DEFAULT_ACCOUNT_ID

from orchestrator.aws.client import Aws
from orchestrator.errors import AccountError, MissingError, OrchestratorError
from orchestrator.infra.stack import Stack, StackEvent

EMPTY = "Resources: {Group: {Type: 'AWS::Logs::LogGroup', Properties: {LogGroupName: one}}}"
OTHER = "Resources: {Group: {Type: 'AWS::Logs::LogGroup', Properties: {LogGroupName: two}}}"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with mock_aws():
        yield


@pytest.fixture(scope="module")
def aws() -> Aws:
    return Aws("eu-west-1")


def never(_seconds: float) -> None:
    raise AssertionError("nothing is under way: there is nothing to wait for")


def behind(name: str = "stack") -> Any:
    """Return the stack as the mocked service holds it, so that a test can bring it into any state."""
    backend = cloudformation_backends[DEFAULT_ACCOUNT_ID]["eu-west-1"]
    return next(one for one in backend.stacks.values() if one.name == name)


def fail(stack: Any, status: str, reason: str, resource: str = "Bucket") -> None:
    """Let a resource of a stack fail."""
    stack._add_stack_event(status, resource_status_reason=reason)
    stack.events[-1].logical_resource_id = resource
    stack.events[-1].resource_type = "AWS::S3::Bucket"


@pytest.fixture
def stack(aws: Aws) -> Stack:
    made = Stack(aws, "stack", pause=never)
    list(made.apply(EMPTY, {}))
    return made


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        ("ROLLBACK_COMPLETE", "infra down && python -m orchestrator infra up"),
        ("ROLLBACK_FAILED", "infra down && python -m orchestrator infra up"),
        ("CREATE_FAILED", "infra down && python -m orchestrator infra up"),
        ("DELETE_FAILED", "infra down"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --stack-name stack"),
    ],
)
def test_a_broken_stack_is_named_with_its_cause_and_the_way_out(stack: Stack, status: str, next_step: str) -> None:
    fail(behind(), "CREATE_FAILED", "The bucket name is taken")
    fail(behind(), "CREATE_FAILED", "Resource creation cancelled", "Key")
    behind().status = status
    with pytest.raises(AccountError, match=status) as raised:
        list(stack.apply(OTHER, {}))
    assert "Bucket (AWS::S3::Bucket): The bucket name is taken" in raised.value.message
    assert next_step in raised.value.next_step


def test_an_older_failure_is_not_taken_for_the_cause_of_the_newest(stack: Stack) -> None:
    fail(behind(), "CREATE_FAILED", "long mended")
    behind()._add_stack_event("UPDATE_IN_PROGRESS")
    fail(behind(), "UPDATE_FAILED", "a new trouble")
    behind().status = "UPDATE_ROLLBACK_FAILED"
    with pytest.raises(AccountError, match="a new trouble"):
        list(stack.apply(OTHER, {}))


def test_a_stack_that_went_back_to_how_it_was_can_be_changed_again(stack: Stack) -> None:
    behind().status = "UPDATE_ROLLBACK_COMPLETE"
    assert [event.status for event in stack.apply(OTHER, {})] == ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"]


def test_a_change_that_fails_is_told_to_its_end_and_then_explained(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.cloudformation.models import CloudFormationBackend

    def execute(*_words: Any, **_named: Any) -> None:
        fail(behind(), "UPDATE_FAILED", "No permission")
        behind().status = "UPDATE_ROLLBACK_COMPLETE"
        behind()._add_stack_event("UPDATE_ROLLBACK_COMPLETE")

    monkeypatch.setattr(CloudFormationBackend, "execute_change_set", execute)
    reported: list[StackEvent] = []
    with pytest.raises(AccountError, match=r"UPDATE_ROLLBACK_COMPLETE.*No permission") as raised:
        for event in stack.apply(OTHER, {}):
            reported.append(event)  # noqa: PERF402  (extend would lose what came before the error)
    assert [event.status for event in reported] == ["UPDATE_FAILED", "UPDATE_ROLLBACK_COMPLETE"]
    assert "infra up" in raised.value.next_step


def test_what_another_command_began_is_waited_for_and_told(aws: Aws, stack: Stack) -> None:
    behind().status = "UPDATE_IN_PROGRESS"

    def end(_seconds: float) -> None:
        behind()._add_stack_event("UPDATE_COMPLETE", resource_status_reason="of the other command")
        behind().status = "UPDATE_COMPLETE"

    reported = list(Stack(aws, "stack", pause=end).apply(OTHER, {}))
    assert reported[0].reason == "of the other command"
    assert reported[-1].status == "UPDATE_COMPLETE"
    assert len(reported) == 3


def test_a_stack_that_was_only_reviewed_is_made(aws: Aws) -> None:
    aws.client("cloudformation").create_change_set(
        StackName="stack", ChangeSetName="a-look", ChangeSetType="CREATE", TemplateBody=EMPTY
    )
    stack = Stack(aws, "stack", pause=never)
    assert stack.status() == "REVIEW_IN_PROGRESS"
    list(stack.apply(EMPTY, {}))
    assert stack.status() == "CREATE_COMPLETE"


def test_a_stack_that_is_deleted_is_not_there(stack: Stack) -> None:
    assert [event.status for event in stack.delete()][-1] == "DELETE_COMPLETE"
    assert stack.status() is None
    assert list(stack.delete()) == []
    with pytest.raises(MissingError):
        stack.outputs()


def test_a_resource_that_will_not_go_is_named(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.cloudformation.models import CloudFormationBackend

    def delete(*_words: Any, **_named: Any) -> None:
        fail(behind(), "DELETE_FAILED", "The bucket you tried to delete is not empty")
        behind().status = "DELETE_FAILED"

    monkeypatch.setattr(CloudFormationBackend, "delete_stack", delete)
    with pytest.raises(AccountError, match="not empty") as raised:
        list(stack.delete())
    assert "infra down" in raised.value.next_step


def test_a_template_that_is_refused_is_one_message(aws: Aws) -> None:
    with pytest.raises(OrchestratorError, match="Could not create the stack"):
        list(Stack(aws, "stack", pause=never).apply(f"Parameters: {{Name: {{Type: String}}}}\n{EMPTY}", {}))
