"""The simulator behind boto3 in this process, beside moto's `mock_aws`: a hook in botocore."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore import handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from .calls import Call
from .faults import Manner
from .gate import NoAnswerError, pass_through
from .hosting.runtime import SERVICE, Asked
from .roles import account_of
from .wire import Answer

if TYPE_CHECKING:
    from .simulator import SageMakerSimulator

_NOWHERE = "http://answered.invalid/"


class Hook:
    """Answers what goes to SageMaker, and gives every service its faults."""

    def __init__(self, simulator: "SageMakerSimulator") -> None:
        self.simulator = simulator
        self.is_on = True

    def __call__(self, event_name: str, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """Handle `before-send.SERVICE.OPERATION`."""
        if not self.is_on or self.simulator.closed or self._is_our_own(request):
            return None
        service, operation = event_name.split(".", 2)[1:]
        access_key, region = _scope(request)
        token = _text(request.headers.get("X-Amz-Security-Token")) or None
        call = Call(service, operation, account_of(access_key), region, {}, access_key, token)
        url = request.url
        try:
            answer = pass_through(
                self.simulator,
                call,
                _body(request),
                lambda: _ask_moto(request),
                has_body=request.method != "HEAD",
                asked=_asked(request) if service == SERVICE else None,
            )
        except NoAnswerError as broken:
            error = ReadTimeoutError if broken.fault.manner is Manner.SILENCE else ConnectionClosedError
            raise error(endpoint_url=url) from broken
        if answer is None:
            return None
        # All handlers are asked, moto's too, and the first answer counts: moto must not do it a second time.
        request.url = _NOWHERE
        status, headers, content = answer
        return AWSResponse(url, status, headers, _Raw(content))

    def _is_our_own(self, request: AWSPreparedRequest) -> bool:
        from .simulator import USER_AGENT

        return USER_AGENT in _text(request.headers.get("User-Agent"))


@contextmanager
def in_process(simulator: "SageMakerSimulator") -> Iterator[None]:
    """Answer the clients that are made from now on, of the default session and of new ones."""
    hook = Hook(simulator)
    entry = ("before-send", hook, handlers.REGISTER_FIRST)
    handlers.BUILTIN_HANDLERS.append(entry)
    default = boto3.DEFAULT_SESSION
    if default is not None:
        default.events.register_first("before-send", hook)
    try:
        yield
    finally:
        handlers.BUILTIN_HANDLERS.remove(entry)
        hook.is_on = False
        if default is not None:
            default.events.unregister("before-send", hook)


def install(simulator: "SageMakerSimulator", session: Any) -> None:
    """Answer the clients one boto3 session makes from now on."""
    session.events.register_first("before-send", Hook(simulator))


class _Raw(BytesIO):
    """A body as urllib3 hands it over."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        while chunk := self.read(1 << 16):
            yield chunk


def _ask_moto(request: AWSPreparedRequest) -> Answer | None:
    from moto.core.models import botocore_stubber

    if not botocore_stubber.enabled:
        return None
    response = botocore_stubber.process_request(request)
    if response is None:
        return None
    status, headers, body = response
    return status, dict(headers), body.encode() if isinstance(body, str) else body


def _scope(request: AWSPreparedRequest) -> tuple[str | None, str]:
    """Return access key and region from the signature."""
    words = _text(request.headers.get("Authorization")).partition("Credential=")[2].split(",")[0].split("/")
    return (words[0], words[2]) if len(words) > 3 else (None, "us-east-1")


def _body(request: AWSPreparedRequest) -> bytes:
    body = request.body
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray) else b""


def _asked(request: AWSPreparedRequest) -> Asked:
    """Return a request to the runtime API; its body may be a file."""
    body = request.body
    content = body.read() if hasattr(body, "read") else _body(request)
    headers = {name: _text(value) for name, value in request.headers.items()}
    return Asked(urlsplit(request.url).path, headers, content)


def _text(header: str | bytes | None) -> str:
    return header.decode() if isinstance(header, bytes) else header or ""
