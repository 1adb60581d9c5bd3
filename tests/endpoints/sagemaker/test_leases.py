"""Endpoints end by themselves: by their age, or because nobody calls them; and what was left behind goes too."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import boto3
import pytest

from orchestrator.endpoints.deployment import Lease
from orchestrator.endpoints.hosts import EndpointDescription
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import EndpointError, OrchestratorError, SpecError
from tests.endpoints.sagemaker.deployments import deployment
from tests.endpoints.sagemaker.service import Crash, Service

HOUR = 3600.0


def up(host: SageMakerHost, **fields: Any) -> EndpointDescription:
    host.deploy(host.plan(deployment(**fields)))
    return host.wait_until_in_service(fields.get("name", "dogs"), HOUR)


def call(service: Service, name: str = "dogs") -> None:
    """Let CloudWatch know of a call."""
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "AllTraffic"}]
    datum = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 1.0, "Timestamp": service.now}
    boto3.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[datum])


def test_an_endpoint_lasts_as_long_as_it_was_to(host: SageMakerHost, service: Service) -> None:
    up(host, lease=Lease(ttl_seconds=7200))
    service.sleep(HOUR)
    assert host.collect() == []
    assert host.describe("dogs").expired is None
    service.sleep(HOUR)
    assert host.describe("dogs").expired == "its time of 2h is over"
    assert "endpoint dogs" in host.collect()
    assert service.left() == {}


def test_an_endpoint_that_is_called_stays_and_one_that_is_not_goes(host: SageMakerHost, service: Service) -> None:
    up(host, lease=Lease(idle_seconds=1800))
    up(host, name="cats", lease=Lease(idle_seconds=1800))
    up(host, name="birds")
    service.sleep(HOUR / 3)
    call(service)
    service.sleep(HOUR / 3)
    gone = host.collect()
    assert [one for one in gone if one.startswith("endpoint ") and "configuration" not in one] == ["endpoint cats"]
    used = host.describe("dogs").last_used
    assert used is not None
    assert timedelta(minutes=15) < service.now - used < timedelta(minutes=21)
    service.sleep(HOUR)
    host.collect()
    assert list(service.things["Endpoint"]) == ["birds"]


def test_whoever_may_not_read_figures_deletes_nothing_for_idleness(
    host: SageMakerHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(host, lease=Lease(idle_seconds=1800))
    service.sleep(10 * HOUR)

    def refuse(**_: Any) -> None:
        raise host._aws.client("cloudwatch").exceptions.ClientError(
            {"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetMetricData"
        )

    host._aws.client("cloudwatch").meta.events.register("before-call.cloudwatch.GetMetricData", refuse)
    assert host.describe("dogs").expired is None
    assert host.collect() == []


def test_any_machine_sees_what_another_has_deployed(
    host: SageMakerHost, make_host: Callable[[], SageMakerHost], publish: Callable[..., Any]
) -> None:
    publish("dog")
    lease = Lease(ttl_seconds=7200, max_usd_per_day=100)
    up(host, adapters=("dog",), lease=lease, most_instances=2)
    (seen,) = make_host().summaries()
    assert isinstance(seen, EndpointDescription)
    assert (seen.name, seen.lease, seen.adapters, seen.base_model) == ("dogs", lease, ("dog",), "builtin")
    assert (seen.instances, seen.region) == (1, "eu-west-1")
    assert seen.usd_per_hour is not None


@pytest.mark.parametrize("mode", list(Mode))
def test_what_was_asked_for_can_be_asked_for_again_from_any_machine(
    mode: Mode, host: SageMakerHost, make_host: Callable[[], SageMakerHost], publish: Callable[..., Any]
) -> None:
    publish("dog")
    wanted = deployment(
        mode, adapters=("dog",), slots=3, most_waiting=7, instance_type="ml.g5.xlarge", lease=Lease(ttl_seconds=7200)
    )
    host.deploy(host.plan(wanted))
    host.wait_until_in_service("dogs", HOUR)
    assert make_host().deployment("dogs") == wanted


def test_a_lease_is_renewed_without_touching_the_instances(host: SageMakerHost, service: Service) -> None:
    up(host, lease=Lease(ttl_seconds=3600))
    service.calls.clear()
    up(host, lease=Lease(ttl_seconds=36_000))
    assert "UpdateEndpoint" not in service.calls
    assert host.describe("dogs").lease.ttl_seconds == 36_000


def test_scaling_keeps_to_what_the_lease_allows(host: SageMakerHost, service: Service) -> None:
    up(host, lease=Lease(max_usd_per_day=50))
    before = service.state()
    with pytest.raises(SpecError, match="nothing was created or changed"):
        host.scale("dogs", 1, 50)
    for fewest, most in ((0, 2), (3, 2), (0, 0)):
        with pytest.raises(SpecError, match="cannot be scaled"):
            host.scale("dogs", fewest, most)
    assert service.state() == before


def test_an_endpoint_with_components_grows_no_further_than_its_configuration(host: SageMakerHost) -> None:
    up(host, mode=Mode.COMPONENTS, most_instances=2)
    with pytest.raises(SpecError, match="deployed for 2 instances at most"):
        host.scale("dogs", 1, 3)


def test_what_a_young_deployment_has_made_is_not_taken_from_it(host: SageMakerHost, service: Service) -> None:
    plan = host.plan(deployment())
    host.deploy(plan)
    number = service.calls.index("CreateEndpoint")
    service.things["Endpoint"].clear()
    host.delete("dogs")
    service.calls.clear()
    service.arranged = {number: "dies before"}
    with pytest.raises(Crash):
        host.deploy(plan)
    assert host.collect() == []
    service.sleep(2 * HOUR)
    assert len(host.collect()) == 2
    assert service.left() == {}


def test_an_endpoint_that_takes_long_to_start_is_not_idle_before_anybody_could_call_it(
    host: SageMakerHost, service: Service
) -> None:
    host.deploy(host.plan(deployment(lease=Lease(idle_seconds=600))))
    service.things["Endpoint"]["dogs"]["until"] = service.now + timedelta(minutes=20)
    service.sleep(HOUR / 4)
    assert host.collect() == []
    service.sleep(HOUR / 4)
    assert host.collect() == [], "it has come in service just now"
    service.sleep(HOUR / 4)
    assert "endpoint dogs" in host.collect()


def test_an_endpoint_that_cannot_be_deleted_keeps_no_other_from_it(
    host: SageMakerHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("birds", "cats", "dogs"):
        up(host, name=name, lease=Lease(ttl_seconds=60))
    service.sleep(HOUR)
    delete = host._removal.delete
    reported: list[OrchestratorError] = []

    def refuse(name: str, *, keep_logs: bool = False) -> list[str]:
        if name == "birds":
            raise EndpointError("The endpoint birds is still being changed.", next_step="wait")
        return delete(name, keep_logs=keep_logs)

    monkeypatch.setattr(host._removal, "delete", refuse)
    monkeypatch.setattr(host, "_report", reported.append)
    host.collect()
    assert list(service.things["Endpoint"]) == ["birds"]
    assert "birds" in reported[0].message
