"""The runtime API: what clients ask of an endpoint, over to its container and back.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Runtime.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sagemaker_simulator.calls import Call, RecordedCall
from sagemaker_simulator.errors import ServiceError
from sagemaker_simulator.validation import service_model, shape_faults
from sagemaker_simulator.wire import Answer

from .records import Component, Endpoint
from .server import BrokenError, ModelServer, Reply

if TYPE_CHECKING:
    from .hosting import Hosting

SERVICE = "sagemaker-runtime"
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
ALIAS_HEADER = "X-Amzn-SageMaker-Adapter-Alias"
_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_PASSED_ON = ("Content-Type", "Accept", _ATTRIBUTES, "X-Amzn-SageMaker-Inference-Id")
"""The headers of a client that reach the container; the service strips all others."""
_PATHS = {
    "invocations": "InvokeEndpoint",
    "async-invocations": "InvokeEndpointAsync",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
}
_PATH = re.compile(rf"/endpoints/([^/]+)/({'|'.join(_PATHS)})")


@dataclass(frozen=True)
class Asked:
    """A request to the runtime API as it came over the wire."""

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class ModelError(ServiceError):
    """The container answered with an error, or not at all."""

    def __init__(self, message: str, status: int, original: str, log: str) -> None:
        super().__init__("ModelError", message, 424)
        self.members: dict[str, Any] = {"OriginalStatusCode": status, "OriginalMessage": original, "LogStreamArn": log}


def operation_of(path: str) -> str | None:
    """Return the operation of the runtime API that a path stands for."""
    found = _PATH.fullmatch(path)
    return _PATHS[found[2]] if found else None


def refused(message: str) -> ServiceError:
    return ServiceError("ValidationError", message)


class Runtime:
    """Answers the requests to endpoints."""

    def __init__(self, hosting: "Hosting") -> None:
        self.hosting = hosting

    def answer(self, call: Call, asked: Asked, recorded: RecordedCall) -> Answer:
        """Carry out a request and return its answer as it goes over the wire; raises ServiceError."""
        if len(asked.body) > self.hosting.payload_bytes:
            raise ServiceError("413", f"HTTP content length exceeded {self.hosting.payload_bytes} bytes.", 413)
        # The model's limit for the body of InvokeEndpoint is not the service's.
        body = asked.body if call.operation == "InvokeEndpointAsync" else b""
        if faults := shape_faults(SERVICE, call.operation, {**call.parameters, "Body": body}):
            noun = "error" if len(faults) == 1 else "errors"
            raise refused(f"{len(faults)} validation {noun} detected: {'; '.join(faults)}")
        endpoint = self._endpoint(call)
        if call.operation == "InvokeEndpointAsync":
            answer = self.hosting.backlog(endpoint).accept(call.parameters, asked)
        elif endpoint.config is not None and endpoint.config.is_async:
            raise refused(f"Endpoint {endpoint.name} is asynchronous: {call.operation} is not supported.")
        else:
            answer = self._invoke(call, endpoint, asked)
        recorded.committed = True
        return answer

    def _endpoint(self, call: Call) -> Endpoint:
        name = call.parameters["EndpointName"]
        endpoint = self.hosting.endpoints(call).get(name.lower())
        if not isinstance(endpoint, Endpoint) or endpoint.config is None or endpoint.status == "Deleting":
            raise refused(f"Endpoint {name} of account {call.account} not found.")
        return endpoint

    def _invoke(self, call: Call, endpoint: Endpoint, asked: Asked) -> Answer:
        parameters = call.parameters
        if "TargetModel" in parameters:
            raise refused(f"TargetModel is not supported: endpoint {endpoint.name} is not a multi-model endpoint.")
        headers = passed_on(asked.headers)
        server, variant, component = self._target(endpoint, parameters)
        if component is not None:
            headers[ADAPTER_HEADER] = component.name
            headers[ALIAS_HEADER] = component.name
        streams = call.operation == "InvokeEndpointWithResponseStream"
        seconds = self.hosting.streaming_seconds if streams else self.hosting.invocation_seconds
        reply = self.ask(endpoint, server, variant, headers, asked.body, seconds)
        if streams:
            return _streamed(reply, variant)
        return reply.status, _headers_back(reply, variant), reply.content

    def _target(
        self, endpoint: Endpoint, parameters: dict[str, Any]
    ) -> tuple[ModelServer | None, str, Component | None]:
        """Return the container that a request goes to, its variant, and the adapter it is for."""
        wanted = parameters.get("InferenceComponentName")
        if endpoint.config is not None and endpoint.config.hosts_components:
            if wanted is None:
                raise refused(
                    "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                    "components. Please include Inference Component Name header or consider using SageMaker models."
                )
            return self.hosting.component_target(endpoint, wanted)
        if wanted is not None:
            raise refused(f"Inference Component {wanted} not found on endpoint {endpoint.name}.")
        variant = parameters.get("TargetVariant") or self._by_weight(endpoint)
        if variant not in {one.name for one in endpoint.variants}:
            raise refused(f"Variant {variant} not found for endpoint {endpoint.name}.")
        return self.hosting.drivers[endpoint.arn].servers.get(variant), variant, None

    def _by_weight(self, endpoint: Endpoint) -> str:
        """Return the variant whose turn it is: the one furthest behind its weight."""
        counts = self.hosting.invocations

        def behind(variant: Any) -> float:
            return float((counts[endpoint.arn, variant.name] + 1) / variant.weight)

        weighty = [one for one in endpoint.variants if one.weight > 0]
        if not weighty:
            raise refused(f"Endpoint {endpoint.name} has no variant with a weight.")
        chosen = min(weighty, key=behind)
        counts[endpoint.arn, chosen.name] += 1
        return chosen.name

    def ask(
        self,
        endpoint: Endpoint,
        server: ModelServer | None,
        variant: str,
        headers: Mapping[str, str],
        body: bytes,
        seconds: float,
    ) -> Reply:
        """Send a body to a container's /invocations and return its good answer; raises ServiceError."""
        if server is None or server.is_starting or (server.has_ended and not server.is_healthy):
            raise ServiceError("ServiceUnavailable", "The service is unavailable. Try your call again.", 503)
        try:
            reply = self._reply(endpoint, server, headers, body, seconds)
        except ModelError as error:
            self.hosting.metrics.answered(endpoint, variant, int(error.members["OriginalStatusCode"] or 500))
            raise
        self.hosting.metrics.answered(endpoint, variant, reply.status)
        return reply

    def _reply(
        self, endpoint: Endpoint, server: ModelServer, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Reply:
        try:
            reply = server.invoke("/invocations", headers, body, seconds)
        except TimeoutError:
            words = (
                "Your invocation timed out while waiting for a response from container primary. Review the latency "
                "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
            )
            raise _model_error(endpoint, server, 0, words) from None
        except BrokenError:
            raise _model_error(endpoint, server, 503, "Service Unavailable") from None
        if not 200 <= reply.status < 300:
            raise _model_error(endpoint, server, reply.status, reply.content.decode(errors="replace"))
        if len(reply.content) > self.hosting.payload_bytes:
            raise _model_error(endpoint, server, reply.status, None)
        return reply


def _model_error(endpoint: Endpoint, server: ModelServer, status: int, words: str | None) -> ModelError:
    who = "client" if 400 <= status < 500 else "server"
    group = server.order.log_group
    said = "and could not load the entire response body" if words is None else f'with message "{words}"'
    message = (
        f"Received {who} error ({status}) from primary {said}. See "
        f"https://{endpoint.region}.console.aws.amazon.com/cloudwatch/home?region={endpoint.region}"
        f"#logEventViewer:group={group} in account {endpoint.account} for more information."
    )
    log = f"arn:aws:logs:{endpoint.region}:{endpoint.account}:log-group:{group}"
    return ModelError(message, status, words or "", log)


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that reach the container."""
    given = {name.lower(): value for name, value in headers.items()}
    # Those of other operations than InvokeEndpoint have a prefix.
    prefixed = {name: given.get(f"x-amzn-sagemaker-{name.lower()}") for name in ("Content-Type", "Accept")}
    found = {name: given.get(name.lower()) for name in _PASSED_ON}
    merged = found | {name: value for name, value in prefixed.items() if value is not None}
    return {name: value for name, value in merged.items() if value is not None}


def _headers_back(reply: Reply, variant: str) -> dict[str, str]:
    headers = {"x-Amzn-Invoked-Production-Variant": variant}
    if "content-type" in reply.headers:
        headers["Content-Type"] = reply.headers["content-type"]
    if _ATTRIBUTES.lower() in reply.headers:
        headers[_ATTRIBUTES] = reply.headers[_ATTRIBUTES.lower()]
    return headers


def _streamed(reply: Reply, variant: str) -> Answer:
    """Return an answer as an event stream; its parts come when all is there."""
    from .events import payload_part

    headers = {
        "Content-Type": "application/vnd.amazon.eventstream",
        "x-Amzn-Invoked-Production-Variant": variant,
        "X-Amzn-SageMaker-Content-Type": reply.headers.get("content-type", "application/octet-stream"),
    }
    size = 1 << 16
    starts = range(0, len(reply.content), size)
    return 200, headers, b"".join(payload_part(reply.content[start : start + size]) for start in starts)


def parameters_of(operation: str, asked: Asked) -> dict[str, Any]:
    """Return the parameters of a request, out of its path and headers; the body is not one of them."""
    found = _PATH.fullmatch(asked.path)
    given = {name.lower(): value for name, value in asked.headers.items()}
    parameters: dict[str, Any] = {"EndpointName": unquote(found[1]) if found else ""}
    for name, shape in service_model(SERVICE).operation_model(operation).input_shape.members.items():
        header = shape.serialization.get("name", "").lower()
        if shape.serialization.get("location") == "header" and header in given:
            value = given[header]
            parameters[name] = int(value) if shape.type_name == "integer" and value.isdigit() else value
    return parameters


def failure(error: ServiceError) -> Answer:
    """Return an error as the API's protocol has it."""
    members = error.members if isinstance(error, ModelError) else {}
    body = json.dumps({"Message": error.message, "message": error.message, **members}).encode()
    headers = {"Content-Type": "application/json"}
    if not error.code.isdigit():  # what the front end refuses by itself has no name
        headers["x-amzn-ErrorType"] = error.code
    return error.status, headers, body
