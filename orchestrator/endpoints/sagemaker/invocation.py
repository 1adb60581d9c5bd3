"""Send a request to an endpoint and return its answer: at once, or through the bucket.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html and
API_runtime_InvokeEndpointAsync.html
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.endpoints.hosts import Answer
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.artifacts import ANSWER_SECONDS
from orchestrator.endpoints.sagemaker.hosted import COMPONENT, LIST, Hosted
from orchestrator.endpoints.sagemaker.names import adapter_prefix, base_component
from orchestrator.endpoints.sagemaker.tags import Record
from orchestrator.errors import EndpointError, MissingError
from orchestrator.storage import Store

_JSON = "application/json"
REQUESTS_PREFIX = "invocations/requests/"
"""Of asynchronous endpoints, in the bucket; they expire."""
_LARGEST_INLINE = 128_000
"""Bytes of a request that an asynchronous endpoint takes without the bucket."""
LARGEST_BYTES = 6_291_456
"""Of a request, by the service's own model."""
_WAITING_SECONDS = 2400.0
"""Longest wait for an answer: an instance has to start first, if there is none."""
_BUSY_CODES = (429, 503)
_BUSY = re.compile(r"error \((429|503)\)")
"""How the service says that a container answered with one of these."""
_BUSY_SECONDS = 10.0
_USES = ("adapters", "loras", "embeddings")
"""Fields of a body that name adapters."""


class Addressed(NamedTuple):
    """A request to an endpoint with components."""

    body: bytes
    """The body, in which adapters have the names of their components."""
    component: str
    """The component that it is sent to."""
    names: Mapping[str, str] = {}
    """By the names of components: those of their adapters."""

    def named_back(self, answer: Answer) -> Answer:
        """Return an answer in which adapters have their own names again; pictures name none."""
        if not answer.media_type.startswith(_JSON):
            return answer
        content = answer.content
        for component, adapter in self.names.items():
            content = content.replace(f'"{component}"'.encode(), json.dumps(adapter).encode())
        return answer._replace(content=content)


class Invoker:
    """Sends requests."""

    def __init__(
        self,
        aws: Aws,
        hosted: Hosted,
        store: Store,
        pause: Callable[[], float],
    ) -> None:
        self._aws = aws
        self._hosted = hosted
        self._store = store
        self._pause = pause

    def invoke(
        self,
        record: Record,
        body: bytes,
        accept: str,
    ) -> Answer:
        """Send a body and return the answer; raises EndpointError for one that the server refuses."""
        if len(body) > LARGEST_BYTES and record.mode is not Mode.ASYNC:
            raise EndpointError(
                f"The request has {len(body):,} bytes, and SageMaker takes {LARGEST_BYTES:,}. Nothing was sent.",
                next_step="send smaller pictures, or deploy with --mode async",
            )
        if record.mode is Mode.ASYNC:
            return self._through_the_bucket(record.name, body, accept)
        if record.mode is Mode.COMPONENTS:
            addressed = self._addressed(record.name, body)
            answer = self._at_once(
                record.name,
                addressed.body,
                accept,
                InferenceComponentName=addressed.component,
            )
            return addressed.named_back(answer)
        return self._at_once(record.name, body, accept)

    def _at_once(self, name: str, body: bytes, accept: str, **component: str) -> Answer:
        with calling(f"ask the endpoint {name}", not_found=LIST):
            answer = self._runtime.invoke_endpoint(
                EndpointName=name,
                Body=body,
                ContentType=_JSON,
                Accept=accept,
                **component,
            )
            content = answer["Body"].read()
        return Answer(content, answer.get("ContentType", accept))

    def _through_the_bucket(
        self,
        name: str,
        body: bytes,
        accept: str,
    ) -> Answer:
        """Send a request, wait for what comes of it, and return that."""
        asked: dict[str, Any] = {"Body": body}
        if len(body) > _LARGEST_INLINE:
            key = f"{REQUESTS_PREFIX}{name}/{sha256(body).hexdigest()}.json"
            self._store.put_json(key, _parsed(name, body))
            asked = {"InputLocation": self._store.uri(key)}
        with calling(f"ask the endpoint {name}", not_found=LIST):
            answer = self._runtime.invoke_endpoint_async(
                EndpointName=name,
                ContentType=_JSON,
                Accept=accept,
                InvocationTimeoutSeconds=ANSWER_SECONDS,
                **asked,
            )
        waited = 0.0
        while waited <= _WAITING_SECONDS:
            content = self._written(answer["OutputLocation"])
            if content is not None:
                return Answer(content, accept.partition(",")[0].partition(";")[0])
            failure = self._written(answer.get("FailureLocation", ""))
            if failure is not None:
                raise _refused(name, failure)
            waited += self._pause()
        minutes = _WAITING_SECONDS / 60
        raise EndpointError(
            f"The endpoint {name} has not answered for {minutes:.0f} minutes; it will in {answer['OutputLocation']}.",
            next_step=command("endpoints", "show", name),
        )

    def _written(self, uri: str) -> bytes | None:
        """Return what lies at a URI of the bucket; None while there is nothing."""
        if not uri:
            return None
        try:
            return self._store.get_bytes(self._store.name(uri))
        except MissingError:
            return None

    def _addressed(self, name: str, body: bytes) -> Addressed:
        """Return a body with the components of its adapters, and the one that is called: the adapter's, if it is one.

        SageMaker sees to it that the adapter which is called is loaded, and tells the server which it is.
        """
        base = base_component(name)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):  # the server says what is wrong with it
            return Addressed(body, base)
        if not isinstance(asked, dict):
            return Addressed(body, base)
        names: dict[str, str] = {}
        for field in _USES:
            uses = asked.get(field)
            if not isinstance(uses, list):  # the server says what is wrong with it, of each use too
                continue
            for number, use in enumerate(uses):
                adapter = use.get("name") if isinstance(use, dict) else use
                if not isinstance(adapter, str):
                    continue
                component = self._component_of(name, adapter)
                names[component] = adapter
                uses[number] = {**use, "name": component} if isinstance(use, dict) else component
        called = base
        if len(names) == 1:
            (called,) = names
        return Addressed(json.dumps(asked).encode(), called, names)

    def _component_of(self, name: str, adapter: str) -> str:
        """Return the newest component of an adapter that is in service; raises EndpointError without one."""
        found = self._hosted.listed(
            COMPONENT,
            EndpointNameEquals=name,
            NameContains=adapter_prefix(name, adapter),
            StatusEquals="InService",
        )
        names = [one.name for one in found]
        if not names:
            raise EndpointError(
                f'The endpoint {name} has no adapter "{adapter}" that is in service.',
                next_step=command("endpoints", "show", name),
            )
        return names[-1]

    @property
    def _runtime(self) -> Any:
        return self._aws.client("sagemaker-runtime")


def _parsed(name: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EndpointError(
            f"The request to the endpoint {name} is not JSON. Nothing was sent.",
            next_step=command("generate", "--help"),
        ) from error


def _refused(name: str, failure: bytes) -> EndpointError:
    """Return the error for a request that an asynchronous endpoint could not answer, by the object that says why."""
    text = failure.decode(errors="replace")
    is_busy = _BUSY.search(text) is not None
    with suppress(KeyError, TypeError, ValueError):  # the server's own words
        said = json.loads(text)["error"]
        text = said["message"]
        is_busy = said["code"] in _BUSY_CODES
    error = EndpointError(
        f"The endpoint {name} could not answer: {text[:600]}",
        next_step=command("endpoints", "logs", name),
    )
    if is_busy:
        error.retry_after = _BUSY_SECONDS
    return error
