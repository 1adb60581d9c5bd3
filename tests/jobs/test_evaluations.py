"""The life of a job that measures, on this machine: it ends early, goes on, and leaves what it has measured."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import JobError
from orchestrator.jobs.job import Job, submit
from orchestrator.planning.plan import Plan
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget

# Draws one image and fails, unless it was drawn before: then the result is written, with the digest that was given.
SCRIPT = """
import hashlib
image = root / "checkpoints" / "image"
if not image.exists():
    image.write_text("drawn")
    emit(event="item", done=1, of=4)
    emit(event="failed", kind="disk-full", message="No space is left.", next_step="")
    sys.exit(1)
picture = b"png"
(root / "model" / "contact_sheet.png").write_bytes(picture)
adapter = {"name": "dog", "sha256": "0", "recipe": "dreambooth", "kind": "lora"}
base = {"id": "builtin", "fingerprint": "f", "family": "sd"}
files = {"contact_sheet.png": {"sha256": hashlib.sha256(CLAIMED or picture).hexdigest(), "size": len(picture)}}
result = {"adapter": adapter, "base_model": base, "prompts": [], "seeds": [1], "bundle_sha256": "b", "libraries": {},
          "drawn_with": {"steps": 1, "guidance": 1, "size": 64}, "files": files}
(root / "model" / "evaluation.json").write_text(json.dumps(result))
"""
Make = Callable[..., Request]


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings)


def evaluation(make: Make, settings: Settings, script: str) -> Plan:
    request = make(script, name="dog-evaluation-0000000000")
    output = settings.evaluations / request["TrainingJobName"]
    request["HyperParameters"] = {"recipe": '"evaluate"', "adapter": '"dog"'}
    request["OutputDataConfig"] = {"S3OutputPath": output.as_uri()}
    return Plan(request=request)


def test_the_same_command_goes_on_with_the_images_that_were_drawn(
    training_request: Make, settings: Settings, target: ProcessTarget
) -> None:
    plan = evaluation(training_request, settings, f"CLAIMED = b''\n{SCRIPT}")
    job, _ = submit(plan, target)
    assert job.wait().status is JobStatus.FAILED
    cause = job.explain().cause
    assert "1 of 4 images are drawn" in cause
    assert "A retry draws those that are missing." in cause

    again, started = submit(plan, target)  # neither --resume nor --restart
    assert started
    assert again.wait().status is JobStatus.COMPLETED, again.describe()
    finished = again.finished()
    assert finished.problem is None
    assert finished.evaluation is not None
    assert finished.evaluation.adapter.name == "dog"
    assert (settings.evaluations / job.name / "contact_sheet.png").is_file()
    assert not submit(plan, target).started


def test_a_result_with_a_damaged_file_is_not_published(
    training_request: Make, settings: Settings, target: ProcessTarget
) -> None:
    plan = evaluation(training_request, settings, f"CLAIMED = b'other'\n{SCRIPT}")
    job, _ = submit(plan, target)
    job.wait()
    job.resume()
    described = job.wait()
    assert described.status is JobStatus.FAILED
    assert described.failure_reason == "The evaluation is damaged: contact_sheet.png."
    assert not Path(settings.evaluations / job.name).exists()


def test_the_result_of_a_job_whose_record_is_lost_still_tells_that_it_is_complete(
    training_request: Make, settings: Settings, target: ProcessTarget
) -> None:
    plan = evaluation(training_request, settings, f"CLAIMED = b''\n{SCRIPT}")
    job, _ = submit(plan, target)
    job.wait()
    job.resume()
    job.wait()
    (settings.jobs / job.name / "state.json").unlink()
    assert Job(target, job.name).describe().status is JobStatus.COMPLETED
    with pytest.raises(JobError, match="is complete"):
        target.resume(job.name)
