"""Deployments that nobody waited for, and endpoints that are changed from another machine than they were made on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import EndpointError
from orchestrator.resources import BUILTIN_MODEL
from tests.endpoints.sagemaker.deployments import deployment
from tests.endpoints.sagemaker.service import Service

HOUR = 3600.0
MakeHost = Callable[[], SageMakerHost]
Publish = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base model in a folder whose name no tag can hold."""
    named = tmp_path / "my model, v2 (sd & more)"
    shutil.copytree(BUILTIN_MODEL, named)
    return named


def up(host: SageMakerHost, **fields: object) -> None:
    host.deploy(host.plan(deployment(**fields)))  # type: ignore[arg-type]
    host.wait_until_in_service("dogs", HOUR)


def test_a_base_model_is_called_as_it_was_typed_and_updates_need_no_folder(
    host: SageMakerHost, make_host: MakeHost, service: Service, publish: Publish, folder: Path
) -> None:
    publish("dog")
    up(host, base_model=str(folder), instance_type="ml.g5.2xlarge")
    shutil.rmtree(folder)
    another = make_host()
    assert another.describe("dogs").base_model == str(folder)
    asked = another.deployment("dogs")
    assert (asked.base_model, asked.instance_type) == (str(folder), "ml.g5.2xlarge")
    (before,) = service.things["Model"].values()
    changed = asked.model_copy(update={"adapters": ("dog",)})
    another.deploy(another.plan(changed, keeps_base=True))
    described = another.wait_until_in_service("dogs", HOUR)
    assert (described.base_model, described.adapters) == (str(folder), ("dog",))
    assert described.instance_type == "ml.g5.2xlarge"
    (after,) = service.things["Model"].values()
    sources = "AdditionalModelDataSources"
    assert after["PrimaryContainer"][sources] == before["PrimaryContainer"][sources]


def test_an_adapter_for_another_base_model_is_refused_without_the_folder_too(
    host: SageMakerHost, publish: Publish, folder: Path
) -> None:
    publish("other", family="sdxl")
    up(host, base_model=str(folder))
    shutil.rmtree(folder)
    asked = host.deployment("dogs").model_copy(update={"adapters": ("other",)})
    with pytest.raises(EndpointError, match="Not every adapter"):
        host.plan(asked, keeps_base=True)


def test_the_same_model_by_another_path_is_renamed_and_not_started_again(
    host: SageMakerHost, service: Service, folder: Path, tmp_path: Path
) -> None:
    up(host, base_model=str(folder))
    elsewhere = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, elsewhere)
    service.calls.clear()
    up(host, base_model=str(elsewhere))
    assert "UpdateEndpoint" not in service.calls
    assert host.describe("dogs").base_model == str(elsewhere)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 4.0, 5.0, 7.0])
def test_who_waits_gets_the_adapters_whatever_comes_into_service_between_two_calls(
    host: SageMakerHost, service: Service, publish: Publish, seconds: float
) -> None:
    publish("dog")
    host.deploy(host.plan(deployment(Mode.COMPONENTS, adapters=("dog",))))
    service.seconds_per_call = seconds
    described = host.wait_until_in_service("dogs", HOUR)
    assert described.status is EndpointStatus.IN_SERVICE
    assert described.adapters == ("dog",)


def test_a_component_that_failed_keeps_no_endpoint_from_scaling_and_is_tried_again(
    host: SageMakerHost, service: Service, publish: Publish
) -> None:
    publish("dog")
    plan = host.plan(deployment(Mode.COMPONENTS, adapters=("dog",), most_instances=2))
    host.deploy(plan)
    service.sleep(HOUR)
    host.finish()
    service.sleep(HOUR)
    host.finish()
    (adapter,) = (
        one
        for one in service.things["InferenceComponent"].values()
        if "BaseInferenceComponentName" in one["Specification"]
    )
    adapter |= {"InferenceComponentStatus": "Failed", "FailureReason": "No space.", "until": None}
    (told,) = host.finish()
    assert (told.status, told.finished) == (EndpointStatus.FAILED, False)
    assert len(service.scaled) == 1
    host.deploy(plan)
    described = host.wait_until_in_service("dogs", HOUR)
    assert (described.status, described.finished) == (EndpointStatus.IN_SERVICE, True)


def test_an_endpoint_that_failed_before_it_served_goes_and_one_that_has_served_stays(
    host: SageMakerHost, service: Service
) -> None:
    up(host)
    host.deploy(host.plan(deployment(name="cats")))
    failed = {"EndpointStatus": "Failed", "FailureReason": "No ping.", "until": None}
    for endpoint in service.things["Endpoint"].values():
        endpoint.update(failed)
    service.sleep(2 * HOUR)
    assert host.collect() == []
    service.sleep(2 * HOUR)
    assert host.describe("cats").expired == "its deployment failed more than 3h ago"
    assert "endpoint cats" in host.collect()
    assert list(service.things["Endpoint"]) == ["dogs"]


def test_a_base_model_that_does_not_serve_yet_is_not_scaled(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment(Mode.COMPONENTS, most_instances=2)))
    service.sleep(HOUR)
    with pytest.raises(EndpointError, match="is not in service yet"):
        host.scale("dogs", 1, 2)
