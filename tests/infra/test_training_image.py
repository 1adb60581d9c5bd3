"""The image jobs run in: its name, the way into the registry, what docker says when it fails, and who asks for it."""

import ast
import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, SimulatorServer, faults, in_process

from orchestrator import __version__, container_images, errors
from orchestrator.aws.client import Aws
from orchestrator.cli import cli
from orchestrator.container_images import ImageKind, image_here
from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.digest import hash_files
from orchestrator.infra import training_image as images
from orchestrator.resources import CONTAINERS, ENTRYPOINTS, PACKAGE
from orchestrator.settings import AwsSettings
from tests.stand_ins.docker import DockerStandIn

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"
ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
REPOSITORY = "orchestrator-training"
DOCKERS = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(), SageMakerSimulator() as made, in_process(made):
        yield made


@pytest.fixture
def aws(simulator: SageMakerSimulator) -> Aws:
    """An account with the repository that `infra up` makes, and nothing in it."""
    session = Aws(REGION)
    session.client("ecr").create_repository(repositoryName=REPOSITORY, imageTagMutability="IMMUTABLE")
    return session


def account(image: str = "") -> AwsSettings:
    role = f"arn:aws:iam::{ACCOUNT}:role/job"
    image = image or f"{REGISTRY}/{REPOSITORY}:{images.image_tag()}"
    return AwsSettings(region=REGION, account_id=ACCOUNT, bucket="pictures", role_arn=role, training_image=image)


def put_image(aws: Aws, tag: str = "", repository: str = REPOSITORY) -> None:
    manifest = f'{{"schemaVersion": 2, "mediaType": "{DOCKERS}", "config": {{}}, "layers": []}}'
    tag = tag or images.image_tag()
    aws.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)


def publish(
    aws: Aws,
    of: AwsSettings | None = None,
    reported: list[str] | None = None,
    how: images.Build | None = None,
) -> images.Image:
    lines = reported if reported is not None else []
    return images.publish(aws, of or account(), how or images.Build(), report=lines.append)


# ---------------------------------------------------------------------------------------------- the name


def test_another_content_is_another_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONTAINERS, tmp_path / "containers")
    tag = images.image_tag()
    monkeypatch.setattr(container_images, "CONTAINERS", tmp_path / "containers")
    assert images.image_tag() == tag  # wherever it lies
    assert tag.startswith(f"{__version__}-")
    for name in container_images.SOURCES:
        with (tmp_path / "containers" / name).open("a") as file:
            file.write("# changed\n")
        assert images.image_tag() != tag
        tag = images.image_tag()


# ---------------------------------------------------------------------------------------------- into the registry


def test_the_image_is_built_and_pushed_under_the_stacks_name(aws: Aws, docker: DockerStandIn) -> None:
    reported: list[str] = []
    made = publish(aws, reported=reported)
    assert (made.image, made.built, made.pushed) == (account().training_image, True, True)
    [build], [push] = docker.calls("build"), docker.calls("push")
    assert build["words"][1:3] == ["--platform", "linux/amd64"]
    assert build["words"][-1] == str(CONTAINERS)
    assert build["words"][build["words"].index("--file") + 1] == str(CONTAINERS / "training" / "Dockerfile")
    assert f"VERSION={__version__}" in build["words"]
    assert push["words"] == ["push", made.image]
    assert any("Successfully tagged" in line for line in reported)


def test_the_password_goes_in_by_stdin_and_stays_nowhere(
    aws: Aws, docker: DockerStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    reported: list[str] = []
    publish(aws, reported=reported)
    token = aws.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    password = base64.b64decode(token).decode().partition(":")[2]
    [login], [push] = docker.calls("login"), docker.calls("push")
    assert login["typed"] == password
    everything = [word for call in docker.calls() for word in call["words"]] + reported
    assert [word for word in everything if password in word] == []
    assert not (tmp_path / "home").exists()
    assert not Path(login["config"]).parent.exists()
    # With a configuration of its own docker would not know which engine the person uses.
    assert login["host"] == push["host"] == "unix:///run/the-person's-own.sock"


def test_an_image_that_is_there_is_left_alone(aws: Aws, docker: DockerStandIn) -> None:
    put_image(aws)
    made = publish(aws)
    assert (made.built, made.pushed) == (False, False)
    assert docker.calls() == []


def test_an_image_is_for_this_machine_alone_when_it_is_only_built(docker: DockerStandIn) -> None:
    made = images.build(images.Build(platform="linux/arm64"), report=[].append)
    assert (made.image, made.pushed) == (f"orchestrator-training:{images.image_tag()}", False)
    assert "linux/arm64" in docker.calls("build")[0]["words"]
    assert docker.calls("push") == docker.calls("login") == []


@pytest.mark.parametrize("buildx", [True, False])
def test_newer_engines_are_told_to_make_dockers_own_format(docker: DockerStandIn, buildx: bool) -> None:
    if buildx:
        docker.has_buildx()
    docker.fails("image", "No such image")
    images.build(images.Build(), report=[].append)
    words = docker.calls("build")[0]["words"]
    assert ("--provenance=false" in words) == ("type=docker" in words) == buildx


@pytest.mark.parametrize("driver", ["docker", "docker-container"])
def test_what_any_kind_of_builder_has_built_can_be_pushed(aws: Aws, docker: DockerStandIn, driver: str) -> None:
    docker.has_buildx(driver)
    assert publish(aws).pushed


def test_somebody_who_was_quicker_is_no_failure(aws: Aws, docker: DockerStandIn) -> None:
    docker.fails(
        "push", "tag invalid: The image tag 'x' already exists and cannot be overwritten: the tag is immutable."
    )
    assert (publish(aws).built, publish(aws).pushed) == (True, False)


def test_a_format_that_sagemaker_may_refuse_is_remarked_on(
    docker: DockerStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SimulatorServer(SageMakerSimulator()) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        session = Aws(REGION)
        session.client("ecr").create_repository(repositoryName=REPOSITORY)
        docker.makes("application/vnd.oci.image.manifest.v1+json")
        made = publish(session)
    assert made.pushed
    assert "oci" in made.warning


# ---------------------------------------------------------------------------------------------- what can fail

NO_SOCKET = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
NOT_MINE = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get"
NOT_ALLOWED = (
    "denied: User: arn:aws:iam::123456789012:user/ada is not authorized to perform: ecr:InitiateLayerUpload on resource"
)
FAILURES = [
    ("version", NO_SOCKET, errors.MachineError, "systemctl start docker"),
    ("version", NOT_MINE, errors.MachineError, "usermod"),
    ("build", "write /usr/lib/libtorch.so: no space left on device", errors.MachineError, "docker system prune"),
    ("build", "exec /bin/sh: exec format error", errors.MachineError, "binfmt"),
    ("build", "Get https://registry-1.docker.io/v2/: dial tcp: no such host", errors.ServiceError, "network"),
    (
        "build",
        "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate'",
        errors.MachineError,
        "--wheelhouse",
    ),
    ("build", "ERROR: No matching distribution found for torch==2.9.0", errors.ServiceError, "--wheelhouse"),
    ("build", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", errors.MachineError, "infra image"),
    ("login", "Error response from daemon: login attempt failed: unauthorized", errors.AccessError, "infra image"),
    ("push", NOT_ALLOWED, errors.AccessError, "account's owner"),
    ("push", "name unknown: The repository with name 'x' does not exist", errors.MissingError, "infra up"),
    ("push", "dial tcp 1.2.3.4:443: i/o timeout", errors.ServiceError, "network"),
]


@pytest.mark.parametrize(("command", "said", "kind", "next_step"), FAILURES, ids=lambda value: str(value)[:40])
def test_what_docker_says_becomes_one_message_with_a_next_command(
    aws: Aws, docker: DockerStandIn, command: str, said: str, kind: type[errors.OrchestratorError], next_step: str
) -> None:
    docker.fails(command, said)
    with pytest.raises(kind) as raised:
        publish(aws)
    assert said in raised.value.message
    assert next_step in raised.value.next_step
    assert docker.calls()[-1]["words"][0] == command  # it went no further


def test_of_a_build_that_fails_the_last_lines_are_shown(aws: Aws, docker: DockerStandIn) -> None:
    lines = [f"\x1b[91mline {number}\x1b[0m" for number in range(100)]
    docker.fails("build", "\n".join(lines))
    with pytest.raises(errors.MachineError) as raised:
        publish(aws)
    assert "line 99" in raised.value.message
    assert "line 50" not in raised.value.message
    assert "\x1b" not in raised.value.message


def test_without_docker_there_is_a_word_on_where_it_comes_from(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.MachineError, match="needs docker") as raised:
        publish(aws)
    assert "docs.docker.com" in raised.value.next_step


@pytest.mark.parametrize("words", [["--build-only"], ["--build-only", "--platform", "linux/arm64"]])
@pytest.mark.parametrize("is_installed", [True, False])
def test_the_command_to_repeat_is_the_one_that_was_typed(
    docker: DockerStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], is_installed: bool
) -> None:
    docker.fails("version", "permission denied while trying to connect")
    if not is_installed:
        monkeypatch.setenv("PATH", str(tmp_path))
    failed = CliRunner().invoke(cli, ["infra", "image", *words])
    assert isinstance(failed.exception, errors.MachineError)
    assert " ".join(["infra image", *words]) in failed.exception.next_step


def test_whoever_may_not_push_learns_it_before_minutes_of_building(
    simulator: SageMakerSimulator, aws: Aws, docker: DockerStandIn
) -> None:
    simulator.faults.add(faults.access_denied("ecr:GetAuthorizationToken"), "GetAuthorizationToken", service="ecr")
    with pytest.raises(errors.AccessError) as raised:
        publish(aws)
    assert "account's owner" in raised.value.next_step
    assert docker.calls("build") == []


def test_a_stack_of_another_version_is_brought_up_to_date_first(aws: Aws, docker: DockerStandIn) -> None:
    with pytest.raises(errors.AccountError) as raised:
        publish(aws, account(f"{REGISTRY}/{REPOSITORY}:0.0.1"))
    assert raised.value.next_step.endswith("infra up")
    assert docker.calls() == []


def test_an_image_of_another_registry_is_not_built(aws: Aws, docker: DockerStandIn) -> None:
    with pytest.raises(errors.AccountError, match="nothing to build"):
        publish(aws, account("763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2"))
    assert docker.calls() == []


def test_without_a_repository_the_stack_is_to_be_made(aws: Aws, docker: DockerStandIn) -> None:
    with pytest.raises(errors.MissingError) as raised:
        publish(aws, account(f"{REGISTRY}/gone:{images.image_tag()}"))
    assert raised.value.next_step.endswith("infra up")
    assert docker.calls() == []


# ---------------------------------------------------------------------------------------------- before money is spent


def digest_of(aws: Aws, repository: str = REPOSITORY) -> str:
    [found] = aws.client("ecr").describe_images(repositoryName=repository)["imageDetails"]
    return str(found["imageDigest"])


def test_no_job_is_submitted_without_its_image(aws: Aws) -> None:
    with pytest.raises(errors.MissingError, match="Nothing was submitted") as raised:
        images.require_image(aws, account())
    assert raised.value.next_step == "python -m orchestrator infra image"
    put_image(aws)
    assert images.require_image(aws, account()) == f"{REGISTRY}/{REPOSITORY}@{digest_of(aws)}"


@pytest.mark.parametrize("tag", ["0.0.1-0123456789", f"{__version__}-0123456789", "latest"])
def test_after_an_upgrade_no_job_is_submitted_to_the_image_before_it(aws: Aws, tag: str) -> None:
    put_image(aws, tag)
    with pytest.raises(errors.AccountError, match="Nothing was submitted") as raised:
        images.require_image(aws, account(f"{REGISTRY}/{REPOSITORY}:{tag}"))
    assert "infra up && python -m orchestrator infra image" in str(raised.value.next_step)


def test_an_image_of_ones_own_may_have_any_tag(aws: Aws) -> None:
    aws.client("ecr").create_repository(repositoryName="mine")
    put_image(aws, "v2", "mine")
    name = images.require_image(aws, account(f"{REGISTRY}/mine:v2"))
    assert name == f"{REGISTRY}/mine@{digest_of(aws, 'mine')}"


def test_an_image_can_be_named_by_its_digest(aws: Aws) -> None:
    absent = account(f"{REGISTRY}/{REPOSITORY}@sha256:{'0' * 64}")
    with pytest.raises(errors.MissingError, match="Nothing was submitted"):
        images.require_image(aws, absent)
    put_image(aws)
    name = f"{REGISTRY}/{REPOSITORY}@{digest_of(aws)}"
    assert images.require_image(aws, account(name)) == name


def test_whoever_may_not_look_can_submit_all_the_same(simulator: SageMakerSimulator, aws: Aws) -> None:
    simulator.faults.add(faults.access_denied("ecr:DescribeImages"), "DescribeImages", service="ecr")
    assert images.require_image(aws, account()) == account().training_image
    assert simulator.requests.count("DescribeImages", service="ecr") == 1


@pytest.mark.parametrize(
    "image",
    [
        "763104351884.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/orchestrator-training:1",
        "public.example/training:1",
    ],
)
def test_an_image_of_somebody_else_is_not_looked_for(simulator: SageMakerSimulator, aws: Aws, image: str) -> None:
    assert images.require_image(aws, account(image)) == image
    assert simulator.requests.count("DescribeImages", service="ecr") == 0


# ---------------------------------------------------------------------------------------------- what is in it


def pinned(image: str = "training", file: str = "requirements.txt") -> set[str]:
    lines = (CONTAINERS / image / file).read_text().splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-cpu.txt"])
@pytest.mark.parametrize(("image", "kind"), [("training", BundleKind.TRAINING), ("inference", BundleKind.SERVING)])
def test_an_image_has_everything_that_the_code_which_runs_in_it_imports(
    image: str, kind: BundleKind, file: str
) -> None:
    imported = {
        name.partition(".")[0]
        for path in bundle_files(kind, PACKAGE, ENTRYPOINTS).values()
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
    }
    others = imported - set(sys.stdlib_module_names) - {"entrypoints", "orchestrator"}
    assert {"torch", "pydantic", "PIL"} <= others
    if file == "requirements-cpu.txt":
        others -= {"bitsandbytes"}  # imported where there is a GPU
    distributions = packages_distributions()
    lacking = {
        name
        for name in others
        if not {one.lower().replace("_", "-") for one in distributions.get(name, [name])} & pinned(image, file)
    }
    assert lacking == set()


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


@pytest.mark.parametrize("image", ["training", "inference"])
def test_the_images_have_torch_with_the_libraries_of_the_gpu_and_those_without_it_have_none(image: str) -> None:
    assert {"nvidia-cudnn-cu13", "triton"} <= pinned(image)
    assert [name for name in pinned(image, "requirements-cpu.txt") if name.startswith(("nvidia", "triton"))] == []


def test_the_image_of_endpoints_is_pushed_where_the_stack_names_it(aws: Aws, docker: DockerStandIn) -> None:
    aws.client("ecr").create_repository(repositoryName="orchestrator-inference", imageTagMutability="IMMUTABLE")
    name = f"{REGISTRY}/orchestrator-inference:{images.image_tag()}"
    endpoints = account().model_copy(update={"inference_image": name})
    made = publish(aws, endpoints, how=images.Build(kind=ImageKind.INFERENCE))
    assert (made.image, made.built, made.pushed) == (name, True, True)
    words = docker.calls("build")[0]["words"]
    assert words[words.index("--file") + 1] == str(CONTAINERS / "inference" / "Dockerfile")
    assert images.is_missing(aws, endpoints, ImageKind.INFERENCE)  # the stand-in pushes nowhere
    put_image(aws, repository="orchestrator-inference")
    assert not images.is_missing(aws, endpoints, ImageKind.INFERENCE)
    assert images.is_missing(aws, endpoints)  # that of jobs
    assert not publish(aws, endpoints, how=images.Build(kind=ImageKind.INFERENCE)).built


def test_a_stack_from_before_there_were_endpoints_is_brought_up_to_date_first(aws: Aws) -> None:
    with pytest.raises(errors.AccountError) as raised:
        publish(aws, account(), how=images.Build(kind=ImageKind.INFERENCE))
    assert raised.value.next_step.endswith("infra up")


def test_an_image_without_cuda_is_built_of_the_base_alone(docker: DockerStandIn) -> None:
    made = images.build(images.Build(cpu=True, base_image="mine:1"), report=[].append)
    assert made.image == image_here(ImageKind.TRAINING, for_gpu=False) != image_here(ImageKind.TRAINING, for_gpu=True)
    words = docker.calls("build")[0]["words"]
    assert {"REQUIREMENTS=requirements-cpu.txt", "BASE_IMAGE=mine:1", "CUDA_IMAGE=mine:1"} <= set(words)
    docker.fails("image", "No such image")
    images.build(images.Build(cpu=True), report=[].append)
    (base,) = [word.removeprefix("CUDA_IMAGE=") for word in docker.calls("build")[1]["words"] if "CUDA_IMAGE" in word]
    for image in ("training", "inference"):
        assert f"ARG BASE_IMAGE={base}\n" in (CONTAINERS / image / "Dockerfile").read_text()


def test_an_image_that_is_here_is_not_built_again_unless_of_something_else(docker: DockerStandIn) -> None:
    made = images.build(images.Build(cpu=True), report=[].append)
    assert (made.image, made.built) == (image_here(ImageKind.TRAINING, for_gpu=False), False)
    assert docker.calls("build") == []
    assert images.build(images.Build(cpu=True, base_image="mine:1"), report=[].append).built
    assert images.build(images.Build(cpu=True, platform="linux/arm64"), report=[].append).built
    first, _ = docker.calls("build")
    assert "--force-rm" in first["words"]  # of the older builder, which leaves the container of a failed step


@pytest.mark.parametrize(
    ("said", "kind", "next_step"),
    [
        ("Error response from daemon: pull access denied for mine", errors.MissingError, "docker image ls"),
        ("Get https://registry-1.docker.io/v2/: dial tcp: no such host", errors.ServiceError, "network"),
    ],
)
def test_a_base_image_that_is_not_here_is_pulled_first_and_named_where_that_fails(
    docker: DockerStandIn, said: str, kind: type[errors.OrchestratorError], next_step: str
) -> None:
    how = images.Build(cpu=True, base_image="mine:1")
    docker.fails("image", "Error: No such image: mine:1")
    images.build(how, report=[].append)
    assert docker.calls("pull")[0]["words"] == ["pull", "--platform", "linux/amd64", "mine:1"]
    docker.fails("pull", said)
    with pytest.raises(kind, match="pull mine:1, which is not on this machine") as raised:
        images.build(how, report=[].append)
    assert next_step in raised.value.next_step
    assert len(docker.calls("build")) == 1


def test_wheels_are_sent_along_where_the_dockerfile_looks_for_them(docker: DockerStandIn, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(errors.MachineError, match="no wheels") as raised:
        images.build(images.Build(wheelhouse=wheels, cpu=True, kind=ImageKind.INFERENCE), report=[].append)
    assert raised.value.next_step.startswith("pip download --no-deps ")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in raised.value.next_step
    assert raised.value.next_step.endswith("inference/requirements-cpu.txt")
    (wheels / "torch-1-py3-none-any.whl").write_bytes(b"wheel")
    images.build(images.Build(wheelhouse=wheels), report=[].append)
    context = docker.calls("build")[0]["context"]
    assert "wheelhouse/torch-1-py3-none-any.whl" in context
    assert set(container_images.SOURCES) <= set(context)
    ignored = (CONTAINERS / ".dockerignore").read_text().splitlines()
    for image in ("training", "inference"):
        assert "wheelhous[e] /wheels/" in (CONTAINERS / image / "Dockerfile").read_text()
    assert "!wheelhouse" in ignored


@pytest.mark.parametrize(
    ("file", "was", "becomes"),
    [
        ("constraints.txt", "peft==", "peft==9."),
        ("pyproject.toml", '"peft>=', '"peft>=9.'),
        ("pyproject.toml", "train = [", 'train = [ "no-such-package>=1",'),
    ],
)
def test_requirements_that_have_drifted_fail_the_check(tmp_path: Path, file: str, was: str, becomes: str) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "containers", tmp_path / "containers")
    check: list[Any] = [sys.executable, tmp_path / "containers" / "lock.py", "--check"]
    before = hash_files(tmp_path)
    assert subprocess.run(check, check=False).returncode == 0
    path = tmp_path / file
    path.write_text(path.read_text().replace(was, becomes, 1))
    outcome = subprocess.run(check, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert "make lock-image" in outcome.stdout
    assert set(before) == set(hash_files(tmp_path))  # nothing was written
