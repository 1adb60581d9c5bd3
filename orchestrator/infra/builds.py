"""Images that AWS CodeBuild builds in the account, for a person who has no docker.

The project is a part of the stack, with `infra up --builds`: what a build may do, and the commands that it runs, are in
infra/stack.yaml. What is sent for it are the files that an image is built from, and nothing else.

https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html
"""

import hashlib
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

from orchestrator import __version__
from orchestrator.aws.client import Aws, calling
from orchestrator.container_images import SOURCES, ImageKind, image_tag
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import (
    AccountError,
    ConflictError,
    LostAnswerError,
    MissingError,
    OrchestratorError,
    QuotaError,
)
from orchestrator.infra.codebuild import (
    REMAKE,
    RUNNING,
    SUCCEEDED,
    ending,
    log_command,
    log_link,
    newest_builds,
    rate_limit_of,
    stop_command,
)
from orchestrator.infra.registry import describe_image
from orchestrator.infra.training_image import BASE_IMAGE, Image, format_warning, image_to_build
from orchestrator.resources import CONTAINERS
from orchestrator.settings import AwsSettings
from orchestrator.storage.bucket import Bucket

PREFIX = "builds/"
"""Prefix of what images are built from, in the bucket; it expires."""
USD_PER_MINUTE = 0.01
"""List price of BUILD_GENERAL1_MEDIUM in us-east-1: https://aws.amazon.com/codebuild/pricing/."""

_UP = command("infra", "up", "--builds")
_MIRROR = "public.ecr.aws/docker/library/"
"""Docker's official images, in a registry of AWS: Docker Hub limits the pulls of an address that many builds share."""
_IMAGE_VARIABLE = "IMAGE"
_QUOTA = "Concurrently running builds for Linux/Medium environment"  # of the project's compute type
_POLL_SECONDS = 5.0
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say

Listener = Callable[[str], None]
"""Called with a line for each phase that has ended, and with the address of the log."""


def build_source() -> bytes:
    """Return the files that the images are built from as a zip file; the same bytes on every machine.

    They are stored as they are: what compression makes of them depends on the version of zlib.
    """
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in SOURCES:
            entry = zipfile.ZipInfo(name, _FIRST_TIME)
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (CONTAINERS / name).read_bytes())
    return buffer.getvalue()


class AccountBuild:
    """The build of one image in the account. Makes no call until it is used."""

    def __init__(
        self,
        aws: Aws,
        account: AwsSettings,
        kind: ImageKind,
        *,
        again: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raise AccountError for a stack without a project, or one that names an image which is not built here.

        `again` is the command that goes on with the build.
        """
        if account.build_project is None:
            raise AccountError(
                f"The stack {account.stack_name} has no project that builds images in the account.",
                next_step=f"{_UP}  (by the account's owner; then: {again})",
            )
        self._registered = image_to_build(account, kind)
        self._image = self._registered.name
        self._aws = aws
        self._account = account
        self._kind = kind
        self._project = account.build_project
        self._again = again
        self._pause = pause

    def found(self) -> Image | None:
        """Return the image when the registry has it, else None."""
        if describe_image(self._aws, self._registered) is None:
            return None
        return Image(image=self._image, built=False, pushed=False)

    def running(self) -> str | None:
        """Return the id of a build of this image that has not ended, whoever started it; None without one."""
        return _running(self._newest_first())

    def start(self) -> str:
        """Send what the image is built from, start the build, and return its id. Idempotent.

        The token follows from the project, the image and the build before it, so that two who start the same build at
        the same time start one, and a build that has failed can be followed by another at once.
        """
        builds = self._newest_first()
        running = _running(builds)
        if running is not None:
            return running
        earlier = ""
        if builds:
            earlier = builds[0]["id"]
        location = self._send_source()
        request = {
            "projectName": self._project,
            "sourceLocationOverride": location,
            "environmentVariablesOverride": self._variables(),
            "idempotencyToken": _token(self._project, self._image, earlier),
        }
        client = self._aws.client("codebuild")
        try:
            with calling(f"start the build of {self._image}", not_found=REMAKE):
                started = client.start_build(**request)
        except QuotaError as error:
            self._explain_quota(error)
            raise
        except LostAnswerError as error:
            error.message = f"{error.message} A build may have been started; the same command finds it."
            error.next_step = self._again
            with suppress(OrchestratorError):  # what lost the answer can prevent the look, too
                running = self.running()
            if running is None:
                raise
            return running
        return str(started["build"]["id"])

    def follow(self, build_id: str, report: Listener) -> Image:
        """Wait until a build ends, report its phases, and return the image that it pushed.

        Raises AccountError for a build that did not succeed, with its phase, the reason and the log.
        """
        told: set[str] = set()
        build = self._describe(build_id)
        _report_progress(build, told, report)
        while build["buildStatus"] == RUNNING:
            self._pause(_POLL_SECONDS)
            build = self._describe(build_id)
            _report_progress(build, told, report)
        if build["buildStatus"] == SUCCEEDED:
            details = describe_image(self._aws, self._registered)
            if details is None:
                raise self._failure(build)
            return Image(
                image=self._image,
                built=True,
                pushed=True,
                warning=format_warning(details),
            )
        failure = self._failure(build)  # before the registry is asked, whose error must not take its place
        try:
            pushed = self.found()  # somebody else may have pushed it meanwhile; the same name is the same image
        except OrchestratorError as error:
            raise failure from error
        if pushed is None:
            raise failure
        return pushed

    def stop_command(self, build_id: str) -> str:
        """Return the command that stops a build."""
        return stop_command(build_id, self._account.region)

    def _newest_first(self) -> list[dict[str, Any]]:
        """Return the newest builds of this image."""
        builds = newest_builds(self._aws, self._project)
        return [build for build in builds if self._is_of_image(build)]

    def _is_of_image(self, build: dict[str, Any]) -> bool:
        """Return whether a build is of this image, by what it was started with."""
        environment = build.get("environment", {})
        for variable in environment.get("environmentVariables", []):
            if variable["name"] == _IMAGE_VARIABLE:
                return bool(variable["value"] == self._image)
        return False

    def _send_source(self) -> str:
        """Store the source, unless it is there, and return its place as CodeBuild writes it: BUCKET/KEY."""
        content = build_source()
        key = f"{PREFIX}{image_tag()}.zip"
        sha256 = hashlib.sha256(content).hexdigest()
        bucket = Bucket(self._aws, self._account.bucket, self._account.account_id)
        try:
            bucket.put_new(key, content, FileDigest(sha256=sha256, size=len(content)))
        except ConflictError as error:
            uri = bucket.uri(key)
            raise ConflictError(
                f"{uri} holds other files than the image is built from. Nothing was started.",
                next_step=f"aws s3 rm {uri}  (then: {self._again})",
            ) from error
        return f"{bucket.name}/{key}"

    def _variables(self) -> list[dict[str, str]]:
        """Return what the commands of the project read."""
        values = {
            _IMAGE_VARIABLE: self._image,
            "KIND": str(self._kind),
            "VERSION": __version__,
            "BASE_IMAGE": f"{_MIRROR}{BASE_IMAGE}",
        }
        variables = []
        for name, value in values.items():
            variable = {"name": name, "value": value, "type": "PLAINTEXT"}
            variables.append(variable)
        return variables

    def _describe(self, build_id: str) -> dict[str, Any]:
        """Return what CodeBuild says of a build; raises MissingError for one that it does not know."""
        client = self._aws.client("codebuild")
        try:
            with calling(f"follow the build of {self._image}"):
                answer = client.batch_get_builds(ids=[build_id])
        except OrchestratorError as error:
            stop = self.stop_command(build_id)
            error.message = f"{error.message} The build goes on in the account, billed until it ends."
            error.next_step = f"{error.next_step}  (then follow it: {self._again}; or stop it: {stop})"
            raise
        builds = answer.get("builds", [])
        if not builds:
            raise MissingError(f"CodeBuild has no build {build_id} any more.", next_step=self._again)
        described: dict[str, Any] = builds[0]
        return described

    def _explain_quota(self, error: QuotaError) -> None:
        """Add to the refusal of a build which quota it is, where it is raised, and how to do without it."""
        region = self._account.region
        quotas = f"https://{region}.console.aws.amazon.com/servicequotas/home/services/codebuild/quotas"
        here = command("infra", "image", self._kind)
        error.message = f'{error.message} It is a quota of CodeBuild in {region}, most likely "{_QUOTA}".'
        error.next_step = f"raise it at {quotas}  (or, on a machine with docker: {here})"

    def _failure(self, build: dict[str, Any]) -> AccountError:
        """Return the error for a build that left no image."""
        message = f"The build of {self._image} {ending(build)}."
        refused = rate_limit_of(self._aws, build)
        if refused:
            message = f'{message} A registry limits the pulls of base images for a time: "{refused}".'
        log = log_command(build, self._account.region)
        if not log:
            return AccountError(message, next_step=self._again)
        where = "its log"
        link = log_link(build)
        if link:
            where = f"{where}, also at {link}"
        return AccountError(message, next_step=f"{log}  ({where}; then: {self._again})")


def _running(builds: list[dict[str, Any]]) -> str | None:
    """Return the id of the first build that has not ended; None without one."""
    for build in builds:
        if build["buildStatus"] == RUNNING:
            return str(build["id"])
    return None


def _token(project: str, image: str, earlier: str) -> str:
    """Return the idempotency token of a build; `earlier` is the id of the one before it."""
    text = f"{project}\n{image}\n{earlier}"
    return hashlib.sha256(text.encode()).hexdigest()


def _report_progress(build: dict[str, Any], told: set[str], report: Listener) -> None:
    """Report the phases that have ended and the address of the log, unless they are told already."""
    link = log_link(build)
    if link and link not in told:
        told.add(link)
        report(f"Its log: {link}")
    for phase in build.get("phases", []):
        name = phase["phaseType"]
        status = phase.get("phaseStatus", RUNNING)  # the phase that goes on has none
        if status == RUNNING or name in told:
            continue
        told.add(name)
        seconds = phase.get("durationInSeconds", 0)
        report(f"{name:<16} {status:<9} {seconds} s")
