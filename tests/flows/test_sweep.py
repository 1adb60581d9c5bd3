"""Several jobs and one picture of all: the real command, real training, here and on SageMaker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sagemaker_simulator import SimulatorServer

from orchestrator.contract.samples import parse_index
from orchestrator.settings import Settings
from orchestrator.sweeps.samples import decode_cell
from tests.sweeps.seeking import FAINT, INK, places, written

SHORT = ["-s", "steps=2", "-s", "evaluation_prompts=2", "-s", "evaluation_seeds=1", "-s", "inference_steps=2"]
SWEEP = ["sweep", "dreambooth", *SHORT, "-s", "learning_rate=0.01"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *words]


def run(*words: str, **variables: str) -> Any:
    """Run a command and return what it printed as JSON."""
    done = subprocess.run(
        command(*words, "--json"), capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def cells(adapter: Path, source: str) -> list[Image.Image]:
    """Return an adapter's images of one source as a contact sheet shows them, in their order."""
    folder = adapter / "samples"
    index = parse_index((folder / "index.json").read_bytes())
    return [decode_cell((folder / image.file).read_bytes()) for image in index.images if image.source == source]


def require_columns(page: Image.Image, adapters: dict[str, Path]) -> None:
    """Check that a sweep's sheet shows each adapter's images below its rank, beside those of the base model."""
    first = next(iter(adapters.values()))
    before = [places(page, cell)[0] for cell in cells(first, "before")]
    lefts = [before[0][0]]
    for rank, adapter in adapters.items():
        assert [cell.tobytes() for cell in cells(adapter, "before")] == [
            cell.tobytes() for cell in cells(first, "before")
        ]
        after = [places(page, cell)[0] for cell in cells(adapter, "after")]
        assert [top for _, top in after] == [top for _, top in before]
        lefts.append(after[0][0])
        heads = [left for left, top in places(page, written(rank, INK)) if top < before[0][1]]
        assert any(0 < left - lefts[-1] < 100 for left in heads), rank
    assert lefts == sorted(set(lefts))
    assert len(places(page, written("rank", FAINT))) >= len(adapters)
    assert places(page, written("learning_rate", FAINT)) == []  # is the same for all


def test_ranks_are_swept_here_and_more_of_them_later(settings: Settings) -> None:
    record = run(*SWEEP, "-s", "rank=2,4", "--name", "dog")
    assert [(job["settings"], job["status"]) for job in record["jobs"]] == [
        ({"rank": "2"}, "Completed"),
        ({"rank": "4"}, "Completed"),
    ]
    adapters = {job["settings"]["rank"]: Path(job["adapter"]) for job in record["jobs"]}
    require_columns(Image.open(record["contact_sheet"]), adapters)
    assert Path(record["contact_sheet"]).parent == settings.sweeps / record["name"]
    kept = json.loads((settings.sweeps / record["name"] / "sweep.json").read_text())
    assert kept == record

    # One more, whose adapter cannot be put in its place: what was done stays as it is, and is shown.
    before = {job["name"]: job["created"] for job in run("jobs", "list")}
    third = Path(record["jobs"][0]["adapter"].replace("rank2", "rank8"))
    assert third.parent == settings.adapters
    third.mkdir()
    done = subprocess.run(
        command(*SWEEP, "-s", "rank=2,4,8", "--name", "dog"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert [" Completed " in line for line in done.stdout.splitlines()].count(True) == 2
    assert "taken" in done.stdout
    assert "1 of 3 jobs" in done.stderr
    assert done.stderr.count("Next: ") == 1
    assert {job["name"]: job["created"] for job in run("jobs", "list")} == before
    (sheet,) = (path for path in settings.sweeps.glob("*/contact_sheet.png") if path.parent.name != record["name"])
    require_columns(Image.open(sheet), adapters)


def test_ctrl_c_leaves_the_running_job_and_says_how_to_go_on(settings: Settings) -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a test run in the background, and its children, ignore it
    words = ["sweep", "dreambooth", "-s", "rank=2,4", "-s", "steps=500"]
    with subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True, start_new_session=True) as client:
        assert client.stderr is not None
        assert any("training" in line for line in client.stderr)
        client.send_signal(signal.SIGINT)
        said = client.stderr.read()
    assert client.returncode == 130
    (job,) = run("jobs", "list")
    run("jobs", "stop", "--now", job["name"])
    assert job["status"] == "InProgress"
    assert f"Still running: {job['name']}. Not started: 1." in said
    assert "python -m orchestrator sweep dreambooth -s rank=2,4" in said


@pytest.mark.usefixtures("docker")
@pytest.mark.filterwarnings("ignore:Tried to parse")  # what moto's CloudFormation leaves out of the stack
def test_ranks_are_swept_on_sagemaker_where_the_quota_allows_one_job(
    settings: Settings, service: SimulatorServer, variables: dict[str, str], tmp_path: Path
) -> None:
    run("infra", "up", **variables)
    run("infra", "image", **variables)
    simulator = service.simulator
    simulator.quotas["ml.g4dn.xlarge for training job usage"] = 1
    words = [*SWEEP, "-s", "rank=2,4", "--target", "sagemaker"]

    # A total that pays for none, and none at all where nobody can be asked: not a thing is stored or started.
    puts = simulator.requests.count("PutObject", service="s3")
    assert "share" in run(*words, "--max-usd", "0.10", **variables)["error"]["problems"][0]["where"]
    assert "--max-usd" in run(*words, **variables)["error"]["next"]
    assert simulator.requests.count("PutObject", service="s3") == puts
    assert simulator.requests.count("CreateTrainingJob") == 0

    record = run(*words, "--max-usd", "3", **variables)
    assert [job["status"] for job in record["jobs"]] == ["Completed", "Completed"], record
    assert all(0 < job["usd"] < 1.5 for job in record["jobs"])
    first, second = (simulator.job(job["job"]) for job in record["jobs"])
    asked = simulator.requests.of("CreateTrainingJob")
    assert [one.parameters["TrainingJobName"] for one in asked if one.error is None] == [first.name, second.name]
    assert any(one.error is not None for one in asked)  # the second was asked for while the first one ran

    adapters = {}
    for job in record["jobs"]:
        folder = tmp_path / job["job"]
        run("adapters", "pull", job["job"], "--to", str(folder), **variables)
        adapters[job["settings"]["rank"]] = folder
    require_columns(Image.open(record["contact_sheet"]), adapters)

    made = len(asked)
    again = run(*words, "--max-usd", "3", **variables)
    assert again == record
    assert simulator.requests.count("CreateTrainingJob") == made
