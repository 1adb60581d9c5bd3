"""What goes over a client's wire: written down, and answered or broken as a test says.

Stands at the SDK's `before-send` event, below serializing, signing and retries and above the socket.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain, repeat
from typing import Any
from xml.sax.saxutils import escape

import botocore.exceptions
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.models import botocore_stubber

Answer = Callable[[AWSPreparedRequest], AWSResponse | None]
"""Answers a request, or raises; None leaves it to moto."""

URL = "https://the-endpoint"


class Body(BytesIO):
    """The body of an answer."""

    def stream(self, *_: object, **__: object) -> Iterable[bytes]:
        yield self.read()


class Wire:
    """The wire of one client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.sent: list[str] = []
        """The operations of all requests, repeated ones too."""
        self.requests: list[AWSPreparedRequest] = []
        self.otherwise: Answer | None = None
        """Answers the requests that no other answer is for; None leaves them to moto."""
        self._protocol = client.meta.service_model.resolved_protocol
        self._answers: defaultdict[str, Iterator[Answer]] = defaultdict(lambda: iter(()))
        self._planned: Counter[str] = Counter()
        # The SDK calls all handlers of an event, so moto must not hear of what is answered here.
        client.meta.events.unregister("before-send", botocore_stubber)
        client.meta.events.register("before-send", self._answer)

    def answer(self, operation: str, *answers: Answer, forever: Answer | None = None) -> None:
        """Give these answers to the next requests of an operation, and then go on with `forever`."""
        assert operation in self.client.meta.service_model.operation_names, f"there is no operation {operation}"
        self._answers[operation] = iter(chain(answers, repeat(forever) if forever else ()))
        self._planned[operation] = len(answers)

    def require_used(self) -> None:
        """Fail when a planned answer was not asked for: a test that planned it has tested nothing."""
        left = {operation: count for operation, count in self._planned.items() if count > 0}
        assert left == {}, f"planned answers that nobody asked for: {left}"

    def count(self, operation: str) -> int:
        return self.sent.count(operation)

    def refusal(self, status: int, code: str, message: str) -> Answer:
        """An error as the services of this client's protocol write it."""
        if self._protocol in {"json", "rest-json"}:
            body = json.dumps({"__type": code, "code": code, "message": message})
        else:
            inner = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
            error = f"<Error>{inner}</Error>"
            body = error if self._protocol == "rest-xml" else f"<ErrorResponse>{error}</ErrorResponse>"
        return lambda request: response(status, "" if request.method == "HEAD" else body)

    def done(self, result: str) -> Answer:
        """The emptiest answer there is; `result` is the element a query service puts around it."""
        body = {"json": "{}", "rest-json": "{}", "rest-xml": "<Result/>"}.get(
            self._protocol, f"<Response><{result}/></Response>"
        )
        return lambda request: response(200, "" if request.method == "HEAD" else body)

    def _answer(self, event_name: str, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        operation = event_name.rpartition(".")[2]
        self.sent.append(operation)
        self.requests.append(request)
        self._planned[operation] -= 1
        answer = next(self._answers[operation], self.otherwise)
        return (answer and answer(request)) or botocore_stubber(event_name, request)


def response(status: int, body: str | bytes, **headers: str) -> AWSResponse:
    content = body.encode() if isinstance(body, str) else body
    return AWSResponse(URL, status, {"content-length": str(len(content)), **headers}, Body(content))


def broken(name: str) -> Answer:
    """The transport's error of that name, before anything was sent."""

    def fail(_: AWSPreparedRequest) -> AWSResponse:
        raise getattr(botocore.exceptions, name)(endpoint_url=URL, error="cut")

    return fail


def lost(name: str) -> Answer:
    """The transport's error of that name, after moto carried the request out."""

    def carry_out_and_fail(request: AWSPreparedRequest) -> AWSResponse:
        assert botocore_stubber("before-send", request).status_code < 300
        return broken(name)(request)

    return carry_out_and_fail
