"""AWS CodeBuild, for tests: it remembers what it was asked, holds to idempotency tokens, and ends builds as it is told.

A build that succeeds has read its source from the bucket and leaves an image in the registry, both of moto. Stands at
the SDK's `before-send` event for every client that is made while it is installed; moto's own CodeBuild keeps neither
variables nor tokens, and every build in it succeeds at once. A stack's parameter `Builds` makes and removes its project
when it changes, so that one which somebody deleted stays away until then, as with CloudFormation.
"""

import json
import time
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
STREAM = "0f1e"
LINK = "https://console.aws.amazon.com/cloudwatch/home#logsV2:log-groups"
PHASES = ("SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD")
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {},
    "layers": [],
}
_NOWHERE = "http://answered.invalid/"
_PAGE = 100  # builds in an answer


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
        self.expires = False
        """Whether the credentials expire when a build has been asked for."""
        self.lists = True
        """Whether its lists have what was started; services are eventually consistent."""
        self.interrupts: set[str] = set()
        """Operations that are carried out, and during which Ctrl+C is pressed."""
        self.manifest = MANIFEST
        """Of the images that builds push."""
        self.log = ""
        """What builds write into their log, in moto's CloudWatch."""
        self._builds: list[dict[str, Any]] = []
        self._tokens: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._failure: tuple[str, str, list[dict[str, str]]] | None = None
        self._later = ""
        self._made: set[str] = set()  # projects that stacks have made

    def fails(self, phase: str, status: str = "FAILED", code: str = "", message: str = "", later: str = "") -> None:
        """Have the builds that run from now on end so in that phase; a `later` one runs all the same, and fails too."""
        contexts = [{"statusCode": code, "message": message}] if code or message else []
        self._failure = (phase, status, contexts)
        self._later = later

    def succeeds(self) -> None:
        """Have the builds that run from now on end well."""
        self._failure = None

    def forgets(self) -> None:
        """Delete all builds, as somebody can."""
        self._builds.clear()

    def has_run(self, number: int, image: str) -> None:
        """Have builds of an image that failed before."""
        for _ in range(number):
            self._add(PROJECT, "", [{"name": "IMAGE", "value": image}])["buildStatus"] = "FAILED"

    def note_stack(self, **_: object) -> None:
        """Make and delete the project of each stack whose parameter has changed."""
        wanted = set()
        for stack in boto3.client("cloudformation", region_name=self.region).describe_stacks()["Stacks"]:
            values = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
            if values["Builds"] == "make":
                wanted.add(f"{stack['StackName']}-images")
        self.projects |= wanted - self._made
        self.projects -= self._made - wanted
        self._made = wanted

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
        if operation in self.interrupts:
            raise KeyboardInterrupt
        if self.expires and operation == "StartBuild":
            self.refusals["ListBuildsForProject"] = (400, "ExpiredTokenException", "The security token is expired")
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
        build = self._add(
            parameters["projectName"],
            parameters["sourceLocationOverride"],
            parameters["environmentVariablesOverride"],
        )
        self._tokens[token] = (parameters, build)
        return {"build": build}

    def _add(self, project: str, location: str, variables: list[dict[str, str]]) -> dict[str, Any]:
        build = {
            "id": f"{project}:{len(self._builds) + 1}",
            "projectName": project,
            "buildStatus": "IN_PROGRESS",
            "phases": [],
            "source": {"location": location},
            "environment": {"environmentVariables": variables},
            "logs": {"groupName": f"/aws/codebuild/{project}", "streamName": None, "deepLink": LINK},
        }
        self._builds.append(build)
        return build

    def _ListBuildsForProject(self, parameters: dict[str, Any]) -> Any:  # noqa: N802
        if parameters["projectName"] not in self.projects:
            return _refused("ResourceNotFoundException", "Cannot find project")
        ids = [build["id"] for build in self._builds if build["projectName"] == parameters["projectName"]]
        if len(ids) > _PAGE and "sortOrder" in parameters:
            return _refused("InvalidInputException", "Sort order is not supported for more than 100 builds")
        newest_first = ids if parameters.get("sortOrder") == "ASCENDING" else ids[::-1]
        return {"ids": newest_first[:_PAGE] if self.lists else []}

    def _BatchGetBuilds(self, parameters: dict[str, Any]) -> Any:  # noqa: N802
        if len(parameters["ids"]) > _PAGE:
            return _refused("InvalidInputException", "Cannot get more than 100 builds")
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
            if self._later:
                contexts = [{"statusCode": "", "message": "a consequence"}]
                phases.append({"phaseType": self._later, "phaseStatus": "FAILED", "contexts": contexts})
        elif len(phases) == len(PHASES):
            self._finish(build)
        else:
            phases.append({"phaseType": PHASES[len(phases)]})
            if phases[-1]["phaseType"] == "PROVISIONING":
                build["logs"]["streamName"] = STREAM
                self._write(build["logs"]["groupName"])

    def _ended(self, phase: str) -> dict[str, Any]:
        if self._failure is not None and self._failure[0] == phase:
            _, status, contexts = self._failure
            return {"phaseType": phase, "phaseStatus": status, "durationInSeconds": 7, "contexts": contexts}
        return {"phaseType": phase, "phaseStatus": "SUCCEEDED", "durationInSeconds": 3}

    def _write(self, group: str) -> None:
        if not self.log:
            return
        logs = boto3.client("logs", region_name=self.region)
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=STREAM)
        events = [{"timestamp": int(time.time() * 1000), "message": line} for line in self.log.splitlines()]
        logs.put_log_events(logGroupName=group, logStreamName=STREAM, logEvents=events)

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
            ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=json.dumps(self.manifest))


def _refused(code: str, message: str) -> AWSResponse:
    return response(400, json.dumps({"__type": code, "message": message}))


@contextmanager
def installed(codebuild: CodeBuild) -> Iterator[None]:
    """Answer the clients that are made from now on."""
    entries = [("before-send.codebuild", codebuild, handlers.REGISTER_FIRST)]
    for operation in ("CreateStack", "ExecuteChangeSet", "DeleteStack"):
        entries.append((f"after-call.cloudformation.{operation}", codebuild.note_stack, handlers.REGISTER_FIRST))
    handlers.BUILTIN_HANDLERS.extend(entries)
    try:
        yield
    finally:
        for entry in entries:
            handlers.BUILTIN_HANDLERS.remove(entry)
