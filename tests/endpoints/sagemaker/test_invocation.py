"""Requests to an endpoint: at once, to components, and through the bucket."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from orchestrator.aws.errors import Failure, error_for
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.endpoints.sagemaker.names import adapter_prefix, base_component
from orchestrator.errors import EndpointError
from tests.endpoints.sagemaker.deployments import ACCOUNT, deployment
from tests.endpoints.sagemaker.service import Service
from tests.faults.wire import Wire, response

HOUR = 3600.0
FAILURE = f"s3://{ACCOUNT.bucket}/invocations/failures/dogs/1.out"
ANSWER = f"s3://{ACCOUNT.bucket}/invocations/answers/dogs/1.out"


@pytest.fixture
def called(host: SageMakerHost, publish: Callable[..., Any]) -> Callable[[Mode], Wire]:
    """Deploy an endpoint and return the wire of the runtime API."""

    def call(mode: Mode) -> Wire:
        publish("dog")
        publish("cat")
        host.deploy(host.plan(deployment(mode, adapters=("dog", "cat"))))
        host.wait_until_in_service("dogs", HOUR)
        return Wire(host._aws.client("sagemaker-runtime"))

    return call


def asked(*adapters: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": "a dog", "adapters": list(adapters), **fields}).encode()


@pytest.mark.parametrize(
    ("body", "called_component"),
    [
        (asked(), "base"),
        (asked({"name": "dog", "weight": 0.8}), "dog"),
        (asked({"name": "dog"}, {"name": "cat"}), "base"),
        (asked("cat"), "cat"),
        (asked(embeddings=["dog"]), "dog"),
        (b"no json", "base"),
        (b"[1]", "base"),
        (asked({"name": 1}), "base"),
    ],
)
def test_a_component_is_called_by_what_the_request_names(
    host: SageMakerHost, called: Callable[[Mode], Wire], body: bytes, called_component: str
) -> None:
    wire = called(Mode.COMPONENTS)
    wire.answer("InvokeEndpoint", lambda _: response(200, b"image", **{"content-type": "image/png"}))
    answer = host.invoke("dogs", body, "image/png")
    wire.require_used()
    assert (answer.content, answer.media_type) == (b"image", "image/png")
    (request,) = wire.requests
    component = request.headers["X-Amzn-SageMaker-Inference-Component"].decode()
    expected = base_component("dogs") if called_component == "base" else adapter_prefix("dogs", called_component)
    assert component.startswith(expected)
    for name in ("dog", "cat"):
        assert f'"{name}"'.encode() not in request.body, "the server knows components, and not our names"


def test_an_answer_calls_adapters_by_their_own_names(host: SageMakerHost, called: Callable[[Mode], Wire]) -> None:
    wire = called(Mode.COMPONENTS)

    def told(request: Any) -> Any:
        uses = json.loads(request.body)["adapters"]
        return response(200, json.dumps({"adapters": uses}), **{"content-type": "application/json"})

    wire.answer("InvokeEndpoint", told)
    uses = [{"name": "dog", "weight": 0.5}, {"name": "cat", "weight": 1}]
    answer = host.invoke("dogs", asked(*uses), "application/json")
    assert json.loads(answer.content)["adapters"] == uses
    wire.require_used()


def test_an_adapter_that_an_endpoint_lacks_is_named(host: SageMakerHost, called: Callable[[Mode], Wire]) -> None:
    called(Mode.COMPONENTS)
    with pytest.raises(EndpointError, match='has no adapter "bird"'):
        host.invoke("dogs", asked({"name": "bird"}), "image/png")


@pytest.mark.parametrize("size", [100, 200_000])
def test_an_answer_through_the_bucket_is_waited_for(
    host: SageMakerHost, service: Service, called: Callable[[Mode], Wire], size: int
) -> None:
    wire = called(Mode.ASYNC)
    places = {"x-amzn-sagemaker-outputlocation": ANSWER, "x-amzn-sagemaker-failurelocation": FAILURE}
    wire.answer("InvokeEndpointAsync", lambda _: response(202, b"{}", **places))
    began = service.now
    _when(host, service, ANSWER, b"image")
    answer = host.invoke("dogs", asked(padding="x" * size), "image/png")
    assert (answer.content, answer.media_type) == (b"image", "image/png")
    assert service.now > began
    through_the_bucket = "X-Amzn-SageMaker-InputLocation" in wire.requests[0].headers
    assert through_the_bucket is (size > 128_000)


def test_a_failure_that_lies_in_the_bucket_is_told(
    host: SageMakerHost, service: Service, called: Callable[[Mode], Wire]
) -> None:
    wire = called(Mode.ASYNC)
    places = {"x-amzn-sagemaker-outputlocation": ANSWER, "x-amzn-sagemaker-failurelocation": FAILURE}
    wire.answer("InvokeEndpointAsync", lambda _: response(202, b"{}", **places))
    _when(host, service, FAILURE, b'{"error": {"message": "guidance is too large", "code": 422}}')
    with pytest.raises(EndpointError, match="could not answer: guidance is too large"):
        host.invoke("dogs", asked(), "image/png")


def test_nobody_waits_for_ever(host: SageMakerHost, called: Callable[[Mode], Wire]) -> None:
    wire = called(Mode.ASYNC)
    wire.answer("InvokeEndpointAsync", lambda _: response(202, b"{}", **{"x-amzn-sagemaker-outputlocation": ANSWER}))
    with pytest.raises(EndpointError, match=f"not answered for 40 minutes; it will in {ANSWER}"):
        host.invoke("dogs", asked(), "image/png")


def _when(host: SageMakerHost, service: Service, uri: str, content: bytes) -> None:
    """Let an object come into the bucket when somebody waits."""
    sleep = host._sleep

    def write_and_sleep(seconds: float) -> None:
        sleep(seconds)
        key = uri.removeprefix(f"s3://{ACCOUNT.bucket}/")
        boto3.client("s3").put_object(Bucket=ACCOUNT.bucket, Key=key, Body=content)

    host._sleep = write_and_sleep


@pytest.mark.parametrize(
    ("original", "says", "is_busy"),
    [
        ("client error (422) from primary with message", "does not accept the request", False),
        ("client error (429) from primary with message", "too many images waiting", True),
        ("server error (503) from primary with message", "takes no requests now", True),
        ("server error (500) from primary with message", "the server failed", False),
    ],
)
def test_what_a_server_refuses_is_told_in_its_own_words(
    host: SageMakerHost, called: Callable[[Mode], Wire], original: str, says: str, is_busy: bool
) -> None:
    wire = called(Mode.REALTIME)
    wire.answer("InvokeEndpoint", wire.refusal(424, "ModelError", f'Received {original} "steps are too many".'))
    with pytest.raises(EndpointError, match=f"{says}.*steps are too many") as caught:
        host.invoke("dogs", asked(), "image/png")
    assert caught.value.next_step
    assert (caught.value.retry_after is not None) is is_busy
    assert wire.count("InvokeEndpoint") == 1


@pytest.mark.parametrize(
    ("code", "says", "is_busy"),
    [
        ("ThrottlingException", "Rate exceeded", True),
        ("ModelNotReadyException", "Model is not ready", True),
        ("ValidationError", "Inference component has no capacity to process this request", True),
        ("ValidationError", "Endpoint dogs not found", False),
        ("AccessDeniedException", "no", False),
    ],
)
def test_a_service_that_is_busy_says_that_the_same_request_may_be_sent_again(
    code: str, says: str, is_busy: bool
) -> None:
    error = error_for(Failure((code, "400"), says, 400), "ask the endpoint dogs")
    assert (error.retry_after is not None) is is_busy


@pytest.mark.parametrize(("code", "is_busy"), [(429, True), (503, True), (422, False)])
def test_a_server_that_was_full_when_an_asynchronous_request_came_is_asked_again(
    host: SageMakerHost, service: Service, called: Callable[[Mode], Wire], code: int, is_busy: bool
) -> None:
    wire = called(Mode.ASYNC)
    places = {"x-amzn-sagemaker-outputlocation": ANSWER, "x-amzn-sagemaker-failurelocation": FAILURE}
    wire.answer("InvokeEndpointAsync", lambda _: response(202, b"{}", **places))
    told = {"error": {"message": "no", "code": code}}
    _when(host, service, FAILURE, json.dumps(told).encode())
    with pytest.raises(EndpointError) as caught:
        host.invoke("dogs", asked(), "image/png")
    assert (caught.value.retry_after is not None) is is_busy


@pytest.mark.parametrize("mode", Mode)
def test_what_an_endpoint_draws_with_changes_with_the_content_of_an_adapter(
    host: SageMakerHost, called: Callable[[Mode], Wire], publish: Callable[..., Any], mode: Mode
) -> None:
    called(mode)
    first = host.contents("dogs")
    assert set(first.adapters) == {"dog", "cat"}
    publish("dog", b"other weights")
    host.deploy(host.plan(deployment(mode, adapters=("dog", "cat"))))
    host.wait_until_in_service("dogs", HOUR)
    second = host.contents("dogs")
    assert second.adapters["dog"] != first.adapters["dog"]
    assert second.adapters["cat"] == first.adapters["cat"]
    assert second.base_model == first.base_model
