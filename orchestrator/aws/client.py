"""The one door to AWS: sessions, retries, time limits, and the SDK's errors turned into ours.

boto3 is imported here and nowhere else, and only when a client is made, so that whatever needs no AWS does without it.
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
"""Of one request, the first included. The SDK's three are over in 0.15 s, which a service that restarts outlasts."""
ATTEMPTS_WHEN_LOST = 3
"""Of a request that makes something, when an attempt may have been carried out: then it is better to look."""

_MAKES = ("Create", "Execute", "Start", "Invoke")
_REPEATABLE_SERVICES = {"s3"}  # its names are hashes of content, or the put is conditional
_REGION = re.compile(r"\b[a-z]{2,3}(?:-[a-z]+)+-\d+\b")


class Aws:
    """A session of one account and region. Makes no call until it is used."""

    def __init__(self, region: str | None = None) -> None:
        self._wanted_region = region
        self._lock = threading.RLock()  # making a client asks for the region, which asks for the session
        self._boto_session: Any = None
        self._clients: dict[str, Any] = {}
        self._account_id = ""

    @property
    def region(self) -> str:
        """The region of every call; raises CredentialsError when none is configured."""
        # AWS_REGION is what every SDK but this one reads.
        region = self._wanted_region or os.environ.get(REGION_VARIABLE) or self._session.region_name
        if not region:
            raise error_for(Failure(("NoRegionError",), ""), "talk to AWS")
        return str(region)

    def client(self, service: str) -> Any:  # made by boto3 from the service's model
        """Return the client of a service, the same one each time; safe to use from several threads."""
        session = self._session
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(session, service)
            return self._clients[service]

    def account_id(self) -> str:
        """Return the twelve digits of the account that is signed in, asked for once."""
        if not self._account_id:
            with calling("find out which account is signed in"):
                self._account_id = str(self.client("sts").get_caller_identity()["Account"])
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
                if _failure_of(error) is not None:  # some of the SDK's own errors are ValueErrors too
                    raise
                failure = Failure(("InvalidEndpointConfigurationError",), str(error), service=service)
                raise error_for(failure, f"reach the service {service}") from error


@contextmanager
def calling(doing: str, *, not_found: str = "") -> Iterator[None]:
    """Turn the SDK's errors inside the block into ours: "Could not `doing`: cause", with the next command.

    `not_found` is the command to type when what the block asks for is not there.
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
        session.region_name  # noqa: B018  (reads the configuration, so that what is wrong with it shows here)
        session.events.register("needs-retry.*.*", _mind_lost_answers)
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


def _mind_lost_answers(
    *,
    attempts: int,
    operation: Any,
    response: Any,
    caught_exception: Any,
    request_dict: Any,
    **_rest: Any,
) -> bool | None:
    """Remember that an attempt of a request that makes something may have been carried out, and soon end the attempts.

    The SDK asks its handlers after each attempt; False ends the attempts, None leaves it to the SDK.
    """
    context = request_dict["context"]
    service = operation.service_model.service_name
    context["called"] = service, operation.name, context.get("client_region") or ""
    if _makes_something(service, operation.name) and _may_have_been_done(response, caught_exception):
        context["answer_lost"] = True
    if response is not None:
        response[1].setdefault("ResponseMetadata", {})["Called"] = _call_of(context)
    return False if context.get("answer_lost") and attempts >= ATTEMPTS_WHEN_LOST else None


def _makes_something(service: str, operation: str) -> bool:
    return service not in _REPEATABLE_SERVICES and operation.startswith(_MAKES)


def _may_have_been_done(response: Any, error: Exception | None) -> bool:
    from botocore.exceptions import ConnectionError as NotConnectedError

    if response is None:
        return not isinstance(error, NotConnectedError)
    status: int = response[0].status_code
    return status >= 500  # noqa: PLR2004  (HTTP's own border)


def _name_the_call(*, exception: Exception, context: dict[str, Any], **_rest: Any) -> None:
    """Note on an exception of the transport which call it ended."""
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
    """Return what an SDK error says, or None for an error of somebody else."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        return _refusal(error)
    if isinstance(error, ResponseParserError):  # no error of the SDK's own tree
        return Failure(("ResponseParserError",), "")
    if not isinstance(error, BotoCoreError):
        return None
    names = tuple(kind.__name__ for kind in type(error).__mro__)
    region = _REGION.search(str(error))
    if names[0] == "EndpointConnectionError" and region and not _is_region(region[0]):
        names = ("UnknownRegion",)
    call = getattr(error, "aws_call", {})
    return Failure(names, str(error), **{**call, "region": region[0] if region else call.get("region", "")})


def _refusal(error: Any) -> Failure:  # botocore's ClientError
    said, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode", 0))
    call = about.get("Called", {"operation": error.operation_name})
    headers = about.get("HTTPHeaders", {})
    elsewhere = said.get("Region") or said.get("BucketRegion") or headers.get("x-amz-bucket-region")
    code = str(said.get("Code", status))
    call = {**call, "region": elsewhere or call.get("region", "")}
    return Failure((code, str(status)), str(said.get("Message", "")), status, **call)


def _is_region(name: str) -> bool:
    import boto3

    session = boto3.Session()
    partitions = session.get_available_partitions()
    return any(name in session.get_available_regions("s3", partition) for partition in partitions)
