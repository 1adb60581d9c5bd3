"""AWS CodeBuild, for tests: it remembers what it was asked, holds to idempotency tokens, and ends builds as it is told.

A build that succeeds has read its source from the bucket and leaves an image in the registry, both of moto. Stands at
the SDK's `before-send` event for every client that is made while it is installed; moto's own CodeBuild keeps neither
variables nor tokens, and every build in it succeeds at once.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import boto3
from botocore import handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from tests.faults.wire import response

PROJECT = "orchestrator-images"
PHASES = ("SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD")
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {},
    "layers": [],
}
_NOWHERE = "http://answered.invalid/"


class CodeBuild:
    """The service, with one project."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.projects = {PROJECT}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.sources: list[dict[str, bytes]] = []
        """The files that each build which went well has read."""
        self.pushes = True
        self.refusals: dict[str, tuple[int, str, str]] = {}
        """By operation: status, code and message."""
        self.loses: set[str] = set()
        """Operations that are carried out, and whose answer is an error of the server."""
        self.lists = True
        """Whether its lists have what was started; services are eventually consistent."""
        self.interrupts = False
        """Whether Ctrl+C is pressed at the next look at a build."""
        self._builds: list[dict[str, Any]] = []
        self._tokens: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._failure: tuple[str, str, list[dict[str, str]]] | None = None

    def fails(self, phase: str, status: str = "FAILED", code: str = "", message: str = "") -> None:
        """Have the builds that run from now on end so in that phase."""
        contexts = [{"statusCode": code, "message": message}] if code or message else []
        self._failure = (phase, status, contexts)

    def succeeds(self) -> None:
        """Have the builds that run from now on end well."""
        self._failure = None

    def of(self, operation: str) -> list[dict[str, Any]]:
        """Return what an operation was asked with."""
        return [parameters for name, parameters in self.asked if name == operation]

    def __call__(self, event_name: str, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        operation = event_name.rpartition(".")[2]
        parameters = json.loads(request.body or "{}")
        request.url = _NOWHERE  # moto is asked too
        self.asked.append((operation, parameters))
        if operation in self.refusals:
            status, code, message = self.refusals[operation]
            return response(status, json.dumps({"__type": code, "message": message}))
        answer = getattr(self, f"_{operation}")(parameters)
        if operation in self.loses:
            return response(500, json.dumps({"__type": "InternalFailure", "message": "lost"}))
        return answer if isinstance(answer, AWSResponse) else response(200, json.dumps(answer))

    def _StartBuild(self, parameters: dict[str, Any]) -> Any:  # noqa: N802
        if parameters["projectName"] not in self.projects:
            return _refused("ResourceNotFoundException", "Cannot find project")
        token = parameters["idempotencyToken"]
        if token in self._tokens:
            before, build = self._tokens[token]
            if before != parameters:
                return _refused("InvalidInputException", "Parameter mismatch for the idempotency token")
            return {"build": build}
        number = len(self._builds) + 1
        build = {
            "id": f"{PROJECT}:{number}",
            "buildStatus": "IN_PROGRESS",
            "phases": [],
            "source": {"location": parameters["sourceLocationOverride"]},
            "environment": {"environmentVariables": parameters["environmentVariablesOverride"]},
            "logs": {"groupName": f"/aws/codebuild/{PROJECT}", "streamName": None},
        }
        self._builds.append(build)
        self._tokens[token] = (parameters, build)
        return {"build": build}

    def _ListBuildsForProject(self, parameters: dict[str, Any]) -> Any:  # noqa: N802
        if parameters["projectName"] not in self.projects:
            return _refused("ResourceNotFoundException", "Cannot find project")
        ids = [build["id"] for build in self._builds if self.lists]
        return {"ids": ids[::-1] if parameters["sortOrder"] == "DESCENDING" else ids}

    def _BatchGetBuilds(self, parameters: dict[str, Any]) -> Any:  # noqa: N802
        if self.interrupts:
            raise KeyboardInterrupt
        found = [build for build in self._builds if build["id"] in parameters["ids"]]
        for build in found:
            if build["buildStatus"] == "IN_PROGRESS":
                self._advance(build)
        return {"builds": found}

    def _advance(self, build: dict[str, Any]) -> None:
        """End the phase that goes on, and begin the next."""
        phases = build["phases"]
        going_on = len(phases) - 1
        phases[going_on:] = [] if going_on < 0 else [self._ended(phases[going_on]["phaseType"])]
        if phases and phases[-1]["phaseStatus"] != "SUCCEEDED":
            build["buildStatus"] = phases[-1]["phaseStatus"]
        elif len(phases) == len(PHASES):
            self._finish(build)
        else:
            phases.append({"phaseType": PHASES[len(phases)]})
            if phases[-1]["phaseType"] == "PROVISIONING":
                build["logs"]["streamName"] = "0f1e"

    def _ended(self, phase: str) -> dict[str, Any]:
        if self._failure is not None and self._failure[0] == phase:
            _, status, contexts = self._failure
            return {"phaseType": phase, "phaseStatus": status, "durationInSeconds": 7, "contexts": contexts}
        return {"phaseType": phase, "phaseStatus": "SUCCEEDED", "durationInSeconds": 3}

    def _finish(self, build: dict[str, Any]) -> None:
        build["buildStatus"] = "SUCCEEDED"
        bucket, _, key = build["source"]["location"].partition("/")
        body = boto3.client("s3", region_name=self.region).get_object(Bucket=bucket, Key=key)["Body"].read()
        with ZipFile(BytesIO(body)) as archive:
            self.sources.append({name: archive.read(name) for name in archive.namelist()})
        values = {one["name"]: one["value"] for one in build["environment"]["environmentVariables"]}
        if self.pushes:
            repository, _, tag = values["IMAGE"].partition("/")[2].partition(":")
            ecr = boto3.client("ecr", region_name=self.region)
            ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(MANIFEST))


def _refused(code: str, message: str) -> AWSResponse:
    return response(400, json.dumps({"__type": code, "message": message}))


@contextmanager
def installed(codebuild: CodeBuild) -> Iterator[None]:
    """Answer the clients that are made from now on."""
    entry = ("before-send.codebuild", codebuild, handlers.REGISTER_FIRST)
    handlers.BUILTIN_HANDLERS.append(entry)
    try:
        yield
    finally:
        handlers.BUILTIN_HANDLERS.remove(entry)
