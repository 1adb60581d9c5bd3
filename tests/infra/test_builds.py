"""Images that CodeBuild builds in the account: what is sent, what is asked for, what can fail, and the command."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from moto import mock_aws

from orchestrator import __version__, errors
from orchestrator.aws.client import Aws
from orchestrator.cli import cli
from orchestrator.container_images import SOURCES, ImageKind, image_tag
from orchestrator.infra import builds
from orchestrator.infra.builds import AccountBuild
from orchestrator.infra.stack import Stack
from orchestrator.infra.training_image import BASE_IMAGE
from orchestrator.resources import CONTAINERS
from orchestrator.settings import AwsSettings, Settings
from tests.faults.wire import Wire
from tests.stand_ins.codebuild import MANIFEST, PROJECT, CodeBuild, installed
from tests.template import template

REGION = "eu-west-1"
ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
BUCKET = "pictures"
AGAIN = "python -m orchestrator infra image --in-account"
KEY = f"builds/{image_tag()}.zip"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no docker
    monkeypatch.setattr(builds, "_POLL_SECONDS", 0.0)


@pytest.fixture
def codebuild() -> Iterator[CodeBuild]:
    service = CodeBuild(REGION)
    with mock_aws(), installed(service):
        yield service


@pytest.fixture
def aws(codebuild: CodeBuild) -> Aws:
    """An account with the bucket and the repositories of the stack."""
    session = Aws(REGION)
    session.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for kind in ImageKind:
        session.client("ecr").create_repository(repositoryName=f"orchestrator-{kind}", imageTagMutability="IMMUTABLE")
    return session


def account(**changes: Any) -> AwsSettings:
    made = AwsSettings(
        region=REGION,
        account_id=ACCOUNT,
        bucket=BUCKET,
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/job",
        training_image=f"{REGISTRY}/orchestrator-training:{image_tag()}",
        inference_image=f"{REGISTRY}/orchestrator-inference:{image_tag()}",
        build_project=PROJECT,
    )
    return made.model_copy(update=changes)


def build_of(aws: Aws, kind: ImageKind = ImageKind.TRAINING, **changes: Any) -> AccountBuild:
    return AccountBuild(aws, account(**changes), kind, again=AGAIN)


def failure_of(aws: Aws) -> errors.OrchestratorError:
    build = build_of(aws)
    with pytest.raises(errors.OrchestratorError) as raised:
        build.follow(build.start(), [].append)
    return raised.value


# ---------------------------------------------------------------------------------------------- what is sent


def test_the_source_has_the_same_bytes_at_any_time_and_nothing_but_what_an_image_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = builds.build_source()
    shutil.copytree(CONTAINERS, tmp_path / "containers", copy_function=shutil.copyfile)  # other times and permissions
    (tmp_path / "containers" / "wheelhouse").mkdir()
    (tmp_path / "containers" / "buildspec.yml").write_text("version: 0.2")  # which CodeBuild would look for
    monkeypatch.setattr(builds, "CONTAINERS", tmp_path / "containers")
    assert builds.build_source() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert sorted(archive.namelist()) == sorted(SOURCES)
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in SOURCES:
            assert archive.read(name) == (CONTAINERS / name).read_bytes()


@pytest.mark.parametrize("kind", ImageKind)
def test_a_build_reads_its_source_from_the_bucket_and_leaves_the_image_that_the_stack_names(
    aws: Aws, codebuild: CodeBuild, kind: ImageKind
) -> None:
    build = build_of(aws, kind)
    assert build.found() is None
    lines: list[str] = []
    made = build.follow(build.start(), lines.append)
    name = f"{REGISTRY}/orchestrator-{kind}:{image_tag()}"
    assert (made.image, made.built, made.pushed, made.warning) == (name, True, True, "")
    assert [line.split() for line in lines][-1] == ["POST_BUILD", "SUCCEEDED", "3", "s"]
    assert len(lines) == len({line.split()[0] for line in lines}) == 8  # each phase once
    assert codebuild.sources == [{name: (CONTAINERS / name).read_bytes() for name in SOURCES}]
    [asked] = codebuild.of("StartBuild")
    assert asked["projectName"] == PROJECT
    assert asked["sourceLocationOverride"] == f"{BUCKET}/{KEY}"
    variables = {one["name"]: one["value"] for one in asked["environmentVariablesOverride"]}
    assert variables == {
        "IMAGE": name,
        "KIND": str(kind),
        "VERSION": __version__,
        "BASE_IMAGE": f"public.ecr.aws/docker/library/{BASE_IMAGE}",
    }
    assert not [field for field in asked if field.lower().startswith("buildspec")]  # it is the project's
    found = build.found()
    assert found is not None
    assert (found.built, found.pushed) == (False, False)


def test_the_source_goes_to_the_account_alone_and_replaces_nothing(aws: Aws) -> None:
    sent: list[dict[str, Any]] = []
    aws.client("s3").meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: sent.append(dict(params))
    )
    build_of(aws).start()
    assert [one["ExpectedBucketOwner"] for one in sent] == [ACCOUNT]
    assert [one["IfNoneMatch"] for one in sent] == ["*"]
    metadata = aws.client("s3").head_object(Bucket=BUCKET, Key=KEY)["Metadata"]
    assert metadata == {"sha256": hashlib.sha256(builds.build_source()).hexdigest()}


def test_other_files_under_the_name_of_the_source_are_not_built(aws: Aws, codebuild: CodeBuild) -> None:
    aws.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=b"of somebody else")
    with pytest.raises(errors.ConflictError, match="Nothing was started") as raised:
        build_of(aws).start()
    assert raised.value.next_step.startswith(f"aws s3 rm s3://{BUCKET}/{KEY}")
    assert codebuild.of("StartBuild") == []


# ---------------------------------------------------------------------------------------------- once, and again


def test_two_who_start_the_same_build_at_the_same_time_start_one(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.lists = False
    ids = {build_of(aws).start(), build_of(Aws(REGION)).start()}
    assert len(ids) == 1
    assert len({asked["idempotencyToken"] for asked in codebuild.of("StartBuild")}) == 1
    assert build_of(aws, ImageKind.INFERENCE).start() not in ids  # another image is another build


def test_a_build_that_goes_on_is_followed_and_not_started_again(aws: Aws, codebuild: CodeBuild) -> None:
    assert build_of(aws).running() is None
    started = build_of(aws).start()
    assert build_of(aws).running() == build_of(aws).start() == started
    assert build_of(aws, ImageKind.INFERENCE).running() is None
    assert len(codebuild.of("StartBuild")) == 1


def test_after_a_build_that_failed_another_one_can_be_started_at_once(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("BUILD")
    failure_of(aws)
    codebuild.succeeds()
    build = build_of(aws)
    assert build.running() is None
    assert build.follow(build.start(), [].append).pushed
    assert len(codebuild.of("StartBuild")) == 2


def test_a_build_whose_start_was_not_answered_is_found(aws: Aws, codebuild: CodeBuild, waits: list[float]) -> None:
    codebuild.loses.add("StartBuild")
    started = build_of(aws).start()
    assert build_of(aws).running() == started
    assert len({asked["idempotencyToken"] for asked in codebuild.of("StartBuild")}) == 1
    assert waits


def test_a_build_that_was_not_started_for_all_that_is_known_is_an_error(
    aws: Aws, codebuild: CodeBuild, waits: list[float]
) -> None:
    codebuild.refusals["StartBuild"] = (500, "InternalFailure", "lost")
    with pytest.raises(errors.LostAnswerError):
        build_of(aws).start()
    assert waits


def test_an_image_that_somebody_else_pushed_meanwhile_is_no_failure(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("BUILD", message="tag is immutable")
    build = build_of(aws)
    started = build.start()
    aws.client("ecr").put_image(
        repositoryName="orchestrator-training", imageTag=image_tag(), imageManifest=json.dumps(MANIFEST)
    )
    made = build.follow(started, [].append)
    assert (made.built, made.pushed) == (False, False)


# ---------------------------------------------------------------------------------------------- what can fail


def test_without_a_project_the_stack_gets_one_first(aws: Aws) -> None:
    with pytest.raises(errors.AccountError, match="no project") as raised:
        build_of(aws, build_project=None)
    assert raised.value.next_step.startswith("python -m orchestrator infra up --builds")


def test_a_project_that_somebody_deleted_is_made_again(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.projects.clear()
    with pytest.raises(errors.MissingError) as raised:
        build_of(aws).start()
    assert raised.value.next_step == "python -m orchestrator infra up --builds"
    codebuild.projects.add(PROJECT)
    codebuild.refusals["StartBuild"] = (400, "ResourceNotFoundException", "Cannot find project")  # gone by then
    with pytest.raises(errors.MissingError) as raised:
        build_of(aws).start()
    assert raised.value.next_step == "python -m orchestrator infra up --builds"


def test_a_stack_of_another_version_is_brought_up_to_date_first(aws: Aws, codebuild: CodeBuild) -> None:
    with pytest.raises(errors.AccountError) as raised:
        build_of(aws, training_image=f"{REGISTRY}/orchestrator-training:0.0.1")
    assert raised.value.next_step.endswith("infra up")
    assert codebuild.asked == []


@pytest.mark.parametrize("operation", ["ListBuildsForProject", "StartBuild", "BatchGetBuilds"])
def test_what_is_not_allowed_is_named(aws: Aws, codebuild: CodeBuild, operation: str) -> None:
    message = f"User: arn:aws:iam::{ACCOUNT}:user/ada is not authorized to perform: codebuild:{operation} on resource"
    codebuild.refusals[operation] = (400, "AccessDeniedException", message)
    error = failure_of(aws)
    assert isinstance(error, errors.AccessError)
    assert f"codebuild:{operation} is not allowed" in error.message
    assert f"codebuild:{operation}" in error.next_step


def test_an_account_that_may_run_no_more_builds_has_a_quota(aws: Aws, codebuild: CodeBuild) -> None:
    said = "Cannot have more than 0 builds in queue for the account"
    codebuild.refusals["StartBuild"] = (400, "AccountLimitExceededException", said)
    error = failure_of(aws)
    assert isinstance(error, errors.QuotaError)
    assert said in error.message


def test_a_bucket_that_cannot_be_written_stops_it_before_anything_is_started(aws: Aws, codebuild: CodeBuild) -> None:
    with pytest.raises(errors.MissingError, match="the bucket does not exist") as missing:
        build_of(aws, bucket="of-somebody-else").start()
    assert missing.value.next_step == "python -m orchestrator infra up"
    wire = Wire(aws.client("s3"))
    wire.answer("PutObject", wire.refusal(403, "AccessDenied", "Access Denied"))
    with pytest.raises(
        errors.AccessError, match="belongs to another account, or s3:PutObject is not allowed"
    ) as denied:
        build_of(aws).start()
    assert denied.value.next_step == "python -m orchestrator infra show"
    wire.require_used()
    assert codebuild.of("StartBuild") == []


SAID = "Error while executing command: docker push. Reason: exit status 1"
LOG = f"aws logs tail /aws/codebuild/{PROJECT} --log-stream-names 0f1e --since 1d --region {REGION}"
ENDS = [
    ("BUILD", "FAILED", "failed in the phase BUILD: COMMAND_EXECUTION_ERROR: Error while executing"),
    ("BUILD", "TIMED_OUT", "was not done within 60 minutes"),
    ("PRE_BUILD", "STOPPED", "was stopped in the phase PRE_BUILD"),
    ("PROVISIONING", "FAULT", "by a fault of CodeBuild itself in the phase PROVISIONING"),
]


@pytest.mark.parametrize(("phase", "status", "says"), ENDS, ids=lambda value: str(value)[:12])
def test_a_build_that_ends_badly_says_in_which_phase_and_why_and_where_its_log_is(
    aws: Aws, codebuild: CodeBuild, phase: str, status: str, says: str
) -> None:
    codebuild.fails(phase, status, "COMMAND_EXECUTION_ERROR", SAID)
    error = failure_of(aws)
    assert isinstance(error, errors.AccountError)
    assert says in error.message
    assert SAID in error.message
    assert error.next_step == f"{LOG}  (its log; then: {AGAIN})"


def test_a_build_that_ended_before_its_log_began_can_be_started_again(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("QUEUED", "TIMED_OUT")
    error = failure_of(aws)
    assert error.message.endswith("and was ended in the phase QUEUED.")
    assert error.next_step == AGAIN


def test_a_build_that_succeeds_without_an_image_is_a_failure(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.pushes = False
    error = failure_of(aws)
    assert "the registry has no such image" in error.message
    assert error.next_step.startswith(LOG)


# ---------------------------------------------------------------------------------------------- the project


def project() -> dict[str, Any]:
    properties: dict[str, Any] = template()["Resources"]["BuildProject"]["Properties"]
    return properties


def test_what_a_build_costs_at_most_is_what_the_project_allows() -> None:
    assert project()["TimeoutInMinutes"] == builds.LIMIT_MINUTES
    assert project()["Environment"]["ComputeType"] == "BUILD_GENERAL1_MEDIUM"  # whose price USD_PER_MINUTE is


NOTES = '#!/bin/sh\necho "$(basename "$0") $*" >> "$NOTES"\n'


@pytest.mark.parametrize("has_buildx", [True, False])
def test_the_commands_of_the_project_build_and_push_what_a_build_asks_for(
    aws: Aws, codebuild: CodeBuild, tmp_path: Path, has_buildx: bool
) -> None:
    """A shell runs them, with programs in place of docker and aws that note how they are called."""
    build_of(aws).start()
    variables = {one["name"]: one["value"] for one in codebuild.of("StartBuild")[0]["environmentVariablesOverride"]}
    fails = 'if [ "$1" = buildx ]; then exit 1; fi\n'
    for name, body in {"aws": NOTES, "docker": NOTES if has_buildx else NOTES + fails}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(body)
        program.chmod(0o755)
    phases = yaml.safe_load(project()["Source"]["BuildSpec"])["phases"]
    commands = [command for phase in phases.values() for command in phase["commands"]]
    path = f"{tmp_path / 'bin'}:{os.defpath}"
    environment = {**variables, "PATH": path, "NOTES": str(tmp_path / "notes")}
    subprocess.run(["/bin/sh", "-eu", "-c", "\n".join(commands)], env=environment, check=True)
    noted = (tmp_path / "notes").read_text().splitlines()
    image = account().training_image
    assert {"aws ecr get-login-password", f"docker login --username AWS --password-stdin {REGISTRY}"} <= set(noted)
    [built] = [line.split() for line in noted if line.startswith("docker build ")]
    assert built[built.index("--file") + 1] == "training/Dockerfile"
    assert built[built.index("--platform") + 1] == "linux/amd64"
    assert built[built.index("--tag") + 1] == image
    assert {f"VERSION={__version__}", f"BASE_IMAGE=public.ecr.aws/docker/library/{BASE_IMAGE}"} <= set(built)
    assert ("--provenance=false" in built) == ("type=docker" in built) == has_buildx
    assert built[-1] == "."
    assert noted[-1] == f"docker push {image}"


# ---------------------------------------------------------------------------------------------- the command


IN_ACCOUNT = ("image", "--in-account")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["infra", *words])


@pytest.fixture
def stack(codebuild: CodeBuild, settings: Settings) -> Settings:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tried to parse")  # what moto leaves out of the stack
        made = run("up", "--builds")
    assert made.exit_code == 0, made.output
    assert "Next: python -m orchestrator infra image --in-account" in made.stdout
    return settings


@pytest.mark.usefixtures("stack")
def test_one_command_builds_the_image_in_the_account(codebuild: CodeBuild) -> None:
    made = run(*IN_ACCOUNT, "--yes")
    assert made.exit_code == 0, made.output
    name = f"{REGISTRY}/orchestrator-training:{image_tag()}"
    assert made.stdout == f"Pushed {name}\n"
    assert "$0.01 a minute" in made.stderr
    assert "$0.60 at most" in made.stderr
    assert "BUILD            SUCCEEDED" in made.stderr
    again = run(*IN_ACCOUNT)  # nothing to pay for: nothing is asked
    assert again.stdout == f"Already there: {name}\n"
    inference = run("image", "inference", "--in-account", "--yes", "--json")
    assert json.loads(inference.stdout)["pushed"] is True
    assert len(codebuild.of("StartBuild")) == 2


@pytest.mark.usefixtures("stack")
def test_nothing_is_sent_or_started_before_somebody_agrees(codebuild: CodeBuild, aws_again: Aws) -> None:
    refused = run(*IN_ACCOUNT)
    assert isinstance(refused.exception, errors.SpecError)
    assert refused.exception.next_step == "add --yes"
    assert "max-usd" not in refused.exception.render()
    assert codebuild.of("StartBuild") == []
    [bucket] = aws_again.client("s3").list_buckets()["Buckets"]
    assert aws_again.client("s3").list_objects_v2(Bucket=bucket["Name"])["KeyCount"] == 0


@pytest.fixture
def aws_again(stack: Settings) -> Aws:
    return Aws(REGION)


@pytest.mark.usefixtures("stack")
def test_ctrl_c_leaves_the_build_running_and_the_same_command_goes_on_with_it(codebuild: CodeBuild) -> None:
    codebuild.interrupts = True
    left = run(*IN_ACCOUNT, "--yes")
    assert left.exit_code == 1
    assert f"Follow it: {AGAIN}\n" in left.stderr
    assert f"aws codebuild stop-build --id {PROJECT}:1 --region {REGION}" in left.stderr
    codebuild.interrupts = False
    assert run(*IN_ACCOUNT).stdout.startswith("Pushed ")  # it was agreed to before
    assert len(codebuild.of("StartBuild")) == 1


def test_a_stack_without_the_project_says_how_to_get_it(codebuild: CodeBuild, settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tried to parse")
        made = run("up")
    assert "Next: python -m orchestrator infra image  (" in made.stdout
    refused = run(*IN_ACCOUNT, "--yes")
    assert isinstance(refused.exception, errors.AccountError)
    assert "infra up --builds" in refused.exception.next_step
    assert codebuild.asked == []
    assert settings.account().build_project is None


@pytest.mark.parametrize(
    "words",
    [
        ("--in-account", "--cpu"),
        ("--in-account", "--base-image", "mine:1"),
        ("--in-account", "--wheelhouse", "wheels"),
        ("--in-account", "--build-only"),
        ("--in-account", "--platform", "linux/arm64"),
    ],
)
def test_what_is_for_docker_on_this_machine_does_not_go_with_it(codebuild: CodeBuild, words: tuple[str, ...]) -> None:
    refused = run("image", *words)
    assert refused.exit_code == 2
    assert f"{words[1]}: only for a build with docker" in refused.stderr
    assert codebuild.asked == []


def test_the_project_is_an_option_of_the_stack_that_keeps_its_value(stack: Settings) -> None:
    parameters = Stack(Aws(REGION), stack.account().stack_name).parameters
    assert parameters()["Builds"] == "make"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tried to parse")
        run("up", "--log-days", "30")
        assert parameters()["Builds"] == "make"
        run("up", "--no-builds")
    assert parameters()["Builds"] == "leave"


def test_yes_is_for_what_costs_money(codebuild: CodeBuild) -> None:
    refused = run("image", "--yes")
    assert refused.exit_code == 2
    assert "--yes is for --in-account" in refused.stderr
    assert codebuild.asked == []
