"""Access to AWS: sessions, retries, timeouts, and the SDK's errors turned into ours.

boto3 is imported in this module alone, and only when a client is created: commands that need no AWS do not need it.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator import __version__
from orchestrator.aws.errors import Failure, error_for

REGION_VARIABLE = "AWS_REGION"

ATTEMPTS = 8
"""Attempts at one request, the first included. The SDK's default of three ends after 0.15 s: too soon for a restart."""
ATTEMPTS_WHEN_LOST = 3
"""Attempts at a request that creates something, once one of them may have succeeded: then it is better to look."""

_CREATING = ("Create", "Execute", "Start", "Invoke")
_REPEATABLE_SERVICES = {"s3"}  # its names are hashes of content, or the put is conditional
_REGION = re.compile(r"\b[a-z]{2,3}(?:-[a-z]+)+-\d+\b")


class Aws:
    """A session of one account and region. Makes no call until it is used."""

    def __init__(self, region: str | None = None) -> None:
        self._wanted_region = region
        self._lock = threading.RLock()  # creating a client reads the region, which reads the session
        self._boto_session: Any = None
        self._clients: dict[str, Any] = {}
        self._account_id = ""

    @property
    def region(self) -> str:
        """The region of every call; raises CredentialsError when none is configured."""
        # Every AWS SDK except boto3 reads AWS_REGION.
        region = self._wanted_region or os.environ.get(REGION_VARIABLE) or self._session.region_name
        if not region:
            raise error_for(Failure(("NoRegionError",), ""), "talk to AWS")
        return str(region)

    def client(self, service: str) -> Any:  # made by boto3 from the service's model
        """Return the client of a service, the same one each time. Thread-safe."""
        session = self._session
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(session, service)
            return self._clients[service]

    def account_id(self) -> str:
        """Return the id of the account that is signed in, twelve digits; AWS is asked once."""
        if not self._account_id:
            with calling("find out which account is signed in"):
                identity = self.client("sts").get_caller_identity()
            self._account_id = str(identity["Account"])
        return self._account_id

    @property
    def _session(self) -> Any:  # boto3.Session
        with self._lock:
            if self._boto_session is None:
                self._boto_session = _new_session()
            return self._boto_session

    def _new_client(self, session: Any, service: str) -> Any:
        with calling(f"reach the service {service}"):
            try:
                return session.client(service, region_name=self.region, config=_config())
            except ValueError as error:
                if _failure_of(error) is not None:  # an SDK error that is a ValueError too
                    raise
                failure = Failure(("InvalidEndpointConfigurationError",), str(error), service=service)
                raise error_for(failure, f"reach the service {service}") from error


@contextmanager
def calling(doing: str, *, not_found: str = "") -> Iterator[None]:
    """Turn the SDK's errors inside the block into ours: "Could not `doing`: cause", with the next command.

    `not_found` is the next command when what the block asks for does not exist.
    """
    try:
        yield
    except Exception as error:
        failure = _failure_of(error)
        if failure is None:
            raise
        raise error_for(failure, doing, not_found=not_found) from error


def _new_session() -> Any:  # boto3.Session
    with calling("read the AWS configuration"):
        import boto3

        session = boto3.Session()
        session.region_name  # noqa: B018  (reads the configuration, so that an invalid one fails here)
        session.events.register("needs-retry.*.*", _limit_attempts)
        session.events.register("after-call-error.*.*", _name_the_call)
        return session


def _config() -> Any:  # botocore.config.Config
    from botocore.config import Config

    return Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=5,  # seconds
        read_timeout=60,
        tcp_keepalive=True,  # home routers and NAT gateways forget idle connections within minutes
        max_pool_connections=20,  # more than a store has threads
        user_agent_extra=f"orchestrator/{__version__}",
    )


def _limit_attempts(
    *,
    attempts: int,
    operation: Any,
    response: Any,
    caught_exception: Any,
    request_dict: Any,
    **_rest: Any,
) -> bool | None:
    """Note that an attempt to create something may have succeeded without an answer, and end its retries early.

    The SDK calls its handlers after each attempt; False ends the attempts, None leaves the decision to the SDK.
    """
    context = request_dict["context"]
    service = operation.service_model.service_name
    region = context.get("client_region") or ""
    context["called"] = service, operation.name, region
    if _creates(service, operation.name) and _may_have_succeeded(response, caught_exception):
        context["answer_lost"] = True
    if response is not None:
        response[1].setdefault("ResponseMetadata", {})["Called"] = _call_of(context)
    if context.get("answer_lost") and attempts >= ATTEMPTS_WHEN_LOST:
        return False
    return None


def _creates(service: str, operation: str) -> bool:
    return service not in _REPEATABLE_SERVICES and operation.startswith(_CREATING)


def _may_have_succeeded(response: Any, error: Exception | None) -> bool:
    """Return whether the service may have done what an attempt asked for: not when it was never reached."""
    from botocore.exceptions import ConnectionError as NotConnectedError

    if response is None:
        return not isinstance(error, NotConnectedError)
    status: int = response[0].status_code
    return status >= 500  # noqa: PLR2004  (HTTP: an error of the server)


def _name_the_call(*, exception: Exception, context: dict[str, Any], **_rest: Any) -> None:
    """Note on an exception of the transport during which call it was raised."""
    exception.aws_call = _call_of(context)  # type: ignore[attr-defined]


def _call_of(context: dict[str, Any]) -> dict[str, Any]:
    service, operation, region = context.get("called", ("", "", ""))
    return {
        "service": service,
        "operation": operation,
        "region": region,
        "answer_lost": context.get("answer_lost", False),
    }


def _failure_of(error: Exception) -> Failure | None:
    """Return the content of an SDK error, or None for any other error."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        return _failure_of_answer(error)
    if isinstance(error, ResponseParserError):  # not a BotoCoreError
        return Failure(("ResponseParserError",), "")
    if not isinstance(error, BotoCoreError):
        return None
    names = tuple(kind.__name__ for kind in type(error).__mro__)
    message = str(error)
    call = dict(getattr(error, "aws_call", {}))
    region = _REGION.search(message)
    if region is not None:
        call["region"] = region[0]
        if names[0] == "EndpointConnectionError" and not _is_region(region[0]):
            names = ("UnknownRegion",)
    return Failure(names, message, **call)


def _failure_of_answer(error: Any) -> Failure:  # botocore's ClientError
    answer = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    code = str(answer.get("Code", status))
    message = str(answer.get("Message", ""))
    call = dict(metadata.get("Called", {"operation": error.operation_name}))
    other_region = answer.get("Region") or answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    if other_region:
        call["region"] = other_region
    return Failure((code, str(status)), message, status, **call)


def _is_region(name: str) -> bool:
    import boto3

    session = boto3.Session()
    partitions = session.get_available_partitions()
    return any(name in session.get_available_regions("s3", partition) for partition in partitions)
