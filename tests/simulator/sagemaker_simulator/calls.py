"""One request as both transports hand it over, and the record of all of them."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Call:
    """An operation somebody asks for."""

    service: str
    """As botocore writes it: `sagemaker`, `s3`, `cloudwatch-logs`."""
    operation: str
    account: str
    region: str
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of SageMaker's operations only."""
    access_key: str | None = None
    session_token: str | None = None
    body_bytes: int = 0
    """Of the request's body as it came over the wire; behind a URL only."""


@dataclass
class RecordedCall:
    """A call that came, and what became of it."""

    call: Call
    at: datetime
    error: str | None = None
    """The code of the answer, when it was an error."""
    fault: str | None = None
    """The fault that was injected."""
    committed: bool = False
    """Whether SageMaker carried it out, whatever the client was told."""

    @property
    def operation(self) -> str:
        return self.call.operation

    @property
    def parameters(self) -> dict[str, Any]:
        return self.call.parameters


class Record:
    """Every call in the order in which they came."""

    def __init__(self) -> None:
        self._calls: list[RecordedCall] = []
        self._lock = threading.Lock()

    def add(self, call: Call, at: datetime) -> RecordedCall:
        recorded = RecordedCall(call, at)
        with self._lock:
            self._calls.append(recorded)
        return recorded

    def of(self, operation: str | None = None, *, service: str = "sagemaker") -> list[RecordedCall]:
        """Return the calls of one operation, or of one service."""
        with self._lock:
            calls = list(self._calls)
        return [one for one in calls if one.call.service == service and operation in {None, one.operation}]

    def count(self, operation: str, *, service: str = "sagemaker") -> int:
        return len(self.of(operation, service=service))

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how often each operation of each service was called."""
        with self._lock:
            return Counter((one.call.service, one.operation) for one in self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
