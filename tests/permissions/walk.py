"""The way through the product of somebody who has the submit policy: each step is a command, or says what it does.

`Walk` is the state of one way; `STEPS` are its steps in their order.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from PIL import Image as Picture
from sagemaker_simulator import SageMakerSimulator

from orchestrator.aws.client import Aws
from orchestrator.cli import cli
from orchestrator.errors import MachineError, MissingError
from orchestrator.settings import AwsSettings
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.meter import Meter
from orchestrator.storage.upload import Upload, Uploader
from tests.permissions.grants import Grants

SAMPLE = Path("orchestrator/assets/sample")
MEBIBYTE = 2**20
_ON_SAGEMAKER = ("--target", "sagemaker", "--max-usd", "9", "--detach")


class World(NamedTuple):
    """An account with policies in force, and those who are in it."""

    simulator: SageMakerSimulator
    account: AwsSettings
    owner: Callable[[str], Any]
    """Makes clients that may everything."""
    submitter: Aws
    """A session of somebody who has the submit policy alone."""
    grants: Grants
    """The policies."""


class Walk:
    """One way through."""

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world = world
        self.name = name
        self.folder = folder
        self.submit_words = ["submit", "dreambooth", "--prompt", "a photo of sks dog", *_ON_SAGEMAKER]
        self.job = ""

    def run(self, *words: str) -> Any:
        """Give a command and return what it prints as JSON; raises its error."""
        return json.loads(self.print(*words, "--json"))

    def print(self, *words: str) -> str:
        """Give a command and return what it prints."""
        return CliRunner().invoke(cli, list(words), catch_exceptions=False).stdout

    def submit(self, name: str, **options: str) -> str:
        """Submit a job with a picture that was never there before and return its name."""
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        return str(self.run(*self.submit_words, "--images", str(self._pictures()), "--name", name, *words)["name"])

    def _pictures(self) -> Path:
        pictures = self.folder / "pictures"
        if not pictures.exists():
            pictures.mkdir(parents=True)
            shutil.copy(next(SAMPLE.glob("*.png")), pictures / "one.png")
            with Picture.open(pictures / "one.png") as picture:
                picture.putpixel((0, 0), tuple(self.name.encode()[-3:]))
                picture.save(pictures / "one.png")
        return pictures

    def until_it_waits(self, job: str) -> None:
        """Let a job train until it waits to be stopped; raises what `jobs wait` raises when it never does."""
        simulator = self.world.simulator
        simulator.run_until(job, "Training", "Failed")
        if simulator.job(job).is_final:
            self.run("jobs", "wait", job)
        simulator.wait_for_line(job, "waits to be stopped")

    def end(self) -> None:
        """Leave no job behind: as the owner, whatever the walk came to."""
        sagemaker, simulator = self.world.owner("sagemaker"), self.world.simulator
        for summary in sagemaker.list_training_jobs(NameContains=self.name)["TrainingJobSummaries"]:
            name = summary["TrainingJobName"]
            if not simulator.job(name).is_final:
                sagemaker.stop_training_job(TrainingJobName=name)
                simulator.run_to_end(name)
            sagemaker.delete_training_job(TrainingJobName=name)

    def uploads(self) -> list[str]:
        """Return what this way has left half-finished in the bucket."""
        listed = self.world.owner("s3").list_multipart_uploads(Bucket=self.world.account.bucket)
        return [key for key in (one["Key"] for one in listed.get("Uploads", [])) if self.name in key]


def infra_show(walk: Walk) -> None:
    assert walk.run("infra", "show")["bucket"] == walk.world.account.bucket


def submit_without_image(walk: Walk) -> None:
    with pytest.MonkeyPatch.context() as patch:
        repository = walk.world.account.training_image.partition(":")[0]
        patch.setenv("ORCHESTRATOR_TRAINING_IMAGE", f"{repository}@sha256:{'0' * 64}")
        try:
            walk.submit(f"early-{walk.name}")
        except MissingError:
            return
    raise AssertionError("a job without its image was submitted")


def submit(walk: Walk) -> None:
    walk.job = walk.submit(walk.name)


def submit_again(walk: Walk) -> None:
    assert walk.submit(walk.name) == walk.job


def submit_over_what_is_there(walk: Walk) -> None:
    """Bring again what an interrupted submit has brought, all but the word that it is complete."""
    s3, bucket = walk.world.owner("s3"), walk.world.account.bucket
    for kind in ("data", "code", "models"):
        for entry in s3.list_objects_v2(Bucket=bucket, Prefix=f"manifests/{kind}/")["Contents"]:
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    assert walk.submit(walk.name) == walk.job


def jobs_list(walk: Walk) -> None:
    assert walk.job in {one["name"] for one in walk.run("jobs", "list")}


def the_job_trains(walk: Walk) -> None:
    walk.until_it_waits(walk.job)


def jobs_show(walk: Walk) -> None:
    assert walk.run("jobs", "show", walk.job)["stage"] == "Training"


def jobs_logs(walk: Walk) -> None:
    assert "waits to be stopped" in walk.print("jobs", "logs", walk.job), "the log is empty"


def jobs_stop(walk: Walk) -> None:
    if walk.run("jobs", "stop", walk.job)["status"] != "Stopped":
        walk.run("jobs", "wait", walk.job)


def jobs_explain(walk: Walk) -> None:
    assert "A retry resumes from step 2" in walk.run("jobs", "explain", walk.job)["cause"]


def jobs_retry(walk: Walk) -> None:
    shown = walk.run("jobs", "retry", walk.job)
    assert (shown["status"], shown["problem"]) == ("Completed", None), shown["problem"]


def jobs_wait(walk: Walk) -> None:
    shown = walk.run("jobs", "wait", walk.job)
    assert shown["adapter"]
    assert shown["report"].endswith("/output/data/report.html")


def figures(walk: Walk) -> None:
    job = walk.world.owner("sagemaker").describe_training_job(TrainingJobName=walk.job)
    assert "loss" in {one["MetricName"] for one in job.get("FinalMetricDataList", [])}, "there are no figures"


def adapters_list(walk: Walk) -> None:
    assert walk.name in {one["name"] for one in walk.run("adapters", "list")}


def adapters_show(walk: Walk) -> None:
    assert walk.run("adapters", "show", walk.name)["job"] == f"{walk.job}-r2"


def adapters_pull(walk: Walk) -> None:
    folder = walk.run("adapters", "pull", walk.name, "--to", str(walk.folder / "pulled"))["folder"]
    assert (Path(folder) / "pytorch_lora_weights.safetensors").read_bytes() == b"weights"


def batch_words(walk: Walk) -> list[str]:
    file = walk.folder / "prompts.txt"
    file.write_text(f"a picture for {walk.name}\n")
    return ["generate", "--batch", str(file), "--target", "sagemaker", "--max-usd", "9"]


def a_batch_is_drawn(walk: Walk) -> None:
    shown = walk.run(*batch_words(walk))
    assert shown["status"] == "Completed", shown["failure_reason"]


def a_batch_is_collected(walk: Walk) -> None:
    walk.run(*batch_words(walk), "-o", str(walk.folder / "images"))
    assert (walk.folder / "images" / "00001.png").is_file()


def jobs_remove(walk: Walk) -> None:
    walk.run("jobs", "remove", walk.job)
    walk.world.simulator.clock.advance(60)  # until then it is Deleting
    assert walk.job not in {one["name"] for one in walk.run("jobs", "list")}


def large_upload_that_fails(walk: Walk) -> None:
    path = walk.folder / "large"
    path.write_bytes(bytes(11 * MEBIBYTE))
    upload = Upload(f"models/{walk.name}/large", path, 11 * MEBIBYTE, "0" * 64)
    account = walk.world.account
    bucket = Bucket(walk.world.submitter, account.bucket, account.account_id)
    uploader = Uploader(bucket, Meter("models", 0), parts_above=6 * MEBIBYTE, part_bytes=5 * MEBIBYTE)
    with pytest.raises(MachineError, match="changed while it was sent"):  # its hash is another one
        uploader.send([upload], {})
    assert walk.uploads() == [], "half of it stays in the bucket"


def large_adapter_that_fails(walk: Walk) -> None:
    job = walk.submit(f"large-{walk.name}")
    walk.until_it_waits(job)
    with walk.world.grants.without("Key", "kms:Decrypt"):  # which S3 asks for at each part
        assert walk.run("jobs", "stop", job)["status"] == "Failed"
    assert walk.uploads() == [], "half of it stays in the bucket"


Step = Callable[[Walk], None]
STEPS: dict[str, Step] = {
    "infra show": infra_show,
    "submit without its image": submit_without_image,
    "submit": submit,
    "submit again": submit_again,
    "submit over what is there": submit_over_what_is_there,
    "jobs list": jobs_list,
    "the job trains": the_job_trains,
    "jobs show": jobs_show,
    "jobs logs": jobs_logs,
    "jobs stop": jobs_stop,
    "jobs explain": jobs_explain,
    "jobs retry": jobs_retry,
    "jobs wait": jobs_wait,
    "figures": figures,
    "adapters list": adapters_list,
    "adapters show": adapters_show,
    "adapters pull": adapters_pull,
    "a batch is drawn": a_batch_is_drawn,
    "a batch is collected": a_batch_is_collected,
    "a large upload that fails": large_upload_that_fails,
    "a large adapter that cannot be stored": large_adapter_that_fails,
    "jobs remove": jobs_remove,
}
