"""From photos to an adapter on SageMaker: the real commands as processes, a stack, real training, over loopback."""

from pathlib import Path

import boto3
import pytest
from sagemaker_simulator import SimulatorServer

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.checkpoints import MANIFEST_FILE
from orchestrator.settings import Settings
from tests.flows.conftest import Run, Start, answer
from tests.stand_ins.docker import DockerStandIn

SHORT = [
    "-s",
    "steps=4",
    "-s",
    "checkpoint_steps=2",
    "-s",
    "evaluation_prompts=1",
    "-s",
    "evaluation_seeds=2",
    "-s",
    "inference_steps=3",
]
DREAMBOOTH = ["submit", "dreambooth", *SHORT, "-s", "prior_preservation=true", "-s", "class_images=2"]
ON_SAGEMAKER = ["--target", "sagemaker", "--max-usd", "3"]


@pytest.mark.filterwarnings("ignore:Tried to parse")  # what moto's CloudFormation leaves out of the stack
def test_two_jobs_at_once_train_on_sagemaker_and_come_back(
    settings: Settings, service: SimulatorServer, start: Start, run: Run, docker: DockerStandIn, tmp_path: Path
) -> None:
    stack = run("infra", "up")
    assert settings.aws_file.is_file(), stack

    # Without the image a job could not start: nothing is sent for it.
    refused = run(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine")["error"]
    assert (refused["kind"], refused["next"]) == ("MissingError", "python -m orchestrator infra image")
    assert service.simulator.requests.count("PutObject", service="s3") == 0
    pushed = {"image": stack["training_image"], "built": True, "pushed": True, "warning": ""}
    assert run("infra", "image") == pushed
    assert run("infra", "image") == {**pushed, "built": False, "pushed": False}

    words = ["submit", "textual-inversion", *SHORT, "--name", "word", *ON_SAGEMAKER]
    first, second = (answer(one) for one in [start(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine"), start(*words)])
    assert (first["status"], second["status"]) == ("Completed", "Completed"), (first, second)
    assert first["usd"] > 0
    assert {one["name"] for one in run("jobs", "list")} == {first["name"], second["name"]}

    keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "none", "region_name": "eu-west-1"}
    s3 = boto3.client("s3", endpoint_url=service.url, **keys)
    left = s3.list_objects_v2(Bucket=stack["bucket"], Prefix="checkpoints/").get("Contents", [])
    steps = [key["Key"].split("/")[2] for key in left if key["Key"].endswith(MANIFEST_FILE)]
    assert steps == ["step-00000004"] * 2, "a complete job leaves gigabytes of older checkpoints"

    # Beside each adapter: the report of its run, with the price of its instance, and TensorBoard's files.
    results = s3.list_objects_v2(Bucket=stack["bucket"], Prefix="adapters/mine/")["Contents"]
    boards = [
        one["Key"] for one in results if f"/{first['name']}/tensorboard-output/events.out.tfevents." in one["Key"]
    ]
    assert len(boards) == 1
    bucket, _, report = first["report"].removeprefix("s3://").partition("/")
    page = s3.get_object(Bucket=bucket, Key=report)["Body"].read().decode()
    assert "an hour" in page
    assert "ml." in page

    listed = {one["name"]: one for one in run("adapters", "list")}
    assert set(listed) == {"mine", "word"}
    assert run("adapters", "show", "mine") == listed["mine"]
    folder = Path(run("adapters", "pull", "mine", "--to", str(tmp_path / "pulled"))["folder"])
    manifest = AdapterManifest.read(folder)
    assert manifest.damaged_files(folder) == []

    # The same job on this machine: the same bytes, and so the same pictures before and after.
    here = Path(run(*DREAMBOOTH, "--name", "mine")["adapter"])
    assert manifest.files == AdapterManifest.read(here).files

    # The adapter in the bucket is measured there: by a job like the others, whose result is no adapter.
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of {} on a red background\n")
    evaluation = run("evaluate", "word", "--prompts", str(prompts), "--seeds", "1", *ON_SAGEMAKER)
    assert evaluation["status"] == "Completed", evaluation
    assert {figure["measure"] for figure in evaluation["evaluation"]["figures"]} >= {"subject_fidelity", "drift"}
    assert evaluation["evaluation"]["adapter"]["name"] == "word"
    assert evaluation["report"].startswith("s3://")
    assert {one["name"] for one in run("adapters", "list")} == {"mine", "word"}

    draw_a_batch(run, tmp_path)
    assert {one["name"] for one in run("adapters", "list")} == {"mine", "word"}

    # The same again is the same job: nothing is sent, nothing is made.
    puts = service.simulator.requests.count("PutObject", service="s3")
    again = run(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine")
    assert (again["name"], again["status"]) == (first["name"], "Completed")
    assert service.simulator.requests.count("PutObject", service="s3") == puts
    assert service.simulator.requests.count("CreateTrainingJob") == 4


def draw_a_batch(run: Run, folder: Path) -> None:
    """Draw with the adapter in the bucket there, and collect the images."""
    (folder / "lines.txt").write_text("a monster on a red background\na monster\n")
    batch = ["generate", "--batch", str(folder / "lines.txt"), "--adapter", "mine", "--steps", "2", *ON_SAGEMAKER]
    drawn = run(*batch, "-o", str(folder / "drawn"))
    assert (drawn["status"], len(drawn["images"])) == ("Completed", 2), drawn
    assert {path.name for path in (folder / "drawn").iterdir()} == {"00001.png", "00002.png", "index.json"}
