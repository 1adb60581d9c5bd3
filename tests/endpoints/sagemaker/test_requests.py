"""The requests of a deployment as values: what SageMaker's own model says to them, and what they depend on."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from sagemaker_simulator.validation import validate

from orchestrator.contract.digest import hash_files
from orchestrator.contract.serving import EVERYWHERE, ServerOrder
from orchestrator.endpoints.deployment import Lease
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker import scaling
from orchestrator.endpoints.sagemaker.artifacts import ARCHIVE_FILE, ServedAdapter, archive
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.endpoints.sagemaker.names import LONGEST, adapter_component, base_component, hashed_name
from orchestrator.endpoints.sagemaker.requests import AMI_VERSION, update_request
from orchestrator.endpoints.sagemaker.tags import Record, read_record
from orchestrator.errors import EndpointError, SpecError
from orchestrator.resources import CONTAINERS
from orchestrator.settings import AwsSettings, Settings
from tests.endpoints.sagemaker.deployments import ACCOUNT, deployment

Publish = Callable[..., Path]


@pytest.fixture
def planning(host: SageMakerHost, publish: Publish) -> SageMakerHost:
    """A host with an adapter to plan with."""
    publish("dog")
    return host


@pytest.mark.parametrize("mode", list(Mode))
def test_every_request_is_one_that_the_services_model_allows(planning: SageMakerHost, mode: Mode) -> None:
    plan = planning.plan(deployment(mode, adapters=("dog",), most_instances=3, lease=Lease(ttl_seconds=3600)))
    validate("CreateModel", plan.model)
    validate("CreateEndpointConfig", plan.config)
    validate("CreateEndpoint", plan.endpoint)
    for component in plan.blueprint.components:
        validate("CreateInferenceComponent", component)
    validate("UpdateEndpoint", update_request("dogs", plan.config["EndpointConfigName"], mode, scales=True))
    record = plan.record
    _check("application-autoscaling", "RegisterScalableTarget", scaling.range_request(record))
    _check("application-autoscaling", "PutScalingPolicy", scaling.tracking_request(record))
    _check("application-autoscaling", "PutScalingPolicy", scaling.wake_request(record))
    _check("cloudwatch", "PutMetricAlarm", scaling.wake_alarm_request(record, "arn:aws:autoscaling:x"))
    _check("cloudwatch", "PutMetricAlarm", scaling.error_alarm_request(record))


def _check(service: str, operation: str, request: dict[str, Any]) -> None:
    """Require that botocore's model knows every member of a request, and their enums."""
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    shape = model.operation_model(operation).input_shape
    assert ParamValidator().validate(request, shape).has_errors() is False
    assert set(request) <= set(shape.members)
    for name, value in request.items():
        enum = getattr(shape.members[name], "enum", None)
        assert not enum or value in enum, name


def test_nothing_is_fetched_by_the_container_and_everything_has_a_hash(planning: SageMakerHost) -> None:
    container = planning.plan(deployment(adapters=("dog",))).model["PrimaryContainer"]
    sources = [container["ModelDataSource"], *container["AdditionalModelDataSources"]]
    prefixes = [source["S3DataSource"]["S3Uri"] for source in sources]
    assert all(uri.startswith("s3://pictures/") and uri.endswith("/") for uri in prefixes)
    hashes = dict(pair.split("=") for pair in container["Environment"]["ORCHESTRATOR_INPUTS"].split())
    assert [f"{digest}/" for digest in hashes.values()] == [uri[-65:] for uri in prefixes]
    assert list(hashes) == ["model", "base_model", "code"]


def test_the_order_is_read_relative_to_the_folder_that_it_lies_in(planning: SageMakerHost) -> None:
    plan = planning.plan(deployment(adapters=("dog",), slots=5))
    path = plan.trees[0].sources["server.json"]
    order = ServerOrder.model_validate_json(path.read_bytes()).read_from(Path("/opt/ml/model"))
    assert order.adapters["dog"] == Path("/opt/ml/model/adapters/dog")
    assert str(order.base_folder) == "/opt/ml/model/../additional-model-data-sources/base_model"
    assert (order.slots, order.host, order.port, order.token) == (5, EVERYWHERE, 8080, None)
    assert "adapters/dog/adapter.json" in plan.trees[0].files


def test_names_follow_from_what_is_deployed_and_from_nothing_else(planning: SageMakerHost) -> None:
    def names(**fields: Any) -> tuple[str, str]:
        plan = planning.plan(deployment(adapters=("dog",), **fields))
        return plan.model["ModelName"], plan.config["EndpointConfigName"]

    first = names()
    assert names() == first
    assert names(lease=Lease(ttl_seconds=3600), most_instances=4) == first, "a lease restarts no instance"
    assert names(slots=3)[0] != first[0]
    assert names(instance_type="ml.g5.2xlarge")[0] == first[0]
    assert names(instance_type="ml.g5.2xlarge")[1] != first[1]


@pytest.mark.parametrize("name", ["d", "d" * 63, "a-" * 31 + "a"])
def test_names_fit_the_service_whatever_the_endpoints_name_is(name: str) -> None:
    for made in (hashed_name(name, "0" * 64), base_component(name), adapter_component(name, "ö dog_1!", "0" * 64)):
        assert len(made) <= LONGEST
        validate("DescribeInferenceComponent", {"InferenceComponentName": made})
        validate("DescribeEndpointConfig", {"EndpointConfigName": made})


def test_the_driver_of_the_instances_is_for_the_cuda_of_the_image() -> None:
    lines = (CONTAINERS / "inference" / "Dockerfile").read_text().splitlines()
    (cuda,) = [line for line in lines if line.startswith("ARG CUDA_IMAGE=")]
    assert cuda.startswith("ARG CUDA_IMAGE=nvidia/cuda:13."), "AMI_VERSION is for CUDA 13"
    assert AMI_VERSION.endswith("gpu-4-1")


def test_a_network_and_a_key_are_those_of_the_account(
    settings: Settings, planning: SageMakerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"subnets": ("subnet-1",), "security_groups": ("sg-1",), "kms_key_arn": "arn:aws:kms:eu-west-1:1:key/x"}
    _use(planning, ACCOUNT.model_copy(update=update), monkeypatch)
    plan = planning.plan(deployment(Mode.COMPONENTS))
    network = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert plan.model["VpcConfig"] == plan.config["VpcConfig"] == network
    assert "KmsKeyId" not in plan.config, "a built-in disk has a key of its own"


def _use(host: SageMakerHost, account: AwsSettings, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host, "_account", account)


def test_equal_adapters_become_equal_archives_with_plain_files_alone(tmp_path: Path, publish: Publish) -> None:
    folder = publish("dog")
    adapter = ServedAdapter("dog", folder, hash_files(folder))
    first = archive(adapter, tmp_path / "one").sources[ARCHIVE_FILE].read_bytes()
    (folder / "adapter.json").touch()
    second = archive(adapter, tmp_path / "two").sources[ARCHIVE_FILE].read_bytes()
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as members:
        found = {one.name: (one.isfile(), one.mtime, one.uid) for one in members}
    assert found == dict.fromkeys(adapter.files, (True, 0, 0))


def test_tags_say_all_that_a_list_needs() -> None:
    wanted = deployment(
        Mode.ASYNC, adapters=("a", "b"), most_instances=3, lease=Lease(idle_seconds=90, max_usd_per_day=12.5)
    )
    record = Record.of(wanted, "ada", "./a model", "b" * 64)
    tags = {tag["Key"]: tag["Value"] for tag in record.tags()}
    assert read_record(tags) == record
    finished = read_record(tags | {tag["Key"]: tag["Value"] for tag in record.finished_tags()})
    assert (record.is_finished, finished is not None and finished.is_finished) == (False, True)
    for key in tags:
        without = {name: value for name, value in tags.items() if name != key}
        assert read_record(without) is None, f"an endpoint without {key} is another program's"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"instance_type": "ml.m5.large"}, "has no GPU"),
        ({"instance_type": "ml.g5.2xlarge", "lease": Lease(max_usd_per_day=30)}, r"more than the \$30.00 a day"),
        ({"most_instances": 9, "lease": Lease(max_usd_per_day=100)}, "9 instances"),
        ({"base_model": "org/never-mirrored"}, "has no copy in the bucket"),
        ({"adapters": ("whole",)}, "is a whole model"),
        ({"adapters": ("large",)}, "and the base model is"),
        ({"adapters": ("dgo", "whole")}, 'There is no adapter "dgo"'),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_anything_is_created(
    planning: SageMakerHost, publish: Publish, service: Any, fields: dict[str, Any], says: str
) -> None:
    publish("whole", kind="full")
    publish("large", family="sdxl")
    with pytest.raises((SpecError, EndpointError)) as caught:
        planning.plan(deployment(**fields))
    assert re.search(says, caught.value.render())
    assert caught.value.next_step
    assert service.calls == []


def test_a_plan_says_what_it_costs_and_when_it_ends(planning: SageMakerHost) -> None:
    plan = planning.plan(deployment(most_instances=2, lease=Lease(ttl_seconds=7200, idle_seconds=1800)))
    facts = dict(plan.facts)
    assert "an hour" in facts["price"]
    assert "a day" in facts["price"]
    assert facts["price at most"].startswith("2 instances: about $")
    assert "2h after its creation or 30m after its last request" in facts["ends"]
    assert plan.usd_per_hour is not None
    assert 0.5 < plan.usd_per_hour < 2
    at_rest = planning.plan(deployment(Mode.ASYNC))
    assert at_rest.usd_per_hour == 0
    assert "endpoints delete dogs" in dict(at_rest.facts)["ends"]
