"""The commands of endpoints where no server is needed: what they refuse and why, and what they plan."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from orchestrator.cli.deploying import Begin, begin
from orchestrator.cli.durations import DURATION
from orchestrator.contract.events import Failed, Listening, Phase, line_of
from orchestrator.endpoints import opening
from orchestrator.endpoints.deployment import Deployment, Lease
from orchestrator.endpoints.hosts import EndpointDescription, EndpointStatus
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.names import HostName
from orchestrator.errors import AccountError, SpecError
from orchestrator.settings import Settings
from tests.cli.run_here import Run, run_here

Plant = Callable[[str], None]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    assert not settings.home.exists()
    return run_here(monkeypatch, capsys)


@pytest.fixture
def plant(settings: Settings) -> Plant:
    """Make an endpoint whose command was interrupted before its server ran."""

    def make(name: str) -> None:
        asked = Deployment(name=name, adapters=("dog",))
        served = Served(
            deployment=asked,
            created=datetime.now(UTC),
            adapters={"dog": "0" * 64},
            base_folder=None,
            base_sha256=None,
        )
        EndpointFolder(settings.endpoints / name).new_server(served)

    return make


PROMPT = ("--prompt", "a dog")
UNKNOWN = [
    ("endpoints", "show", "mien"),
    ("endpoints", "logs", "mien"),
    ("endpoints", "delete", "mien"),
    ("endpoints", "update", "mien", "--ttl", "8h"),
    ("endpoints", "scale", "mien", "1:2"),
    ("generate", "mien", *PROMPT),
]


@pytest.mark.parametrize("words", UNKNOWN, ids=" ".join)
def test_an_unknown_endpoint_is_one_error_with_the_closest_name(run: Run, plant: Plant, words: tuple[str, ...]) -> None:
    said = run(*words)
    assert said.code == 9
    assert 'There is no endpoint "mien"; nothing is deployed.' in said.errors
    plant("mine")
    said = run(*words)
    assert 'There is no endpoint "mien"; did you mean "mine"?' in said.errors
    assert said.errors.count("Next: ") == 1


@pytest.mark.parametrize("name", ["../adapters", ".", "..", ".hidden", "a/b", ""])
def test_a_name_never_leaves_the_folder_of_endpoints(run: Run, plant: Plant, settings: Settings, name: str) -> None:
    plant("mine")
    for words in (("endpoints", "delete", name), ("endpoints", "show", name), ("generate", name, *PROMPT)):
        assert run(*words).code == 9
    assert run("deploy", name).code == 2
    assert [path.name for path in settings.endpoints.iterdir()] == ["mine"]


def test_an_endpoint_that_was_left_behind_is_listed_with_what_to_do_and_collected(
    run: Run, plant: Plant, settings: Settings
) -> None:
    plant("mine")
    (listed,) = json.loads(run("endpoints", "list", "--json").output)
    assert (listed["name"], listed["status"], listed["adapters"]) == ("mine", "Failed", ["dog"])
    shown = run("endpoints", "show", "mine").output
    assert "interrupted before its server ran" in shown
    assert "deploy mine --adapters dog" in shown
    said = run("generate", "mine", *PROMPT)
    assert said.code == 9
    assert "does not run" in said.errors
    assert "deploy mine --adapters dog" in said.errors
    assert "mine: the command that deployed it was interrupted" in run("endpoints", "gc").output
    assert json.loads(run("endpoints", "list", "--json").output) == []
    assert list(settings.endpoints.iterdir()) == []


def test_a_damaged_endpoint_hides_no_other_and_can_be_deleted(run: Run, plant: Plant, settings: Settings) -> None:
    for name in ("mine", "broken"):
        plant(name)
    (settings.endpoints / "broken" / "servers" / "1" / "server.json").write_text("{")
    said = run("endpoints", "list", "--json")
    assert [entry["name"] for entry in json.loads(said.output)] == ["mine"]
    assert "endpoints delete broken" in said.errors
    assert run("endpoints", "delete", "broken").code == 0
    assert [path.name for path in settings.endpoints.iterdir()] == ["mine"]


WRONG = [
    (("deploy", "my endpoint"), "NAME: "),
    (("deploy", "mine", "--slots", "0"), "--slots: "),
    (("deploy", "mine", "--ttl", "30s"), "--ttl: "),
    (("deploy", "mine", "--ttl", "soon"), '"soon" is no duration'),
    (("deploy", "mine", "--instances", "2:1", "--host", "sagemaker"), "fewest_instances is larger"),
    (("deploy", "mine", "--instances", "many", "--host", "sagemaker"), "no number of instances"),
    (("deploy", "mine", "--instances", "2"), "for SageMaker"),
    (("deploy", "mine", "--mode", "async"), "does not have"),
    (("deploy", "mine", "--host", "elsewhere"), "elsewhere"),
    (("deploy", "mine", "--host", "sagemaker"), "No AWS account is set up"),
    (("deploy", "mine", "--adapters", "no-such"), "no-such: There is no adapter"),
    (("deploy", "mine", "--base-model", "./nowhere"), "--base-model: "),
    (("deploy", "mine", "--base-revision", "main"), "--base-revision: "),
]


@pytest.mark.parametrize(("words", "why"), WRONG, ids=str)
def test_what_cannot_be_deployed_is_refused_before_anything_is_written(
    run: Run, settings: Settings, words: tuple[str, ...], why: str
) -> None:
    said = run(*words)
    assert said.code != 0
    assert why in said.errors
    assert said.errors.count("Next: ") == 1
    assert not settings.home.exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(run: Run, settings: Settings) -> None:
    said = run("deploy", "mine", "--idle", "90m", "--dry-run")
    assert said.code == 0
    assert "nothing is billed" in said.output
    assert "90m" in said.output
    plan = json.loads(run("deploy", "mine", "--dry-run", "--json").output)
    assert (plan["deployment"]["name"], plan["usd_per_hour"]) == ("mine", None)
    assert not settings.endpoints.exists()


@pytest.mark.parametrize(
    ("typed", "seconds"), [("30m", 1800), ("8h", 28_800), ("2d", 172_800), ("90s", 90), ("never", 0)]
)
def test_durations_are_read_with_their_units(typed: str, seconds: int) -> None:
    assert DURATION.convert(typed, None, None) == seconds


def test_names_of_endpoints_and_lists_of_adapters_are_completed(plant: Plant, settings: Settings) -> None:
    import click

    from orchestrator.cli.completion import adapter_lists, adapters_of_endpoint, endpoint_names
    from orchestrator.cli.deploy import deploy

    plant("mine")
    (settings.adapters / "dog").mkdir(parents=True)
    (settings.adapters / "dog" / "adapter.json").touch()
    context = click.Context(deploy)
    parameter = deploy.params[0]
    assert endpoint_names(context, parameter, "m") == ["mine"]
    assert endpoint_names(context, parameter, "x") == []
    for endpoint, names in (("mine", ["dog"]), ("no such", []), (None, [])):
        context.params["name"] = endpoint
        assert adapters_of_endpoint(context, parameter, "d") == names
    assert adapter_lists(context, parameter, "cat,d") == ["cat,dog"]


SERVING = (Listening(host="127.0.0.1", port=1), Phase(name="serving"))  # nobody listens on port 1


@pytest.fixture
def alive(plant: Plant, settings: Settings) -> Iterator[ServerFolder]:
    """A server that seems to live: somebody holds its lock."""
    plant("mine")
    (server,) = EndpointFolder(settings.endpoints / "mine").servers()
    with server.lock():
        yield server


def status_of(run: Run) -> str:
    (listed,) = json.loads(run("endpoints", "list", "--json").output)
    status: str = listed["status"]
    return status


def test_an_endpoint_that_starts_is_not_asked_and_not_collected(run: Run, alive: ServerFolder) -> None:
    assert status_of(run) == "Creating"
    said = run("generate", "mine", *PROMPT)
    assert said.code == 9
    assert "mine is starting, and takes no requests yet" in said.errors
    assert "There was nothing to delete" in run("endpoints", "gc").output
    assert alive.exists()


def test_a_server_that_does_not_answer_is_told_with_its_log(run: Run, alive: ServerFolder, settings: Settings) -> None:
    alive.log.write_text("\n".join(map(line_of, SERVING)))
    EndpointFolder(settings.endpoints / "mine").new_token()
    assert status_of(run) == "InService"
    said = run("generate", "mine", *PROMPT)
    assert said.code == 9
    assert "does not answer on port 1" in said.errors
    assert "endpoints logs mine" in said.errors
    assert "listening on 127.0.0.1:1" in run("endpoints", "logs", "mine").output


def test_an_endpoint_whose_token_is_gone_says_how_to_have_another(run: Run, alive: ServerFolder) -> None:
    alive.log.write_text("\n".join(map(line_of, SERVING)))
    said = run("generate", "mine", *PROMPT)
    assert said.code == 9
    assert "The token of the endpoint mine is gone" in said.errors
    assert "deploy mine --adapters dog" in said.errors


def test_what_a_failed_server_said_is_printable_and_told_with_what_to_do(
    run: Run, plant: Plant, settings: Settings
) -> None:
    plant("mine")
    (server,) = EndpointFolder(settings.endpoints / "mine").servers()
    server.log.write_text(line_of(Failed(kind="hub", message="no \x1b[31mnetwork")))
    shown = run("endpoints", "show", "mine").output
    assert "no \\x1b[31mnetwork" in shown
    assert "--base-model FOLDER" in shown


def test_an_endpoint_that_another_command_changes_is_left_alone_and_the_others_are_collected(
    run: Run, plant: Plant, settings: Settings
) -> None:
    for name in ("mine", "other"):
        plant(name)
    with EndpointFolder(settings.endpoints / "mine").locked():
        said = run("endpoints", "gc")
    assert "Another command is changing the endpoint mine" in said.errors
    assert "other: " in said.output
    assert [entry["name"] for entry in json.loads(run("endpoints", "list", "--json").output)] == ["mine"]


def test_what_an_interrupted_deletion_left_is_collected(run: Run, settings: Settings) -> None:
    (settings.endpoints / ".gone-mine-00000000" / "servers").mkdir(parents=True)
    assert ".gone-mine" in run("endpoints", "gc").output
    assert list(settings.endpoints.iterdir()) == []


def test_a_local_endpoint_is_not_scaled(run: Run, plant: Plant) -> None:
    plant("mine")
    said = run("endpoints", "scale", "mine", "1:4")
    assert said.code == 9
    assert "is one process on this machine" in said.errors


def test_an_update_names_an_adapter_that_it_is_to_remove_and_has_not(run: Run, plant: Plant) -> None:
    plant("mine")
    said = run("endpoints", "update", "mine", "--remove", "dgo")
    assert said.code == 2
    assert 'mine has no adapter "dgo"; did you mean "dog"?' in said.errors
    other = run("endpoints", "update", "mine", "--remove", "ink").errors
    assert "choose from: dog\n" in other


class Paid:
    """A host whose endpoints cost money, and what it was asked to deploy."""

    name = HostName.SAGEMAKER

    def __init__(self) -> None:
        self.deployed: list[Deployment] = []

    def plan(self, deployment: Deployment, *, keeps_base: bool = False) -> "Paid":  # noqa: ARG002
        self.deployment = deployment
        return self

    usd_per_hour = 1.5
    facts = (("cost", "$1.50 an hour, $36.00 a day"),)

    def deploy(self, plan: "Paid") -> EndpointDescription:
        self.deployed.append(plan.deployment)
        return EndpointDescription(
            name="mine",
            host=HostName.SAGEMAKER,
            mode=plan.deployment.mode,
            status=EndpointStatus.CREATING,
            base_model="builtin",
            adapters=(),
            created=datetime.now(UTC),
            lease=plan.deployment.lease,
            usd_per_hour=self.usd_per_hour,
        )


def test_what_costs_money_is_shown_and_not_begun_unless_somebody_agrees_or_caps_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())  # no terminal
    host: Any = Paid()
    free = Deployment(name="mine", host=HostName.SAGEMAKER)
    asked = Begin(dry_run=False, yes=False, detach=True, as_json=False)
    with pytest.raises(SpecError) as raised:
        begin(host, free, asked)
    assert raised.value.next_step == "add --max-usd-per-day USD, or --yes"
    assert "$36.00 a day" in capsys.readouterr().out
    begin(host, free, asked._replace(dry_run=True))
    assert host.deployed == []
    begin(host, free, asked._replace(yes=True))
    assert "endpoints gc" in capsys.readouterr().err
    capped = free.model_copy(update={"lease": Lease(max_usd_per_day=40)})
    begin(host, capped, asked)
    assert host.deployed == [free, capped]
    assert "$1.50 an hour, $36.00 a day" in capsys.readouterr().out


def test_an_endpoint_does_not_grow_unless_somebody_agrees_or_caps_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())  # no terminal
    host: Any = Paid()
    found = host.deploy(host.plan(Deployment(name="mine", host=HostName.SAGEMAKER)))
    of_two = {"instances": 2, "instance_type": "ml.g5.xlarge", "region": "us-east-1"}
    host.describe = lambda _: found.model_copy(update=of_two)
    scaled = []
    host.scale = lambda *words: scaled.append(words)
    monkeypatch.setattr(opening, "open_hosts", lambda *_: [host])
    said = run("endpoints", "scale", "mine", "1:3")
    assert (said.code, scaled) == (2, [])
    assert "endpoints update mine --max-usd-per-day USD, or --yes" in said.errors
    for words in (("1:2",), ("1:3", "--yes")):
        assert run("endpoints", "scale", "mine", *words).code == 0
    assert scaled == [("mine", 1, 2), ("mine", 1, 3)]


class Unreachable:
    """A host whose account cannot be asked."""

    def collect(self) -> list[str]:
        raise AccountError("AWS does not answer.", next_step="try again")


def test_what_was_deleted_here_is_told_although_the_account_cannot_be_asked(
    run: Run, plant: Plant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("mine")
    hosts = [LocalHost(settings), Unreachable()]
    monkeypatch.setattr(opening, "open_hosts", lambda *_: hosts)
    said = run("endpoints", "gc")
    assert "deleted: mine: " in said.output
    assert (said.code, "AWS does not answer." in said.errors) == (6, True)
