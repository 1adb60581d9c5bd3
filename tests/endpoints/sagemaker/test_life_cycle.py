"""An endpoint from its deployment to its deletion, in every mode."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.endpoints.finding import find_endpoint
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import AccessError, EndpointError, QuotaError
from orchestrator.settings import Settings
from tests.endpoints.sagemaker.deployments import deployment
from tests.endpoints.sagemaker.service import Refusal, Service

HOUR = 3600.0
Publish = Callable[..., Path]


@pytest.mark.parametrize("mode", list(Mode))
def test_an_endpoint_of_any_mode_comes_in_service_and_is_deleted_whole(
    host: SageMakerHost, service: Service, publish: Publish, mode: Mode
) -> None:
    publish("dog")
    publish("cat")
    plan = host.plan(deployment(mode, adapters=("dog", "cat"), most_instances=2))
    assert service.calls == [], "a plan reads the bucket alone"
    assert host.deploy(plan).status is EndpointStatus.CREATING
    described = host.wait_until_in_service("dogs", HOUR)
    assert (described.status, described.next_step) == (EndpointStatus.IN_SERVICE, None)
    assert sorted(described.adapters) == ["cat", "dog"]
    assert described.mode is mode
    assert len(service.scaled) == 1
    gone = host.delete("dogs")
    assert service.left() == {}
    assert "endpoint dogs" in gone
    assert host.delete("dogs") == []


@pytest.mark.parametrize("mode", list(Mode))
def test_a_second_deploy_of_the_same_changes_nothing(
    host: SageMakerHost, make_host: Callable[[], SageMakerHost], service: Service, publish: Publish, mode: Mode
) -> None:
    publish("dog")
    wanted = deployment(mode, adapters=("dog",), most_instances=2)
    host.deploy(host.plan(wanted))
    host.wait_until_in_service("dogs", HOUR)
    before = service.state()
    another = make_host()
    another.deploy(another.plan(wanted))
    assert another.wait_until_in_service("dogs", HOUR).status is EndpointStatus.IN_SERVICE
    assert service.state() == before


def test_an_update_swaps_the_configuration_and_leaves_nothing_of_the_old_one(
    host: SageMakerHost, service: Service, publish: Publish
) -> None:
    publish("dog")
    host.deploy(host.plan(deployment()))
    host.wait_until_in_service("dogs", HOUR)
    first = service.left()
    host.deploy(host.plan(deployment(adapters=("dog",))))
    assert host.describe("dogs").status is EndpointStatus.UPDATING
    assert host.wait_until_in_service("dogs", HOUR).adapters == ("dog",)
    second = service.left()
    assert [len(names) for names in second.values()] == [1, 1, 1]
    assert second["Model"] != first["Model"]
    assert service.things["Endpoint"]["dogs"]["EndpointConfigName"] == second["EndpointConfig"][0]


def test_what_another_deployment_is_about_to_use_is_not_taken_for_replaced(
    host: SageMakerHost, make_host: Callable[[], SageMakerHost], service: Service
) -> None:
    host.deploy(host.plan(deployment()))
    host.wait_until_in_service("dogs", HOUR)
    service.sleep(HOUR)
    another = make_host()
    service.refused["UpdateEndpoint"] = Refusal("AccessDeniedException", "not yet")
    with pytest.raises(AccessError):
        another.deploy(another.plan(deployment(slots=4)))
    before = service.left()
    assert [len(names) for names in before.values()] == [2, 2, 1]
    host.wait_until_in_service("dogs", HOUR)
    assert service.left() == before


def test_an_update_is_undone_by_an_alarm_on_server_errors(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    host.wait_until_in_service("dogs", HOUR)
    asked: list[str] = service.calls
    host.deploy(host.plan(deployment(slots=4)))
    assert asked.index("PutMetricAlarm") < asked.index("UpdateEndpoint")


def test_an_adapter_component_is_replaced_only_when_its_successor_is_in_service(
    host: SageMakerHost, service: Service, publish: Publish
) -> None:
    publish("dog", b"first")
    wanted = deployment(Mode.COMPONENTS, adapters=("dog",))
    host.deploy(host.plan(wanted))
    host.wait_until_in_service("dogs", HOUR)
    before = set(service.things["InferenceComponent"])
    publish("dog", b"trained longer")
    host.deploy(host.plan(wanted))
    assert before < set(service.things["InferenceComponent"]), "the old one serves meanwhile"
    host.wait_until_in_service("dogs", HOUR)
    assert len(service.things["InferenceComponent"]) == 2
    assert set(service.things["InferenceComponent"]) != before


def test_another_base_model_updates_the_base_component(host: SageMakerHost, service: Service, publish: Publish) -> None:
    publish("dog")
    host.deploy(host.plan(deployment(Mode.COMPONENTS, adapters=("dog",))))
    host.wait_until_in_service("dogs", HOUR)
    host.deploy(host.plan(deployment(Mode.COMPONENTS, adapters=("dog",), slots=3)))
    assert host.describe("dogs").status is EndpointStatus.UPDATING
    host.wait_until_in_service("dogs", HOUR)
    (model,) = service.things["Model"]
    specifications = [one["Specification"] for one in service.things["InferenceComponent"].values()]
    assert [one["ModelName"] for one in specifications if "ModelName" in one] == [model]


def test_scaling_changes_the_range_and_two_equal_numbers_end_it(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    host.wait_until_in_service("dogs", HOUR)
    assert service.scaled == {}
    host.scale("dogs", 1, 4)
    (target,) = service.scaled.values()
    assert (target["MinCapacity"], target["MaxCapacity"], len(target["policies"])) == (1, 4, 1)
    host.scale("dogs", 2, 2)
    assert service.scaled == {}
    service.sleep(HOUR)
    assert host.describe("dogs").instances == 2


def test_an_endpoint_of_another_program_is_left_alone(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    host.wait_until_in_service("dogs", HOUR)
    for tags in service.tags.values():
        tags.clear()
    before = service.left()
    for deed in (lambda: host.delete("dogs"), lambda: host.deploy(host.plan(deployment(slots=2)))):
        with pytest.raises(EndpointError, match="not deployed with orchestrator"):
            deed()
    assert list(host.summaries()) == []
    host.collect()
    assert service.left() == before


def test_a_refused_endpoint_leaves_nothing(host: SageMakerHost, service: Service) -> None:
    quota = "The account-level service limit 'ml.g5.xlarge for endpoint usage' is 0 Instances, with current utilization"
    service.refused["CreateEndpoint"] = Refusal("ResourceLimitExceeded", f"{quota} of 0 Instances.")
    with pytest.raises(QuotaError, match="for endpoint usage"):
        host.deploy(host.plan(deployment()))
    assert service.left() == {}


def test_why_an_endpoint_was_refused_is_not_hidden_by_a_fault_while_its_parts_are_deleted(
    host: SageMakerHost, service: Service
) -> None:
    service.refused["CreateEndpoint"] = Refusal("ResourceLimitExceeded", "The limit is 0 Instances.")
    service.refused["DeleteModel"] = Refusal("ServiceUnavailable", "Later.")
    with pytest.raises(QuotaError):
        host.deploy(host.plan(deployment()))


def test_an_endpoint_of_another_program_is_not_called_missing(
    host: SageMakerHost, service: Service, settings: Settings
) -> None:
    host.deploy(host.plan(deployment()))
    for tags in service.tags.values():
        tags.clear()
    with pytest.raises(EndpointError, match="not deployed with orchestrator"):
        find_endpoint("dogs", [LocalHost(settings), host])
    with pytest.raises(EndpointError, match='There is no endpoint "cats"; nothing is deployed'):
        find_endpoint("cats", [LocalHost(settings), host])


def test_a_mode_cannot_be_changed_by_an_update(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    before = service.state()
    with pytest.raises(EndpointError, match="has the mode realtime"):
        host.deploy(host.plan(deployment(Mode.ASYNC)))
    assert service.state() == before


def test_an_endpoint_that_failed_says_why_and_is_deleted(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    service.things["Endpoint"]["dogs"] |= {
        "EndpointStatus": "Failed",
        "FailureReason": "The container did not pass the ping health check.",
        "until": None,
    }
    described = host.wait_until_in_service("dogs", HOUR)
    assert (described.status, described.failure_reason) == (
        EndpointStatus.FAILED,
        "The container did not pass the ping health check.",
    )
    assert "endpoints delete dogs" in (described.next_step or "")
    with pytest.raises(EndpointError, match="ping health check"):
        host.deploy(host.plan(deployment(slots=2)))
    host.delete("dogs")
    assert service.left() == {}


def test_an_endpoint_that_is_created_just_now_is_deleted_as_soon_as_that_goes(
    host: SageMakerHost, service: Service
) -> None:
    host.deploy(host.plan(deployment()))
    host.delete("dogs")
    assert service.left() == {}
    assert service.calls.count("DeleteEndpoint") > 1, "the first was refused"


def test_an_endpoint_that_is_being_deleted_is_not_taken_for_one_that_is_there(
    host: SageMakerHost, service: Service
) -> None:
    plan = host.plan(deployment())
    host.deploy(plan)
    host.wait_until_in_service("dogs", HOUR)
    service.things["Endpoint"]["dogs"] |= {"EndpointStatus": "Deleting", "until": None}
    with pytest.raises(EndpointError, match="is being deleted"):
        host.deploy(plan)


def test_a_name_that_differs_in_capital_letters_alone_is_refused(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    service.things["Endpoint"]["Dogs"] = service.things["Endpoint"]["dogs"]  # as the service finds it
    with pytest.raises(EndpointError, match='There is an endpoint "dogs"'):
        host.deploy(host.plan(deployment(name="Dogs")))


def test_an_endpoint_without_capacity_says_what_else_to_try(host: SageMakerHost, service: Service) -> None:
    host.deploy(host.plan(deployment()))
    reason = "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
    service.things["Endpoint"]["dogs"] |= {"EndpointStatus": "Failed", "FailureReason": reason, "until": None}
    assert "--instance-type" in (host.describe("dogs").next_step or "")


def test_an_adapter_that_is_named_twice_is_one(host: SageMakerHost, publish: Publish) -> None:
    publish("dog")
    host.deploy(host.plan(deployment(Mode.COMPONENTS, adapters=("dog", "dog"))))
    described = host.wait_until_in_service("dogs", HOUR)
    assert (described.adapters, described.next_step) == (("dog",), None)


def test_alarms_last_as_long_as_they_are_needed(host: SageMakerHost, service: Service) -> None:
    def alarms() -> list[str]:
        found = host._aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
        return sorted(one["AlarmName"].removeprefix("orchestrator-endpoint-") for one in found)

    host.deploy(host.plan(deployment(Mode.ASYNC)))
    host.wait_until_in_service("dogs", HOUR)
    assert alarms() == ["wake-dogs"]
    host.deploy(host.plan(deployment(Mode.ASYNC, slots=3)))
    assert alarms() == ["errors-dogs", "wake-dogs"]
    host.wait_until_in_service("dogs", HOUR)
    assert alarms() == ["wake-dogs"]
    host.scale("dogs", 1, 1)
    assert alarms() == []
