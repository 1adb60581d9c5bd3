"""Labels that other tools send to the account's queue.

A message is deleted only after its labels are stored, under a name that follows from the message: when this program is
killed in between, or SQS delivers a message twice, the same file is written again.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues-at-least-once-delivery.html
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.labels import LABELS_ENDING, LabelMessage
from orchestrator.contract.problem import Problem
from orchestrator.errors import JobError, MachineError
from orchestrator.labels.exchange import Exchange

_AT_ONCE = 10  # messages, the most that SQS gives
_WAIT_SECONDS = 2  # long polling, which asks all of SQS's servers
_HIDDEN_SECONDS = 60  # for which nobody else receives a message

Finder = Callable[[str], Exchange | None]
"""From the name of a job to its exchange."""


class Collected(NamedTuple):
    """What was fetched from the queue."""

    messages: int
    labels: int
    left: tuple[Problem, ...]
    """Messages that nobody could store: they stay, and the queue sets them aside after a few more attempts."""


class LabelQueue:
    """The account's queue for labels."""

    def __init__(self, aws: Aws, url: str) -> None:
        self._aws = aws
        self._url = url

    def collect(self, find: Finder) -> Collected:
        """Store the labels of all messages in the exchanges of their jobs, and delete those messages."""
        messages = 0
        labels = 0
        left: dict[str, Problem] = {}
        while received := self._receive():
            new = [one for one in received if one["MessageId"] not in left]
            for message in new:
                stored = self._store(message, find)
                if isinstance(stored, Problem):
                    left[message["MessageId"]] = stored
                    continue
                self._delete(message)
                messages += 1
                labels += stored
            if not new:  # what was left has come back
                break
        return Collected(messages, labels, tuple(left.values()))

    def _store(self, message: Any, find: Finder) -> int | Problem:
        """Store a message and return how many labels it has; or say why it cannot be stored."""
        where = f"message {message['MessageId']}"
        try:
            parsed = LabelMessage.model_validate_json(message["Body"])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return Problem(where=where, what=f"it holds no labels: {first['msg']}")
        exchange = find(parsed.job)
        if exchange is None:
            return Problem(where=where, what=f"there is no job {parsed.job}")
        try:
            exchange.manifest(parsed.round)
        except (JobError, MachineError) as error:
            return Problem(where=where, what=error.message)
        lines = [label.line() for label in parsed.labels]
        content = "".join(lines).encode()
        file = _file_of(message["MessageId"])
        exchange.put_labels(parsed.round, file, content)
        return len(parsed.labels)

    def _receive(self) -> list[Any]:
        with calling("read the queue for labels"):
            answer = self._aws.client("sqs").receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=_AT_ONCE,
                WaitTimeSeconds=_WAIT_SECONDS,
                VisibilityTimeout=_HIDDEN_SECONDS,
            )
        messages: list[Any] = answer.get("Messages", [])
        return messages

    def _delete(self, message: Any) -> None:
        with calling("delete a message of the queue for labels"):
            self._aws.client("sqs").delete_message(
                QueueUrl=self._url,
                ReceiptHandle=message["ReceiptHandle"],
            )


def _file_of(message: str) -> str:
    """Return the name of the label file of a message, by its id: a hash, because the id comes from elsewhere."""
    digest = hashlib.sha256(message.encode())
    return f"queue-{digest.hexdigest()}{LABELS_ENDING}"
