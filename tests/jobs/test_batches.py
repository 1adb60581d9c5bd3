"""The life of a job that draws a batch, on this machine: it ends early, goes on, and leaves its images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.jobs.job import Job, submit
from orchestrator.planning.plan import Plan
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget

# Draws one image and fails, unless it was drawn before: then both are left, with the digest that was given.
SCRIPT = """
import hashlib
count = os.environ["ORCHESTRATOR_RANKS_PER_HOST"]
emit(event="warning", message=f"{count} processes")
image = root / "checkpoints" / "image"
if not image.exists():
    image.write_text("drawn")
    emit(event="item", done=1, of=2)
    emit(event="failed", kind="lost-process", message="Worker 2 of 3 was ended by SIGKILL.", next_step="")
    sys.exit(1)
(root / "model" / "images").mkdir()
images = []
for number in range(2):
    name = f"{number:032x}"
    picture = name.encode()
    (root / "model" / "images" / f"{name}.png").write_bytes(picture)
    digest = {"sha256": hashlib.sha256(CLAIMED or picture).hexdigest(), "size": len(picture)}
    drawn = {"prompt": "a", "seed": number, "steps": 1, "guidance": 1, "width": 64, "height": 64}
    images.append({"id": name, "name": f"0000{number}", "digest": digest, **drawn})
base = {"id": "builtin", "fingerprint": "f", "family": "sd"}
index = {"host": 0, "hosts": 1, "total": 2, "samples_sha256": "s", "base_model": base, "libraries": {}}
index["images"] = images
(root / "model" / "index-1-of-1.json").write_text(json.dumps(index))
"""
Make = Callable[..., Request]


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings)


def batch(make: Make, settings: Settings, claimed: str = "b''") -> Plan:
    request = make(f"CLAIMED = {claimed}\n{SCRIPT}", name="prompts-images-0000000000")
    output = settings.images / request["TrainingJobName"]
    request["HyperParameters"] = {"recipe": '"generate"', "images": "2"}
    request["OutputDataConfig"] = {"S3OutputPath": output.as_uri()}
    request["ResourceConfig"] = {"InstanceCount": 3}
    return Plan(request=request)


def test_the_same_command_goes_on_and_may_do_so_with_another_number_of_processes(
    training_request: Make, settings: Settings, target: ProcessTarget
) -> None:
    plan = batch(training_request, settings)
    job, _ = submit(plan, target)
    assert job.wait().status is JobStatus.FAILED
    cause = job.explain().cause
    assert "Worker 2 of 3" in cause
    assert "1 of 2 images are drawn. A retry draws those that are missing." in cause

    fewer = {**plan.request, "ResourceConfig": {"InstanceCount": 2}}
    again, started = submit(plan.model_copy(update={"request": fewer}), target)  # neither --resume nor --restart
    assert started
    assert again.wait().status is JobStatus.COMPLETED, again.describe()
    log = "\n".join(again.log_lines())
    assert log.index("3 processes") < log.index("2 processes")
    finished = again.finished()
    assert finished.problem is None
    assert finished.images is not None
    assert [image.name for image in finished.images.images] == ["00000", "00001"]
    assert not submit(plan, target).started

    (settings.jobs / job.name / "state.json").unlink()  # what lies in its place tells that it is complete
    assert Job(target, job.name).describe().status is JobStatus.COMPLETED


def test_images_that_are_damaged_are_not_published(
    training_request: Make, settings: Settings, target: ProcessTarget
) -> None:
    plan = batch(training_request, settings, "b'other'")
    job, _ = submit(plan, target)
    job.wait()
    job.resume()
    described = job.wait()
    assert described.status is JobStatus.FAILED
    assert str(described.failure_reason).startswith("The images are damaged: images/000")
    assert not Path(settings.images / job.name).exists()
