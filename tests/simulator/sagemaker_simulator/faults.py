"""Faults of requests: what can come back instead of the answer, from any service behind the same transport."""

import json
import threading
from dataclasses import dataclass
from enum import Enum
from functools import cache
from xml.sax.saxutils import escape

from .validation import LOADER

_XML_SERVICES = {"s3"}
_QUERY_SERVICES = {"sts", "iam", "cloudformation", "sns", "autoscaling"}
_JSON_SERVICES = {
    "sagemaker",
    "sagemaker-runtime",
    "application-auto-scaling",
    "cloudwatch",
    "cloudwatch-logs",
    "ecr",
    "kms",
}
SERVICES = _XML_SERVICES | _QUERY_SERVICES | _JSON_SERVICES
"""Those that can be given faults, as botocore's events call them."""
_MODELS = {"cloudwatch-logs": "logs", "application-auto-scaling": "application-autoscaling"}
"""Names of the models that are called otherwise than the events."""


class Manner(Enum):
    """How a fault shows."""

    ANSWER = "answer"
    """An error comes back."""
    RESET = "reset"
    """The connection is closed without an answer."""
    SILENCE = "silence"
    """Nothing comes until the client gives up."""


@dataclass(frozen=True)
class Fault:
    """What happens to one request."""

    name: str
    manner: Manner = Manner.ANSWER
    after_commit: bool = False
    """Whether the operation is carried out before the answer is lost."""
    code: str = ""
    message: str = ""
    status: int = 400
    s3_code: str = ""
    """S3 has names of its own for the same errors."""
    s3_status: int = 0

    def render(self, service: str, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body in the protocol of a service."""
        if service in _XML_SERVICES:
            body = f"<Error><Code>{self.s3_code or self.code}</Code><Message>{escape(self.message)}</Message></Error>"
            return self.s3_status or self.status, {"Content-Type": "application/xml"}, body.encode() * has_body
        if service in _QUERY_SERVICES:
            error = f"<Type>Sender</Type><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            return (
                self.status,
                {"Content-Type": "text/xml"},
                f"<ErrorResponse><Error>{error}</Error></ErrorResponse>".encode(),
            )
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": self.code}
        return self.status, headers, json.dumps({"__type": self.code, "message": self.message}).encode()


def throttling() -> Fault:
    return Fault("throttling", code="ThrottlingException", message="Rate exceeded", s3_code="SlowDown", s3_status=503)


def internal_error() -> Fault:
    message = "We encountered an internal error. Please try again."
    return Fault("500", code="InternalFailure", message=message, status=500, s3_code="InternalError")


def unavailable() -> Fault:
    return Fault("503", code="ServiceUnavailable", message="The service is unavailable.", status=503)


def expired_token() -> Fault:
    message = "The security token included in the request is expired"
    return Fault("expired token", code="ExpiredTokenException", message=message, s3_code="ExpiredToken")


def clock_skew() -> Fault:
    message = "Signature expired: 20200101T000000Z is now earlier than 20200101T001500Z (20200101T002000Z - 5 min.)"
    return Fault(
        "clock skew",
        code="InvalidSignatureException",
        message=message,
        s3_code="RequestTimeTooSkewed",
        s3_status=403,
    )


def access_denied(action: str, resource: str = "*") -> Fault:
    message = (
        f"User: arn:aws:sts::123456789012:assumed-role/someone/session is not authorized to perform: {action} on "
        f"resource: {resource} because no identity-based policy allows the {action} action"
    )
    return Fault("access denied", code="AccessDeniedException", message=message, s3_code="AccessDenied", s3_status=403)


def refusal(code: str, message: str, status: int = 400) -> Fault:
    """Return any other error."""
    return Fault(code, code=code, message=message, status=status)


def connection_reset() -> Fault:
    """The connection breaks before the service has done anything."""
    return Fault("connection reset", Manner.RESET)


def lost_answer() -> Fault:
    """The service does what it was asked for, and the connection breaks before it can say so."""
    return Fault("lost answer", Manner.RESET, after_commit=True)


def read_timeout(*, after_commit: bool = False) -> Fault:
    """The client waits for an answer until it gives up."""
    return Fault("read timeout", Manner.SILENCE, after_commit=after_commit)


@dataclass
class _Planned:
    fault: Fault
    service: str
    operation: str
    skip: int
    times: int | None
    taken: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it happens no more."""
        return self.times is not None and self.taken >= self.times

    @property
    def left(self) -> int:
        """How often it has yet to happen; one that befalls every call has to happen once."""
        expected = 1 if self.times is None else self.times
        return max(0, expected - self.taken)

    def __str__(self) -> str:
        return f"{self.fault.name} of {self.service}.{self.operation}, {self.left} times"


@cache
def operations_of(service: str) -> frozenset[str]:
    """Return the names of all operations of a service."""
    model = LOADER.load_service_model(_MODELS.get(service, service), "service-2")
    return frozenset(model["operations"])


class FaultPlan:
    """The faults to come."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()

    def add(
        self, fault: Fault, operation: str, *, service: str = "sagemaker", times: int | None = 1, skip: int = 0
    ) -> None:
        """Let a fault befall an operation (`*`: any of the service) so many times, after `skip` calls that go well.

        With `times` None it befalls every call. Raises ValueError for a service or an operation that no call is ever
        known by: such a fault would never happen.
        """
        if service not in SERVICES:
            raise ValueError(f'No call goes to a service "{service}"; it is one of {sorted(SERVICES)}.')
        if operation != "*" and operation not in operations_of(service):
            raise ValueError(f'The service "{service}" has no operation "{operation}".')
        with self._lock:
            self._planned.append(_Planned(fault, service, operation, skip, times))

    def take(self, service: str, operation: str) -> Fault | None:
        """Return the fault of this call, if it has one."""
        with self._lock:
            for planned in self._planned:
                is_meant = planned.service == service and planned.operation in {"*", operation}
                if not is_meant or planned.is_over:
                    continue
                if planned.skip > 0:
                    planned.skip -= 1
                    return None
                planned.taken += 1
                return planned.fault
        return None

    def left(self) -> int:
        """Return how many planned faults have not befallen anybody."""
        with self._lock:
            return sum(planned.left for planned in self._planned)

    def require_used(self) -> None:
        """Raise AssertionError when a planned fault has not happened: a test that planned it has tested nothing."""
        with self._lock:
            unused = [str(planned) for planned in self._planned if planned.left]
        assert not unused, f"Planned faults did not happen: {'; '.join(unused)}."

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()
