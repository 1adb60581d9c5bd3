"""A dry run, a submit and the same submit again, beside the SageMaker SDK's `ModelTrainer` with the same job.

Each is a process of its own, as a person starts it, in turns, against one loopback server: a SageMaker that checks
requests and moto for the rest. The server counts what comes. Needs the `container` extra, which is not in `make setup`.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import boto3
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "simulator")]  # the simulator and its account: part of the tests

from account import IMAGE, REGION, ROLE, furnish  # noqa: E402
from sagemaker_simulator import SageMakerSimulator, SimulatorServer, access_denied  # noqa: E402

from benchmarks.report import write_section  # noqa: E402
from orchestrator.contract.bundle import BundleKind  # noqa: E402
from orchestrator.planning.bundle import bundle_tree  # noqa: E402
from orchestrator.storage import FolderStore, folder_of  # noqa: E402

ROUNDS = 7
STEPS = ("dry run", "submit", "the same again")
INSTANCE_TYPE = "ml.g5.xlarge"
_EXIF = {0x010F: "Camera maker", 0x0110: "Camera", 0x0132: "2026:01:02 03:04:05"}  # EXIF 2.3: make, model, date
_TURNED = {0x0112: 6}  # EXIF 2.3: held upright


class Job(NamedTuple):
    """What both sides run."""

    name: str
    pictures: Path
    bucket: str


class Outcome(NamedTuple):
    """What a command took and what it asked of AWS."""

    seconds: float
    of_s3: Counter[str]
    """Requests to S3, by operation."""
    elsewhere: int
    """Requests to other services."""
    s3_bytes: int
    """Sent to S3 in bodies of requests."""
    jobs: int
    """Training jobs it made."""


Command = Callable[[Job], list[str]]


def our_command(job: Job) -> list[str]:
    """Return our submit: a Hub model, so that no side has weights to bring."""
    options = {
        "--images": str(job.pictures),
        "--prompt": "a photo of sks dog",
        "--base-model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "--set": "resolution=512",
        "--name": job.name,
        "--target": "sagemaker",
        "--instance-type": INSTANCE_TYPE,
    }
    return ["-m", "orchestrator", "submit", "dreambooth", *_words(options), "--detach", "--yes", "--json"]


def sdk_command(home: Path) -> Command:
    """Return how the SDK runs the same code with the same hyperparameters; both are written to `home` once."""
    code = folder_of(FolderStore(home / "store").put_tree(bundle_tree(BundleKind.TRAINING)))
    hyperparameters = home / "hyperparameters.json"
    hyperparameters.write_text(json.dumps(_plan(home)["request"]["HyperParameters"]))

    def command(job: Job) -> list[str]:
        options = {
            "--name": job.name,
            "--pictures": str(job.pictures),
            "--code": str(code),
            "--hyperparameters": str(hyperparameters),
            "--image": IMAGE,
            "--role": ROLE,
            "--bucket": job.bucket,
            "--instance-type": INSTANCE_TYPE,
        }
        return ["-m", "benchmarks.model_trainer", *_words(options)]

    return command


def _plan(home: Path) -> dict[str, dict[str, dict[str, str]]]:
    words = our_command(Job("plan", make_pictures(home / "plan"), "none"))
    plan: dict[str, dict[str, dict[str, str]]] = json.loads(_run([*words, "--dry-run"], {}))
    return plan


def make_pictures(folder: Path, *, turned: bool = False) -> Path:
    """Write five JPEGs of a megabyte with EXIF, of a camera held level or upright, and return their folder."""
    folder.mkdir(parents=True)
    for number in range(5):
        noise = random.Random(number).randbytes(3 * 384 * 288)  # noqa: S311  (pixels, not secrets)
        picture = Image.frombytes("RGB", (384, 288), noise).resize((1536, 1152))
        picture.getexif().update({**_EXIF, **(_TURNED if turned else {})})
        picture.save(folder / f"{number}.jpg", quality=93, exif=picture.getexif())
    return folder


@contextmanager
def serve(home: Path) -> Iterator[SageMakerSimulator]:
    """Serve an account; the commands that are started inside find it and are signed in."""
    with (
        SimulatorServer(SageMakerSimulator()) as server,
        patch.dict(os.environ, _environment(home, server.url)),
        patch("boto3.DEFAULT_SESSION", None),  # one that is signed in by these variables
    ):
        furnish()
        # moto lacks this call; an account whose people may not make it is nothing unusual, and the SDK goes on.
        denied = access_denied("iam:SimulatePrincipalPolicy")
        server.simulator.faults.add(denied, "SimulatePrincipalPolicy", service="iam", times=None)
        yield server.simulator
        server.simulator.faults.clear()  # commands without the SDK do not make it


def _environment(home: Path, url: str) -> dict[str, str]:
    # The SDK's telemetry would go to the internet; it validates a role by a call that moto lacks.
    quiet = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
    config = home / "sagemaker.yaml"
    config.write_text(json.dumps(quiet))
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "ORCHESTRATOR_HOME": str(home / "orchestrator"),
        "ORCHESTRATOR_REGION": REGION,
        "ORCHESTRATOR_ACCOUNT_ID": "123456789012",
        "ORCHESTRATOR_ROLE_ARN": ROLE,
        "ORCHESTRATOR_TRAINING_IMAGE": IMAGE,
        "ORCHESTRATOR_BUCKET": "none",
    }


def make_bucket(name: str) -> str:
    """Make a bucket in which nothing was stored before."""
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


def measure(simulator: SageMakerSimulator, words: list[str], bucket: str) -> Outcome:
    """Run a Python command to its end and return what it took."""
    simulator.requests.clear()
    began = time.perf_counter()
    _run(words, {"ORCHESTRATOR_BUCKET": bucket})
    seconds = time.perf_counter() - began
    of_s3 = simulator.requests.of(service="s3")
    made = [one for one in simulator.requests.of("CreateTrainingJob") if one.committed]
    return Outcome(
        seconds,
        Counter(one.operation for one in of_s3),
        simulator.requests.counts().total() - len(of_s3),
        sum(one.call.body_bytes for one in of_s3),
        len(made),
    )


def measure_steps(simulator: SageMakerSimulator, commands: Mapping[str, Command], job: Job) -> Iterator[Outcome]:
    """Measure every step, and each on every side before the next."""
    for step in STEPS:
        for command in commands.values():
            yield measure(simulator, [*command(job), *(["--dry-run"] if step == "dry run" else [])], job.bucket)


def _run(words: list[str], variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for option in options.items() for word in option]


def main() -> None:
    """Write the table, or say what is missing for it."""
    try:
        sdk = f"ModelTrainer {version('sagemaker')}"
    except PackageNotFoundError:
        print(
            "The table of submits stays as it is: the SageMaker SDK is missing (pip install --editable '.[container]')."
        )
        return
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as simulator:
        home = Path(folder)
        commands = {"orchestrator": our_command, sdk: sdk_command(home)}
        pictures, rounds = make_pictures(home / "pictures"), []
        for number in range(ROUNDS + 1):  # the first is not counted: byte code is compiled, moto's back ends loaded
            job = Job(f"round-{number}", pictures, make_bucket(f"round-{number}"))
            rounds.append(list(measure_steps(simulator, commands, job)))
            print(f"round {number} of {ROUNDS}:", *(f"{outcome.seconds:.2f}" for outcome in rounds[-1]), flush=True)
        turned = Job("turned", make_pictures(home / "turned", turned=True), make_bucket("turned"))
        report(list(commands), rounds[1:], list(measure_steps(simulator, commands, turned)))


def report(sides: list[str], rounds: list[list[Outcome]], turned: list[Outcome]) -> None:
    """Print and write the table."""
    places = [(step, side) for step in STEPS for side in sides]
    of_place = [[one[n] for one in rounds] for n in range(len(places))]
    rows = [_row(step, side, outcomes) for (step, side), outcomes in zip(places, of_place, strict=True)]
    seconds = [median(one.seconds for one in outcomes) for outcomes in of_place]
    ratios = ", ".join(f"{theirs / ours:.1f}" for ours, theirs in zip(seconds[::2], seconds[1::2], strict=True))
    ours, theirs = (f"{turned[len(sides) + n].s3_bytes / 1e6:.1f} MB" for n in range(2))
    text = _TEXT.format(rounds=len(rounds), rows="\n".join(rows), ratios=ratios, ours=ours, theirs=theirs)
    print(text)
    write_section("Submit", text)


def _row(step: str, side: str, outcomes: list[Outcome]) -> str:
    usual = outcomes[0]
    of_s3 = ", ".join(f"{count} {operation}" for operation, count in sorted(usual.of_s3.items()))
    seconds, megabytes = median(one.seconds for one in outcomes), median(one.s3_bytes for one in outcomes) / 1e6
    cells = [step, side, f"{seconds:.2f}", of_s3 or "none", f"{megabytes:.2f}", usual.elsewhere, usual.jobs]
    return f"| {' | '.join(map(str, cells))} |"


_TEXT = """\
Five JPEGs of 1536x1152 pixels and a megabyte, with EXIF as phones write it; the same code, image, role and instance
type. Medians of {rounds} rounds in turns; each command is a new process and talks to one loopback server: a SageMaker
of our own, and moto.

| command | | seconds | requests to S3 | MB to S3 | other requests | jobs made |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

ModelTrainer takes {ratios} times as long (dry run, submit, the same again). Its telemetry and its validation of the
role are off, and what it asks about the role's rights is refused at once. It sends pictures as they are, metadata
included, and so fewer bytes where they have to be turned or converted: orchestrator makes PNGs of those. Of the same
pictures by a camera held upright a first submit sends {ours} (orchestrator) and {theirs} (ModelTrainer). It also
asks less of other services; in an account each request costs a round trip that loopback hides.
"""


if __name__ == "__main__":
    main()
