"""Endpoints on the simulator: requests that it takes, servers that it starts from them, images that come back."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from account import BUCKET, IMAGE, ROLE, furnish, use_default_session
from click.testing import CliRunner
from moto import mock_aws
from sagemaker_simulator import STAND_IN, Image, SageMakerSimulator, in_process
from sagemaker_simulator.hosting.faults import insufficient_capacity, serving_image_failure

from orchestrator.cli import cli
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import EndpointError
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import Settings
from tests.endpoints.sagemaker.deployments import ACCOUNT, REGION, deployment
from tests.entrypoints.made_adapters import write_finished

HOUR = 3600.0
SERVER = Image(environment={"OMP_NUM_THREADS": "1"})
"""An image whose server is that of the request's bundle."""
ASKED = {"inputs": "a dog", "parameters": {"num_inference_steps": 2, "seed": 1}}


@contextmanager
def account(settings: Settings, patch: pytest.MonkeyPatch, image: Image) -> Iterator[SageMakerSimulator]:
    """Open an account in which every endpoint has that image."""
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    update = {"bucket": BUCKET, "endpoint_role_arn": ROLE, "inference_image": IMAGE}
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.aws_file.write_text(ACCOUNT.model_copy(update=update).model_dump_json())
    with mock_aws(), SageMakerSimulator(images={IMAGE: image}) as simulator, in_process(simulator):
        use_default_session()
        furnish()
        yield simulator


def host_of(simulator: SageMakerSimulator, settings: Settings) -> SageMakerHost:
    """Return a host that lets the simulator's time go by while it waits."""
    return SageMakerHost(settings, sleep=simulator.pass_time, now=simulator.clock.now)


def left(simulator: SageMakerSimulator) -> list[str]:
    """Return the names of everything that an account has of endpoints."""
    client = boto3.client("sagemaker")
    names = [one["EndpointName"] for one in client.list_endpoints()["Endpoints"]]
    names += [one["EndpointConfigName"] for one in client.list_endpoint_configs()["EndpointConfigs"]]
    names += [one["ModelName"] for one in client.list_models()["Models"]]
    names += [one["InferenceComponentName"] for one in client.list_inference_components()["InferenceComponents"]]
    names += [one["AlarmName"] for one in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]]
    names += [one["logGroupName"] for one in boto3.client("logs").describe_log_groups()["logGroups"]]
    scaling = boto3.client("application-autoscaling")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    return names + [one["ResourceId"] for one in targets]


def run(*words: str) -> Any:
    """Give a command and return what it prints as JSON; raises its error."""
    return json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).stdout)


def test_the_commands_deploy_draw_with_an_adapter_scale_and_delete(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings.adapters.mkdir(parents=True)
    write_finished(settings.adapters / "dog", BUILTIN_MODEL, 1)
    with account(settings, monkeypatch, SERVER) as simulator:
        simulator.seconds_per_call["DescribeEndpoint"] = 30  # a client that polls lets time go by
        monkeypatch.setattr("orchestrator.endpoints.sagemaker.host.POLL_SECONDS", 0.0)
        words = ["deploy", "dogs", "--host", "sagemaker", "--adapters", "dog", "--max-usd-per-day", "80", "--ttl", "8h"]
        plan = run(*words, "--dry-run")
        assert (left(simulator), plan["facts"]["quota"]) == ([], "ml.g4dn.xlarge for endpoint usage")
        deployed = run(*words, "--yes")
        assert deployed["status"] == "InService", simulator.hosting.log_lines("dogs")
        assert [one["name"] for one in run("endpoints", "list")] == ["dogs"]
        picture = tmp_path / "out.png"
        drawing = ["generate", "dogs", "--prompt", "a dog", "--adapter", "dog:0.8", "--seed", "1", "--steps", "2"]
        CliRunner().invoke(cli, [*drawing, "-o", str(picture)], catch_exceptions=False)
        assert picture.read_bytes().startswith(b"\x89PNG")
        host = host_of(simulator, settings)
        with pytest.raises(EndpointError, match=r"does not accept the request.*nobody"):
            host.invoke("dogs", json.dumps({**ASKED, "adapters": [{"name": "nobody"}]}).encode(), "image/png")
        assert any("serving" in line for line in host.log_lines("dogs", follow=False))
        run("endpoints", "scale", "dogs", "1:2")
        shown = run("endpoints", "show", "dogs")
        assert (shown["adapters"], shown["lease"]["ttl_seconds"]) == (["dog"], 8 * 3600)
        run("endpoints", "delete", "dogs")
        assert left(simulator) == []


@pytest.mark.parametrize("mode", list(Mode))
def test_the_commands_finish_a_deployment_that_nobody_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, publish: Callable[..., Path], mode: Mode
) -> None:
    publish("dog")
    fewest = 1 if mode is Mode.REALTIME else 0
    with account(settings, monkeypatch, STAND_IN) as simulator:
        for polled in ("DescribeEndpoint", "DescribeInferenceComponent"):
            simulator.seconds_per_call[polled] = 60
        monkeypatch.setattr("orchestrator.endpoints.sagemaker.host.POLL_SECONDS", 0.0)
        words = ["deploy", "dogs", "--host", "sagemaker", "--mode", mode.value, "--adapters", "dog"]
        run(*words, "--instances", f"{fewest}:2", "--max-usd-per-day", "80", "--detach")
        assert "endpoints gc" in run("endpoints", "show", "dogs")["next_step"]
        assert finished_by_gc() == ["dogs"]
        shown = shown_at_rest()
        assert (shown["status"], shown["adapters"], shown["next_step"]) == ("InService", ["dog"], None)
        assert [one["finished"] for one in run("endpoints", "list")] == [True]
        assert run("endpoints", "gc") == {"deleted": [], "finished": [], "unfinished": []}
        targets = boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
        assert [one["MinCapacity"] for one in targets["ScalableTargets"]] == [fewest]
        updated = run("endpoints", "update", "dogs", "--slots", "4", "--yes")
        assert (updated["instance_type"], updated["finished"]) == (shown["instance_type"], True)
        assert run("endpoints", "scale", "dogs", "1:1")["finished"]
        run("endpoints", "delete", "dogs")
        assert left(simulator) == []


def shown_at_rest() -> Any:
    """Return what `endpoints show` says once the instances that scaling asks for are there."""
    for _ in range(20):
        shown = run("endpoints", "show", "dogs")
        if shown["status"] != "Updating":
            return shown
    raise AssertionError("it is updated for ever")


def finished_by_gc() -> list[str]:
    """Run `endpoints gc` until nothing is left to finish, and return what it has finished."""
    finished: list[str] = []
    for _ in range(20):
        told = run("endpoints", "gc")
        finished += told["finished"]
        if not told["unfinished"]:
            return finished
    raise AssertionError("it is never finished")


@pytest.mark.parametrize("mode", [Mode.ASYNC, Mode.COMPONENTS])
def test_an_endpoint_that_scales_to_nothing_is_woken_answers_and_goes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, publish: Callable[..., Path], mode: Mode
) -> None:
    publish("dog")
    with account(settings, monkeypatch, STAND_IN) as simulator:
        host = host_of(simulator, settings)
        host.deploy(host.plan(deployment(mode, adapters=("dog",), most_instances=2)))
        described = host.wait_until_in_service("dogs", HOUR)
        assert (described.status, described.adapters) == (EndpointStatus.IN_SERVICE, ("dog",))
        body = json.dumps({**ASKED, "adapters": [{"name": "dog", "weight": 0.5}]}).encode()
        told: Any = json.loads(host.invoke("dogs", body, "application/json").content)
        assert json.loads(told["body"])["inputs"] == "a dog"
        host.delete("dogs")
        assert left(simulator) == []


def test_what_no_server_accepts_is_refused_before_it_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with account(settings, monkeypatch, STAND_IN) as simulator:
        host = host_of(simulator, settings)
        host.deploy(host.plan(deployment()))
        host.wait_until_in_service("dogs", HOUR)
        with pytest.raises(EndpointError, match="SageMaker takes 6,291,456"):
            host.invoke("dogs", bytes(7 * 2**20), "image/png")


def test_an_endpoint_without_capacity_fails_says_so_and_is_deleted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with account(settings, monkeypatch, STAND_IN) as simulator:
        simulator.hosting.inject(insufficient_capacity())
        host = host_of(simulator, settings)
        host.deploy(host.plan(deployment()))
        described = host.wait_until_in_service("dogs", HOUR)
        assert described.status is EndpointStatus.FAILED
        assert "--instance-type" in (described.next_step or ""), described.failure_reason
        host.delete("dogs")
        assert left(simulator) == []
        assert simulator.hosting.faults == []


def test_an_update_whose_server_never_serves_is_undone_and_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with account(settings, monkeypatch, STAND_IN) as simulator:
        host = host_of(simulator, settings)
        host.deploy(host.plan(deployment()))
        before = host.wait_until_in_service("dogs", HOUR)
        simulator.hosting.inject(serving_image_failure(), "dogs")
        host.deploy(host.plan(deployment(slots=3)))
        undone = host.wait_until_in_service("dogs", HOUR)
        assert (before.failure_reason, undone.status) == (None, EndpointStatus.IN_SERVICE)
        assert undone.failure_reason
        assert host.deployment("dogs").slots == deployment().slots
        host.deploy(host.plan(deployment(slots=3)))
        assert host.wait_until_in_service("dogs", HOUR).failure_reason is None
        assert host.deployment("dogs").slots == 3
        host.delete("dogs")
        assert left(simulator) == []
