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
from orchestrator.infra.codebuild import LIMIT_MINUTES, QUEUE_LIMIT_MINUTES
from orchestrator.infra.stack import Stack
from orchestrator.infra.training_image import BASE_IMAGE
from orchestrator.resources import CONTAINERS
from orchestrator.settings import AwsSettings, Settings
from tests.faults.wire import Wire
from tests.stand_ins.codebuild import LINK, MANIFEST, PROJECT, STREAM, CodeBuild, installed
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
    return AccountBuild(aws, account(**changes), kind, again=AGAIN, pause=[].append)


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
    assert lines.count(f"Its log: {LINK}") == 1
    assert lines[0] == "SUBMITTED        SUCCEEDED 3 s"  # the log is not there yet
    assert lines[-1].split() == ["POST_BUILD", "SUCCEEDED", "3", "s"]
    assert len(lines) == len({line.split()[0] for line in lines}) == 9  # each phase once
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


def test_two_stacks_of_an_account_build_at_the_same_time(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.projects.add("second-images")
    aws.client("s3").create_bucket(Bucket="second", CreateBucketConfiguration={"LocationConstraint": REGION})
    second = f"{REGISTRY}/second-training:{image_tag()}"
    of_another = build_of(aws, build_project="second-images", bucket="second", training_image=second)
    assert build_of(aws).start() == f"{PROJECT}:1"
    assert of_another.start() == "second-images:2"
    assert len({asked["idempotencyToken"] for asked in codebuild.of("StartBuild")}) == 2


def test_a_project_with_more_than_a_hundred_builds_has_one_more(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.has_run(101, account().training_image)
    build = build_of(aws)
    started = build.start()
    assert build.running() == started == f"{PROJECT}:102"
    assert build.follow(started, [].append).pushed


def test_a_build_that_is_not_the_newest_is_found_too(aws: Aws, codebuild: CodeBuild) -> None:
    started = build_of(aws).start()
    codebuild.has_run(30, account().training_image)
    assert build_of(aws).running() == build_of(aws).start() == started
    assert len(codebuild.of("StartBuild")) == 1


def test_each_start_after_a_failure_is_another_build(aws: Aws, codebuild: CodeBuild) -> None:
    """The token follows from the newest build, in whatever order CodeBuild describes them."""
    codebuild.fails("BUILD")
    ids = []
    for _ in range(3):
        build = build_of(aws)
        ids.append(build.start())
        with pytest.raises(errors.AccountError):
            build.follow(ids[-1], [].append)
    assert ids == [f"{PROJECT}:1", f"{PROJECT}:2", f"{PROJECT}:3"]


def test_a_build_of_another_version_that_runs_is_another_build(aws: Aws, codebuild: CodeBuild) -> None:
    earlier = [{"name": "IMAGE", "value": f"{REGISTRY}/orchestrator-training:0.0.1", "type": "PLAINTEXT"}]
    aws.client("codebuild").start_build(
        projectName=PROJECT,
        sourceLocationOverride=f"{BUCKET}/{KEY}",
        environmentVariablesOverride=earlier,
        idempotencyToken="x",
    )
    build = build_of(aws)
    assert build.running() is None
    assert build.start() == f"{PROJECT}:2"
    assert len(codebuild.of("StartBuild")) == 2


def test_there_are_seconds_between_two_looks_at_a_build(aws: Aws, codebuild: CodeBuild) -> None:
    pauses: list[float] = []
    build = AccountBuild(aws, account(), ImageKind.TRAINING, again=AGAIN, pause=pauses.append)
    build.follow(build.start(), [].append)
    assert len(pauses) == len(codebuild.of("BatchGetBuilds")) - 1
    assert 1 <= min(pauses) <= max(pauses) <= 30


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
    with pytest.raises(errors.LostAnswerError) as raised:
        build_of(aws).start()
    assert raised.value.message.endswith("A build may have been started; the same command finds it.")
    assert raised.value.next_step == AGAIN
    assert waits


def test_the_same_is_said_when_the_builds_cannot_be_listed_either(
    aws: Aws, codebuild: CodeBuild, waits: list[float]
) -> None:
    codebuild.loses.add("StartBuild")
    codebuild.expires = True
    with pytest.raises(errors.LostAnswerError, match="no answer came") as raised:
        build_of(aws).start()
    assert raised.value.next_step == AGAIN
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


def test_an_image_in_another_format_is_warned_of(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.manifest = {**MANIFEST, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    build = build_of(aws)
    assert "oci" in build.follow(build.start(), [].append).warning


# ---------------------------------------------------------------------------------------------- what can fail


def test_without_a_project_the_stack_gets_one_first(aws: Aws) -> None:
    with pytest.raises(errors.AccountError, match="no project") as raised:
        build_of(aws, build_project=None)
    assert raised.value.next_step.startswith("python -m orchestrator infra up --builds")


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


STOP = f"aws codebuild stop-build --id {PROJECT}:1 --region {REGION}"
LEFT = {
    "expired": (400, "ExpiredTokenException", "The security token is expired", errors.CredentialsError),
    "refused": (400, "AccessDeniedException", "", errors.AccessError),
    "lost": (503, "ServiceUnavailable", "", errors.ServiceError),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_build_that_can_be_followed_no_more_goes_on(
    aws: Aws, codebuild: CodeBuild, waits: list[float], case: str
) -> None:
    build = build_of(aws)
    started = build.start()
    *refusal, kind = LEFT[case]
    codebuild.refusals["BatchGetBuilds"] = tuple(refusal)
    with pytest.raises(kind) as raised:
        build.follow(started, [].append)
    assert raised.value.message.endswith("The build goes on in the account, billed until it ends.")
    assert raised.value.next_step.endswith(f"  (then follow it: {AGAIN}; or stop it: {STOP})")
    assert bool(waits) == (case == "lost")
    codebuild.refusals.clear()
    assert build.follow(started, [].append).pushed


def test_a_build_that_somebody_deleted_has_ended(aws: Aws, codebuild: CodeBuild) -> None:
    build = build_of(aws)
    started = build.start()
    codebuild.forgets()
    with pytest.raises(errors.MissingError, match=f"no build {PROJECT}:1 any more") as raised:
        build.follow(started, [].append)
    assert raised.value.next_step == AGAIN
    assert "goes on" not in raised.value.message


def test_a_failure_is_told_also_where_the_registry_cannot_be_asked(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("BUILD", "FAILED", "COMMAND_EXECUTION_ERROR", SAID)
    build = build_of(aws)
    started = build.start()
    wire = Wire(aws.client("ecr"))
    wire.answer("DescribeImages", wire.refusal(400, "ExpiredTokenException", "The security token is expired"))
    with pytest.raises(errors.AccountError, match="failed in the phase BUILD") as raised:
        build.follow(started, [].append)
    wire.require_used()
    assert raised.value.next_step.startswith(LOG)


def test_an_account_that_may_run_no_more_builds_has_a_quota(aws: Aws, codebuild: CodeBuild) -> None:
    said = "Cannot have more than 0 builds in queue for the account"
    codebuild.refusals["StartBuild"] = (400, "AccountLimitExceededException", said)
    error = failure_of(aws)
    assert isinstance(error, errors.QuotaError)
    assert said in error.message
    assert f"quota of CodeBuild in {REGION}" in error.message
    assert '"Concurrently running builds for Linux/Medium environment"' in error.message
    assert f"https://{REGION}.console.aws.amazon.com/servicequotas/home/services/codebuild/quotas" in error.next_step
    assert "python -m orchestrator infra image training)" in error.next_step


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
LOG = f"aws logs tail /aws/codebuild/{PROJECT} --log-stream-names {STREAM} --since 1d --region {REGION}"
ENDS = [
    ("BUILD", "FAILED", "failed in the phase BUILD: COMMAND_EXECUTION_ERROR: Error while executing"),
    ("BUILD", "TIMED_OUT", "was not done within 60 minutes and was ended in the phase BUILD"),
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
    assert error.next_step == f"{LOG}  (its log, also at {LINK}; then: {AGAIN})"


def test_the_first_phase_that_failed_is_the_one_that_is_told(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("BUILD", "FAILED", "COMMAND_EXECUTION_ERROR", SAID, later="POST_BUILD")
    error = failure_of(aws)
    assert f"failed in the phase BUILD: COMMAND_EXECUTION_ERROR: {SAID}" in error.message
    assert "POST_BUILD" not in error.message
    assert "a consequence" not in error.message


REFUSED = "toomanyrequests: You have reached your unauthenticated pull rate limit."


@pytest.mark.parametrize("where", ["log", "phase"])
def test_a_registry_that_limits_pulls_is_named(aws: Aws, codebuild: CodeBuild, where: str) -> None:
    if where == "log":
        codebuild.log = f"#4 resolve image config\n{REFUSED}\nCommand did not exit successfully"
    codebuild.fails("BUILD", "FAILED", "COMMAND_EXECUTION_ERROR", SAID if where == "log" else REFUSED)
    error = failure_of(aws)
    assert error.message.endswith(f'A registry limits the pulls of base images for a time: "{REFUSED}".')
    assert error.next_step.startswith(LOG)


@pytest.mark.parametrize("log", ["", "ERROR: no space left on device"])
def test_a_log_that_does_not_say_so_blames_no_registry(aws: Aws, codebuild: CodeBuild, log: str) -> None:
    codebuild.log = log
    codebuild.fails("BUILD", "FAILED", "COMMAND_EXECUTION_ERROR", SAID)
    error = failure_of(aws)
    assert f"failed in the phase BUILD: COMMAND_EXECUTION_ERROR: {SAID}" in error.message
    assert "limits the pulls" not in error.message


def test_a_build_that_ended_before_its_log_began_can_be_started_again(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.fails("QUEUED", "TIMED_OUT")
    error = failure_of(aws)
    minutes = project()["QueuedTimeoutInMinutes"]
    assert error.message.endswith(f" waited {minutes} minutes for a machine and was ended in the phase QUEUED.")
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
    assert project()["TimeoutInMinutes"] == LIMIT_MINUTES
    assert project()["QueuedTimeoutInMinutes"] == QUEUE_LIMIT_MINUTES
    assert project()["Environment"]["ComputeType"] == "BUILD_GENERAL1_MEDIUM"  # whose price and quota are told


NOTES = '#!/bin/sh\necho "$(basename "$0") $*" >> "$NOTES"\n'


def run_commands(folder: Path, variables: dict[str, str], docker: str) -> tuple[int, list[str]]:
    """Have a shell run the commands of the project; return its exit status, and how programs were called.

    `docker` is what stands for docker does besides noting how it is called.
    """
    for name, body in {"aws": NOTES, "docker": NOTES + docker, "sleep": NOTES}.items():
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(body)
        program.chmod(0o755)
    phases = yaml.safe_load(project()["Source"]["BuildSpec"])["phases"]
    commands = [command for phase in phases.values() for command in phase["commands"]]
    path = f"{folder / 'bin'}:{os.defpath}"
    environment = {**variables, "PATH": path, "NOTES": str(folder / "notes")}
    done = subprocess.run(["/bin/sh", "-eu", "-c", "\n".join(commands)], env=environment, check=False)
    return done.returncode, (folder / "notes").read_text().splitlines()


def variables_of(codebuild: CodeBuild) -> dict[str, str]:
    return {one["name"]: one["value"] for one in codebuild.of("StartBuild")[0]["environmentVariablesOverride"]}


@pytest.mark.parametrize("has_buildx", [True, False])
def test_the_commands_of_the_project_build_and_push_what_a_build_asks_for(
    aws: Aws, codebuild: CodeBuild, tmp_path: Path, has_buildx: bool
) -> None:
    """A shell runs them, with programs in place of docker and aws that note how they are called."""
    build_of(aws).start()
    fails = 'if [ "$1" = buildx ]; then exit 1; fi\n'
    status, noted = run_commands(tmp_path, variables_of(codebuild), "" if has_buildx else fails)
    assert status == 0
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
    assert not [line for line in noted if line.startswith("sleep ")]


@pytest.mark.parametrize(
    ("refusals", "status", "called"), [(1, 0, "build sleep build push"), (9, 1, "build sleep build sleep build")]
)
def test_a_build_that_a_registry_refused_is_tried_twice_again_before_it_fails(
    aws: Aws, codebuild: CodeBuild, tmp_path: Path, refusals: int, status: int, called: str
) -> None:
    build_of(aws).start()
    fails = f"""
        [ "$1" = build ] || exit 0
        [ "$(grep -c "^docker build " "$NOTES")" -gt {refusals} ] || exit 1
    """
    ended, noted = run_commands(tmp_path, variables_of(codebuild), fails)
    words = [line.removeprefix("docker ").split()[0] for line in noted]
    assert " ".join(word for word in words if word in {"build", "sleep", "push"}) == called
    assert ended == status
    pauses = [int(line.split()[1]) for line in noted if line.startswith("sleep ")]
    assert all(pause >= 60 for pause in pauses)
    assert sum(pauses) < 60 * LIMIT_MINUTES / 10  # a pause is billed too


# ---------------------------------------------------------------------------------------------- the command


IN_ACCOUNT = ("image", "--in-account")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["infra", *words])


@pytest.fixture
def stack(codebuild: CodeBuild, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(builds, "_POLL_SECONDS", 0.0)
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
    assert "about $0.60 at most, besides the stored image" in made.stderr
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
    codebuild.interrupts.add("BatchGetBuilds")
    left = run(*IN_ACCOUNT, "--yes")
    assert left.exit_code == 1
    assert f"Follow it: {AGAIN}\n" in left.stderr
    assert STOP in left.stderr
    codebuild.interrupts.clear()
    assert run(*IN_ACCOUNT).stdout.startswith("Pushed ")  # it was agreed to before
    assert len(codebuild.of("StartBuild")) == 1


@pytest.mark.usefixtures("stack")
def test_ctrl_c_while_a_build_is_started_says_that_it_may_run(codebuild: CodeBuild) -> None:
    codebuild.interrupts.add("StartBuild")
    left = run(*IN_ACCOUNT, "--yes")
    assert left.exit_code == 1
    assert f"A build may have been started; the same command finds it: {AGAIN}\n" in left.stderr
    codebuild.interrupts.clear()
    assert run(*IN_ACCOUNT).stdout.startswith("Pushed ")
    assert len(codebuild.of("StartBuild")) == 1


def test_a_build_that_somebody_else_started_meanwhile_is_not_called_ones_own(
    codebuild: CodeBuild, stack: Settings
) -> None:
    again = AccountBuild(Aws(REGION), stack.account(), ImageKind.TRAINING, again=AGAIN)
    started = again.start()
    codebuild.lists = False  # it does not show yet, and the token finds it
    made = run(*IN_ACCOUNT, "--yes")
    assert made.stdout.startswith("Pushed ")
    assert f"The build {started} is running." in made.stderr
    assert "Started" not in made.stderr


@pytest.mark.filterwarnings("ignore:Tried to parse")
@pytest.mark.usefixtures("stack")
def test_a_project_that_somebody_deleted_is_made_again_by_the_commands_of_the_message(codebuild: CodeBuild) -> None:
    run("up", "--log-days", "30")  # moto takes what equals a stack's first parameters for no change
    codebuild.projects.discard(PROJECT)
    refused = run(*IN_ACCOUNT, "--yes")
    assert isinstance(refused.exception, errors.MissingError)
    without, with_it = "python -m orchestrator infra up --no-builds", "python -m orchestrator infra up --builds"
    assert refused.exception.next_step == f"{without}  (then: {with_it})"
    assert run("up", "--builds").exit_code == 0  # nothing has changed in the template
    assert codebuild.projects == set()
    for line in (without, with_it):
        made = run(*line.split()[4:])
        assert made.exit_code == 0, made.output
    assert codebuild.projects == {PROJECT}
    assert run(*IN_ACCOUNT, "--yes").stdout.startswith("Pushed ")


def test_a_project_that_is_deleted_between_two_calls_says_the_same(aws: Aws, codebuild: CodeBuild) -> None:
    codebuild.refusals["StartBuild"] = (400, "ResourceNotFoundException", "Cannot find project")
    with pytest.raises(errors.MissingError) as raised:
        build_of(aws).start()
    assert raised.value.next_step.startswith("python -m orchestrator infra up --no-builds  (then: ")


@pytest.mark.filterwarnings("ignore:Tried to parse")
@pytest.mark.parametrize("words", [("down",), ("up", "--no-builds")], ids=" ".join)
def test_what_a_build_needs_is_not_removed_while_one_runs(
    codebuild: CodeBuild, stack: Settings, words: tuple[str, ...]
) -> None:
    AccountBuild(Aws(REGION), stack.account(), ImageKind.INFERENCE, again=AGAIN).start()
    refused = run(*words)
    assert isinstance(refused.exception, errors.AccountError)
    assert f"The build {PROJECT}:1 is running. Nothing was " in refused.exception.message
    then = " ".join(("python -m orchestrator infra", *words))
    assert refused.exception.next_step == f"{STOP}  (or wait until it has ended; then: {then})"
    assert Stack(Aws(REGION), stack.account().stack_name).parameters()["Builds"] == "make"
    codebuild.forgets()
    assert run(*words).exit_code == 0
    assert codebuild.projects == set()


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
