"""Submits of which nobody can say what became of them: no job is made twice, and none is forgotten.

Each case is a job of its own, drawn from a seed: what became of it before, what happens to the requests on their way
(answers lost before or after the work was done, refusals, resets), and where the client dies or another one comes
between: before or after any of its calls. AMBIGUOUS_CREATES sets how many cases are run.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import boto3
import pytest
from account import BUCKET, REGION, bare_request, channel, open_account
from sagemaker_simulator import SageMakerSimulator, faults

from orchestrator.aws.client import Aws
from orchestrator.errors import JobError, OrchestratorError
from orchestrator.jobs import job as jobs
from orchestrator.jobs.job import Submission
from orchestrator.planning.plan import Plan
from orchestrator.requests import IDENTITY_TAG, Request, channel_uris, identity_of
from orchestrator.storage import S3Store
from orchestrator.storage.tree import Tree, tree_of_folder
from orchestrator.targets.base import JobStatus
from orchestrator.targets.sagemaker.target import SageMakerTarget

ACCOUNT = "123456789012"
CASES = int(os.environ.get("AMBIGUOUS_CREATES", "100"))
FAULTS = {
    "lost answer": faults.lost_answer,
    "timeout after the work": lambda: faults.read_timeout(after_commit=True),
    "timeout before the work": faults.read_timeout,
    "reset": faults.connection_reset,
    "500": faults.internal_error,
    "503": faults.unavailable,
    "throttling": faults.throttling,
}
CALLS = {
    "sagemaker": ["CreateTrainingJob", "ListTrainingJobs", "DescribeTrainingJob", "ListTags"],
    "s3": ["HeadObject", "PutObject", "ListObjectsV2"],
}
HISTORIES = ["new", "failed at once", "stopped, to be resumed", "complete, to begin anew"]
DISTURBANCES = ["crash before", "crash after", "rival"]
MOST_CALLS = 16
"""More than a submit makes, so that some of what is drawn never happens."""


class Crash(BaseException):
    """The client's process is gone."""


class Client:
    """A machine that submits; what happens at one of its calls can be arranged."""

    def __init__(self) -> None:
        self.aws = Aws(REGION)
        self.store = S3Store(self.aws, BUCKET, ACCOUNT, sleep=lambda _seconds: None)
        self.target = SageMakerTarget(self.aws, self.store, poll_seconds=0)
        self._arranged: dict[tuple[str, int], Callable[[], None]] = {}
        self._calls: Counter[str] = Counter()
        for service in CALLS:
            events = self.aws.client(service).meta.events
            events.register("before-call", lambda **_rest: self._at("before"))
            events.register("after-call", lambda **_rest: self._at("after"))

    def arrange(self, when: str, number: int, deed: Callable[[], None]) -> None:
        self._arranged[when, number] = deed

    def forget(self) -> None:
        self._arranged.clear()
        self._calls.clear()

    def _at(self, when: str) -> None:
        self._calls[when] += 1
        if deed := self._arranged.pop((when, self._calls[when]), None):
            deed()


class World(NamedTuple):
    simulator: SageMakerSimulator
    client: Client
    rival: Client
    folder: Path


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Iterator[World]:
    with open_account(monkeypatch) as simulator:
        yield World(simulator, Client(), Client(), tmp_path)


class Case:
    """One job and what becomes of it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = Random(seed)
        self.name = f"mine-{seed:010x}"
        self.kinds: set[str] = set()
        self.history = self._draw(HISTORIES)
        self.inputs = {kind: self._tree(kind, seed) for kind in ("data", "code")}

    def submit(self, client: Client) -> Submission:
        """Do what `submit` does: inputs, then the job."""
        uris = {kind: client.store.put_tree(tree) for kind, tree in self.inputs.items()}
        resume, restart = "resumed" in self.history, "anew" in self.history
        plan = Plan(request=self.request(uris))
        return jobs.submit(plan, client.target, resume=resume, restart=restart)

    def request(self, uris: dict[str, str]) -> Request:
        prefixes = {kind: uri.removeprefix(f"s3://{BUCKET}/") for kind, uri in uris.items()}
        return {
            **bare_request(self.name),
            "InputDataConfig": [channel("training", prefixes["data"]), channel("code", prefixes["code"])],
            "CheckpointConfig": {
                "S3Uri": f"s3://{BUCKET}/checkpoints/{self.name}/",
                "LocalPath": "/opt/ml/checkpoints",
            },
            "Tags": [{"Key": IDENTITY_TAG, "Value": self.name}],
        }

    def live_through_history(self) -> None:
        """Bring the job to where the drawn history leaves it."""
        if self.history == "new":
            return
        uris = {kind: self.world.client.store.put_tree(tree) for kind, tree in self.inputs.items()}
        self.world.client.target.create(self.request(uris))
        status = {"failed": "Failed", "stopped,": "Stopped", "complete,": "Completed"}[self.history.split()[0]]
        self.world.simulator.show(self.name, status, status)
        if status == "Stopped":
            for file in ("checkpoint.json", "tensors.safetensors"):
                key = f"checkpoints/{self.name}/step-00000002/{file}"
                boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"{}")

    def disturb(self) -> None:
        """Arrange what happens on the way."""
        self.world.client.forget()
        if self.random.random() < 0.7:
            fault, service = self._draw(list(FAULTS)), self._draw(list(CALLS))
            self.world.simulator.faults.add(
                FAULTS[fault](),
                self._draw(CALLS[service]),
                service=service,
                times=self.random.choice([1, 2, 4, 12]),
                skip=self.random.randint(0, 1),
            )
        for _ in range(self.random.randint(0, 2)):
            number, kind = self.random.randint(1, MOST_CALLS), self._draw(DISTURBANCES)
            when = "after" if kind == "crash after" else "before"
            self.world.client.arrange(when, number, self._rival_submits if kind == "rival" else _crash)

    def attempts(self) -> list[str]:
        """Return the names of the training jobs that were made for this job."""
        made = [one for one in self.world.simulator.requests.of("CreateTrainingJob") if one.committed]
        names = [one.parameters["TrainingJobName"] for one in made]
        return [name for name in names if name == self.name or name.startswith(f"{self.name}-r")]

    def clear_away(self) -> None:
        for name in self.attempts():
            self.world.simulator.show(name, "Completed", "Completed")
            boto3.client("sagemaker").delete_training_job(TrainingJobName=name)
        self.world.simulator.requests.clear()

    def _rival_submits(self) -> None:
        with suppress(OrchestratorError):  # the faults on the way are for everybody
            self.submit(self.world.rival)

    def _draw(self, choices: list[str]) -> str:
        drawn = self.random.choice(choices)
        self.kinds.add(drawn)
        return drawn

    def _tree(self, kind: str, seed: int) -> Tree:
        folder = self.world.folder / str(seed) / kind
        folder.mkdir(parents=True)
        (folder / "file").write_text(f"{kind} {seed}")
        return tree_of_folder(kind, folder)


def _crash() -> None:
    raise Crash


def test_no_job_is_made_twice_and_none_is_forgotten(world: World) -> None:
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        case = Case(world, seed)
        case.live_through_history()
        seen.update(case.kinds | live_through(case))
        case.clear_away()
    drawn = {*FAULTS, *CALLS, *HISTORIES, *DISTURBANCES, *(call for calls in CALLS.values() for call in calls)}
    assert not drawn - set(seen), "some kinds never occurred"
    assert {"crashed", "refused", "ended well"} <= set(seen)


def live_through(case: Case) -> set[str]:
    """Submit, disturbed at first, until it ends well; return what happened, having looked at what there is then."""
    world = case.world
    case.disturb()
    try:
        case.submit(world.client)
    except Crash:
        happened = "crashed"
    except OrchestratorError:
        happened = "refused"
    else:
        happened = "ended well"
    world.simulator.faults.clear()
    world.client.forget()
    if happened == "ended well":
        assert case.attempts(), "a person was told of a job that there is not"
    if "anew" in case.history and len(case.attempts()) > 1:
        with pytest.raises(JobError, match="is running"):
            case.submit(world.client)
    else:
        case.submit(world.client)
    expected = [case.name] if case.history == "new" else [case.name, f"{case.name}-r2"]
    assert case.attempts() == expected, (case.name, case.kinds)
    require_whole(case)
    return {happened}


def require_whole(case: Case) -> None:
    """The job runs, is the one that was meant, and everything it reads is in the bucket."""
    client = case.world.client
    found: Any = client.target.describe(case.name)
    assert (found.status, found.identity) == (JobStatus.IN_PROGRESS, case.name)
    requests = [one.parameters for one in case.world.simulator.requests.of("CreateTrainingJob") if one.committed]
    for request in requests:
        assert identity_of(request) == case.name
        uris = channel_uris(request)
        for channel_name, kind in (("training", "data"), ("code", "code")):
            tree, back = case.inputs[kind], case.world.folder / "back" / request["TrainingJobName"] / kind
            client.store.get_files(client.store.name(uris[channel_name]), tree.files, back)
