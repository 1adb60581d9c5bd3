"""An answer is lost or the process dies, at any call: nothing is orphaned or made twice, and the next try ends it.

Each way is walked once undisturbed, which says which calls there are, and then once for each of them and each deed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.endpoints.sagemaker.plan import EndpointPlan
from orchestrator.errors import OrchestratorError
from tests.endpoints.sagemaker.deployments import deployment
from tests.endpoints.sagemaker.service import Crash, Service

HOUR = 3600.0
DEEDS = ["answer lost", "dies after"]
"""To die before a call is to die after the one before it; calls that only ask make no difference."""
_ASKING = ("Describe", "List", "Get", "Simulate")
MakeHost = Callable[[], SageMakerHost]


class Case(NamedTuple):
    """One way through, by the endpoint that there is before and what is done with it."""

    mode: Mode
    is_deployed: bool
    verb: str

    def walk_to_its_beginning(self, host: SageMakerHost) -> None:
        if self.is_deployed:
            _deploy(host, self.mode)
        if self.verb == "finish":
            host.deploy(_planned(host, deployment(self.mode, adapters=("dog",), most_instances=2)))

    def walk(self, host: SageMakerHost) -> None:
        match self.verb:
            case "deploy":
                _deploy(host, self.mode)
            case "update":
                _deploy(host, self.mode, slots=4)
            case "grow":
                host.scale("dogs", 1, 1)
            case "finish":
                while not all(one.finished for one in host.finish()):
                    host._pause()
            case "delete":
                host.delete("dogs")


CASES = {
    **{f"deploy {mode}": Case(mode, False, "deploy") for mode in Mode},
    **{f"update {mode}": Case(mode, True, "update") for mode in (Mode.REALTIME, Mode.COMPONENTS)},
    **{f"scale {mode}": Case(mode, True, "grow") for mode in (Mode.ASYNC, Mode.COMPONENTS)},
    **{f"finish {mode}": Case(mode, False, "finish") for mode in Mode},
    **{f"delete {mode}": Case(mode, True, "delete") for mode in Mode},
}


def _deploy(host: SageMakerHost, mode: Mode, **fields: Any) -> None:
    plan = _planned(host, deployment(mode, adapters=("dog",), most_instances=2, **fields))
    host.deploy(plan)
    assert host.wait_until_in_service("dogs", HOUR).status is EndpointStatus.IN_SERVICE


_plans: dict[tuple[SageMakerHost, Deployment], EndpointPlan] = {}


def _planned(host: SageMakerHost, wanted: Deployment) -> EndpointPlan:
    """Return the plan of a deployment; to plan it again would read the same files."""
    if (host, wanted) not in _plans:
        _plans[host, wanted] = host.plan(wanted)
    return _plans[host, wanted]


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_lost_the_next_try_ends_where_an_undisturbed_one_does(
    name: str, service: Service, make_host: MakeHost, publish: Callable[..., Path]
) -> None:
    case = CASES[name]
    publish("dog")
    host = make_host()
    calls, wanted = _undisturbed(case, host, service)
    happened = set()
    for number, call in enumerate(calls):
        if call.startswith(_ASKING):
            continue
        for deed in DEEDS:
            begin_again(service)
            case.walk_to_its_beginning(host)
            service.calls.clear()
            service.arranged = {number: deed}
            happened.add(_disturbed(case, host))
            assert service.arranged == {}, f"{deed} at {call} never happened"
            service.sleep(HOUR)
            case.walk(host)
            service.sleep(HOUR)
            assert state(service) == wanted, f"{deed} at call {number}, {call}"
            assert service.most_alive <= 1
    assert happened == {"died", "ended well"}


@pytest.mark.parametrize("mode", list(Mode))
def test_gc_finds_what_a_deployment_that_died_anywhere_has_left(
    mode: Mode, service: Service, make_host: MakeHost, publish: Callable[..., Path]
) -> None:
    publish("dog")
    host = make_host()
    case = CASES[f"deploy {mode}"]
    case.walk(host)
    calls = list(service.calls)
    for number, call in enumerate(calls):
        if not call.startswith(("Create", "Put", "Register")):
            continue
        begin_again(service)
        service.arranged = {number: "dies after"}
        assert _disturbed(case, host) == "died"
        service.sleep(2 * HOUR)
        if service.things["Endpoint"]:
            host.delete("dogs")
        host.collect()
        assert (service.left(), alarms()) == ({}, []), f"died after {call}"


def _undisturbed(case: Case, host: SageMakerHost, service: Service) -> tuple[list[str], Any]:
    """Return the calls of a way, and what there is at its end."""
    case.walk_to_its_beginning(host)
    service.calls.clear()
    case.walk(host)
    calls = list(service.calls)
    service.sleep(HOUR)
    return calls, state(service)


def _disturbed(case: Case, host: SageMakerHost) -> str:
    try:
        case.walk(host)
    except Crash:
        return "died"
    except OrchestratorError:
        return "refused"
    return "ended well"


def begin_again(service: Service) -> None:
    """Take everything out of the account but its bucket."""
    service.now = type(service)().now
    for things in service.things.values():
        things.clear()
    for values in (service.tags, service.scaled, service.calls, service.arranged):
        values.clear()
    boto3.client("cloudwatch").delete_alarms(AlarmNames=alarms())


def state(service: Service) -> Any:
    """Return everything there is."""
    return service.state(), alarms()


def alarms() -> list[str]:
    return sorted(one["AlarmName"] for one in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"])
