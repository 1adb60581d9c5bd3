"""What a person can get wrong about a job on SageMaker: one message with the cause and the next act, and no job."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from account import BUCKET, IMAGE, REGION, ROLE, furnish, use_default_session
from moto import mock_aws
from PIL import Image
from sagemaker_simulator import SageMakerSimulator, faults, in_process

from orchestrator.__main__ import main
from orchestrator.requests import Request, channel_uris, identity_of
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import AwsSettings, Settings
from tests.cli.run_here import Run, Said, run_here

ACCOUNT = AwsSettings(region=REGION, account_id="123456789012", bucket=BUCKET, role_arn=ROLE, training_image=IMAGE)
JOB = ("submit", "dreambooth")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SageMakerSimulator]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws(config={"core": {"mock_credentials": False}}), SageMakerSimulator() as made, in_process(made):
        use_default_session()
        furnish()
        yield made


@pytest.fixture
def run(
    settings: Settings,
    service: SageMakerSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command line against an account that is set up."""
    settings.home.mkdir(parents=True)
    settings.aws_file.write_text(ACCOUNT.model_dump_json())

    return run_here(monkeypatch, capsys, "--target", "sagemaker", "--yes")


def assert_refused(said: Said, service: SageMakerSimulator, code: int, cause: str, act: str) -> None:
    """One message with its cause and one thing to do; no traceback, and no job."""
    error = said.errors[said.errors.index("Error: ") :]
    assert said.code == code, said.errors
    assert cause in error
    assert [line for line in error.splitlines() if line.startswith(("Error: ", "Next: "))] == [
        error.splitlines()[0],
        error.splitlines()[-1],
    ]
    assert act in error.splitlines()[-1]
    assert "Traceback" not in said.output + said.errors
    assert all(not one.committed for one in service.requests.of("CreateTrainingJob"))


# --- told on this machine: nothing is asked of AWS

CHANGE = "change what is named"
WORDS = [
    (("--instance-type", "ml.g5.xlarg"), "ml.g5.xlarge", CHANGE),
    (("--instance-type", "ml.m5.xlarge"), "has no GPU", CHANGE),
    (("--instance-type", "g5.xlarge"), "ml.g5.xlarge", CHANGE),
    (("--name", "d" * 41), "40 at most", "--name NAME"),
    (("--name", "../dog"), "is not a valid name", "--name NAME"),
    (("--max-usd", "0.02"), "allow at least", "change what is named"),
    (("--max-usd", "-1"), "budget.max_usd", CHANGE),
    (("--max-usd", "much"), "budget.max_usd", CHANGE),
    (("--max-usd", "nan"), "budget.max_usd", CHANGE),
    (("--spot", "-s", "checkpoint_minutes=300"), "checkpoint_minutes=300", CHANGE),
    (("--spot", "--max-usd", "0.2", "-s", "checkpoint_minutes=60"), "checkpoint", "change what is named"),
    (("-s", "compute.colour=red"), "compute.colour", CHANGE),
    (("--max-usd", "1e30"), "budget.max_usd", CHANGE),
    (("--wait-minutes", "soon"), "is not a valid integer", "submit --help"),
    (("--wait-minutes", "nan"), "is not a valid integer", "submit --help"),
]


@pytest.mark.parametrize(
    ("words", "cause", "act"), WORDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_word_that_cannot_be_is_refused_before_anything_is_sent(
    run: Run, service: SageMakerSimulator, words: tuple[str, ...], cause: str, act: str
) -> None:
    service.requests.clear()
    assert_refused(run(*JOB, *words), service, 2, cause, act)
    assert service.requests.counts() == {}


@pytest.mark.parametrize(
    ("text", "words", "cause"),
    [
        ("compute: {instance_typ: ml.g5.xlarge}", (), "compute.instance_typ"),
        ("compute: {spot: true, colour: red}\nbudget: {max_eur: 3}", (), "budget.max_eur"),
        ("compute: fast", (), "compute"),
        ("compute: fast", ("--spot",), "compute"),
        ("compute: [ml.g5.xlarge]", ("--instance-type", "ml.g5.xlarge"), "compute"),
        ("budget: 3", ("--max-usd", "3"), "budget"),
        ("budget: 3", ("-s", "budget.max_usd=3"), "budget"),
    ],
)
def test_a_job_file_that_says_what_there_is_not_is_refused(
    run: Run, service: SageMakerSimulator, tmp_path: Path, text: str, words: tuple[str, ...], cause: str
) -> None:
    (tmp_path / "job.yaml").write_text(f"recipe: dreambooth\n{text}\n")
    service.requests.clear()
    assert_refused(run("submit", str(tmp_path / "job.yaml"), *words), service, 2, cause, CHANGE)
    assert service.requests.counts() == {}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "one.png")
    return folder


@pytest.mark.parametrize("name", ["../one.png", "/etc/passwd", "..\\one.png"])
def test_captions_of_pictures_elsewhere_are_refused(
    run: Run, service: SageMakerSimulator, photos: Path, name: str
) -> None:
    (photos / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "sks dog"}))
    said = run(*JOB, "--images", str(photos), "--prompt", "a photo of sks dog")
    assert_refused(said, service, 3, "points outside the folder", "fix or remove these files")


def test_a_link_out_of_the_folder_is_refused(run: Run, service: SageMakerSimulator, photos: Path) -> None:
    (photos.parent / "private.png").write_bytes((photos / "one.png").read_bytes())
    (photos / "two.png").symlink_to(photos.parent / "private.png")
    said = run(*JOB, "--images", str(photos), "--prompt", "a photo of sks dog")
    assert_refused(said, service, 3, "two.png: is a link to a file outside", "fix or remove these files")


def test_a_model_of_pickles_is_refused(run: Run, service: SageMakerSimulator, tmp_path: Path) -> None:
    shutil.copytree(BUILTIN_MODEL, tmp_path / "model")
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    said = run(*JOB, "--base-model", str(tmp_path / "model"))
    assert_refused(
        said,
        service,
        2,
        "unet/ has no diffusion_pytorch_model.safetensors but diffusion_pytorch_model.bin, a pickle",
        "--base-model MODEL",
    )


# --- told by the account


def test_before_an_account_is_set_up_the_next_command_does_it(
    run: Run, service: SageMakerSimulator, settings: Settings
) -> None:
    settings.aws_file.unlink()
    assert_refused(run(*JOB), service, 6, "No AWS account is set up", "infra up")


def test_a_region_that_cannot_be_one_is_named(
    run: Run, service: SageMakerSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_REGION", "moon")
    assert_refused(run(*JOB), service, 5, "region", "infra show")


def test_without_credentials_the_next_command_signs_in(
    run: Run, service: SageMakerSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    assert_refused(run(*JOB), service, 6, "no AWS credentials", "aws configure")


@pytest.mark.parametrize(("where", "operation"), [("s3", "*"), ("sagemaker", "*"), ("sagemaker", "CreateTrainingJob")])
def test_an_expired_session_is_named_wherever_it_ends(
    run: Run, service: SageMakerSimulator, where: str, operation: str
) -> None:
    service.faults.add(faults.expired_token(), operation, service=where, times=None)
    assert_refused(run(*JOB), service, 6, "session has expired", "aws sso login")


@pytest.mark.parametrize(
    ("changed", "cause", "act"),
    [
        ({"bucket": "no-such-bucket"}, "the bucket does not exist", "infra up"),
        ({"role_arn": "arn:aws:iam::123456789012:role/nobody"}, "role", "infra show"),
        ({"role_arn": "arn:aws:iam::999999999999:role/training"}, "role", "infra show"),
    ],
    ids=["bucket", "role", "role of another account"],
)
def test_what_the_account_lacks_is_named(
    run: Run, service: SageMakerSimulator, settings: Settings, changed: dict[str, str], cause: str, act: str
) -> None:
    settings.aws_file.write_text(ACCOUNT.model_copy(update=changed).model_dump_json())
    assert_refused(run(*JOB), service, 6, cause, act)


def test_a_bucket_of_another_account_is_named(run: Run, service: SageMakerSimulator) -> None:
    service.faults.add(faults.refusal("AccessDenied", "Access Denied", 403), "*", service="s3", times=None)
    assert_refused(run(*JOB), service, 6, "belongs to another account", "infra show")


def test_an_instance_the_account_may_not_have_is_answered_with_the_request_for_it(
    run: Run, service: SageMakerSimulator
) -> None:
    service.quotas["ml.g4dn.xlarge for training job usage"] = 0
    said = run(*JOB)
    assert_refused(said, service, 6, '"ml.g4dn.xlarge for training job usage" is 0', "--fallback")
    assert "request-service-quota-increase" in said.errors


# --- consent, and the place that is meant


def test_nothing_is_spent_without_a_cap_where_nobody_can_be_asked(
    settings: Settings, service: SageMakerSimulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.home.mkdir(parents=True)
    settings.aws_file.write_text(ACCOUNT.model_dump_json())
    service.requests.clear()
    monkeypatch.setattr(sys, "argv", ["orchestrator", *JOB, "--target", "sagemaker"])
    assert main() == 2
    assert "--max-usd USD, or --yes" in capsys.readouterr().err
    assert service.requests.count("CreateTrainingJob") == 0
    assert service.requests.of(service="s3") == []


@pytest.mark.parametrize(
    ("words", "field"),
    [
        *((("--spot",), ""), (("--max-usd", "3"), ""), (("--fallback",), ""), (("--wait-minutes", "5"), "")),
        *((("-s", "compute.spot=true"), " compute.spot"), (("-s", "budget.max_usd=3"), " budget.max_usd")),
    ],
)
def test_flags_of_sagemaker_are_not_ignored_on_this_machine(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    field: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["orchestrator", *JOB, *words])
    assert main() == 2
    assert f"{words[0]}{field} can only be given for a job on SageMaker" in capsys.readouterr().err
    assert not settings.jobs.exists()


def test_a_plan_for_a_region_that_is_none_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_REGION", "mars-1")
    monkeypatch.setattr(sys, "argv", ["orchestrator", *JOB, "--target", "sagemaker", "--dry-run"])
    assert main() == 5
    assert '"mars-1" is not an AWS region' in capsys.readouterr().err


class Terminal(StringIO):
    """A person who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "jobs"), [("\n", 0), ("n\n", 0), ("y\n", 1)])
def test_only_a_yes_is_one(
    settings: Settings,
    service: SageMakerSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    jobs: int,
) -> None:
    settings.home.mkdir(parents=True)
    settings.aws_file.write_text(ACCOUNT.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["orchestrator", *JOB, "--target", "sagemaker", "--max-usd", "3", "--detach"])
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert main() == (0 if jobs else 1)
    said = capsys.readouterr()
    assert ("Nothing was started." in said.err) == (jobs == 0)
    assert service.requests.count("CreateTrainingJob") == jobs
    # What travelled is told once; what a job runs on is told with it.
    assert [line for line in said.err.splitlines() if line.startswith("code: ")][-1:] == ["code: all sent"] * jobs
    assert (f"1 x ml.g4dn.xlarge in {REGION}" in said.out) == (jobs == 1)


def test_a_submit_decodes_each_photo_once_and_sends_what_came_of_that(
    run: Run, service: SageMakerSimulator, turned_photos: Path, decodes: Counter[str]
) -> None:
    said = run(*JOB, "--images", str(turned_photos), "--prompt", "a photo of sks dog", "--detach")
    assert said.code == 0, said.errors
    assert decodes == {"one.jpg": 1, "two.jpg": 1}
    (request,) = [one.parameters for one in service.requests.of("CreateTrainingJob")]
    prefix = channel_uris(request)["training"].removeprefix(f"s3://{BUCKET}/")
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    assert [one["Key"].removeprefix(prefix) for one in listed] == ["00001.png", "00002.png"]


def test_a_refused_sweep_stores_nothing(run: Run, service: SageMakerSimulator) -> None:
    service.requests.clear()
    said = run("sweep", "dreambooth", "-s", "rank=4,8", "--max-usd", "0.02")
    assert said.code == 2
    assert service.requests.count("PutObject") == 0


# --- the image that was found is the one that runs


def pushed_again() -> str:
    """Push another image by the same tag, as a registry with mutable tags allows; return the name with its digest."""
    layer = {"digest": f"sha256:{'1' * 64}", "size": 1}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "layers": [layer],
    }
    name, _, tag = IMAGE.rpartition(":")
    repository = name.partition("/")[2]
    ecr = boto3.client("ecr")
    ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(manifest))
    return digest_name()


def digest_name() -> str:
    """Return the name of the image in the account's settings with the digest that the registry has for it now."""
    name, _, tag = IMAGE.rpartition(":")
    asked = {"repositoryName": name.partition("/")[2], "imageIds": [{"imageTag": tag}]}
    [found] = boto3.client("ecr").describe_images(**asked)["imageDetails"]
    return f"{name}@{found['imageDigest']}"


def created(service: SageMakerSimulator) -> list[Request]:
    return [one.parameters for one in service.requests.of("CreateTrainingJob") if one.committed]


def images_of(service: SageMakerSimulator) -> list[str]:
    return [request["AlgorithmSpecification"]["TrainingImage"] for request in created(service)]


def test_each_attempt_of_a_job_runs_the_image_that_was_found_when_it_was_submitted(
    run: Run, service: SageMakerSimulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = json.loads(run(*JOB, "--dry-run", "--json").output)["request"]
    assert planned["AlgorithmSpecification"]["TrainingImage"] == IMAGE
    first = digest_name()
    assert run(*JOB, "--detach").code == 0
    assert images_of(service) == [first]
    [request] = created(service)
    assert identity_of(request) == identity_of(planned)  # the job is known by what it trains
    assert request["TrainingJobName"] == planned["TrainingJobName"]
    name = request["TrainingJobName"]
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    service.run_to_end(name)
    second = pushed_again()
    assert second != first
    here = run_here(monkeypatch, capsys)
    assert here("jobs", "retry", name, "--detach").code == 0
    assert images_of(service) == [first, first]
    boto3.client("sagemaker").stop_training_job(TrainingJobName=f"{name}-r2")
    service.run_to_end(f"{name}-r2")
    assert run(*JOB, "--restart", "--detach").code == 0  # from its beginning: a new request
    assert images_of(service) == [first, first, second]


def test_a_stand_in_runs_in_the_same_image(run: Run, service: SageMakerSimulator) -> None:
    service.quotas["ml.g4dn.xlarge for training job usage"] = 0
    assert run(*JOB, "--fallback", "--detach").code == 0
    [request] = created(service)
    assert request["ResourceConfig"]["InstanceType"] != "ml.g4dn.xlarge"
    assert images_of(service) == [digest_name()]


def test_who_may_not_look_submits_with_the_tag(run: Run, service: SageMakerSimulator) -> None:
    service.faults.add(faults.access_denied("ecr:DescribeImages"), "DescribeImages", service="ecr")
    assert run(*JOB, "--detach").code == 0
    assert images_of(service) == [IMAGE]


def test_all_jobs_of_a_sweep_run_in_one_image(
    run: Run, service: SageMakerSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = SimpleNamespace(sleep=service.pass_time, monotonic=time.monotonic)
    for module in ("target", "following"):
        monkeypatch.setattr(f"orchestrator.targets.sagemaker.{module}.time", waits)
    planned = json.loads(run("sweep", "dreambooth", "-s", "rank=4,8", "--dry-run", "--json").output)["jobs"]
    assert {one["request"]["AlgorithmSpecification"]["TrainingImage"] for one in planned} == {IMAGE}
    service.images = {}  # neither job has to train
    run("sweep", "dreambooth", "-s", "rank=4,8")
    assert service.requests.count("DescribeImages", service="ecr") == 1
    assert images_of(service) == [digest_name()] * 2
