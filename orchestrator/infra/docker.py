"""The `docker` program: build, sign in, push; what it says when it fails becomes one of our errors."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.errors import AccessError, ConflictError, MachineError, MissingError, OrchestratorError, ServiceError

COMMAND = command("infra", "image")
_EVIDENCE_LINES = 12
_USER = "AWS"  # ECR's only one; the token is the password

Told = Callable[[str], None]
"""Is told each line that docker prints while it works."""


class _Sign(NamedTuple):
    """What docker says, and what that means."""

    pattern: str
    error: type[OrchestratorError]
    cause: str
    next_step: str


Signs = tuple[_Sign, ...]

_OF_THE_ENGINE = (
    _Sign(
        r"permission denied while trying to connect|docker\.sock: connect: permission denied",
        MachineError, "this user may not use the docker engine",
        f"sudo usermod -aG docker $USER && newgrp docker  (then: {COMMAND})"),
    _Sign(
        r"cannot connect to the docker daemon|is the docker daemon running|failed to connect to the docker api"
        r"|error during connect",
        MachineError, "the docker engine is not running",
        f"sudo systemctl start docker  (or open Docker Desktop; then: {COMMAND})"),
    _Sign(
        r"no space left on device|disk quota exceeded",
        MachineError, "the disk of the docker engine is full",
        f"docker system prune  (the image needs some 15 GB; then: {COMMAND})"),
    _Sign(
        r"exec format error",
        MachineError, "this machine cannot run programs of that platform",
        f"docker run --privileged --rm tonistiigi/binfmt --install amd64  (then: {COMMAND})"),
    _Sign(
        r"no such host|i/o timeout|tls handshake timeout|connection refused|network is unreachable|toomanyrequests"
        r"|name resolution",
        ServiceError, "what it fetches from cannot be reached", f"check the network, then: {COMMAND}"),
)  # fmt: skip
_OF_THE_REGISTRY = (
    _Sign(
        r"not authorized to perform:? ecr:",
        AccessError, "this identity may not push images", f"ask the account's owner to run: {COMMAND}"),
    _Sign(
        r"tag is immutable|cannot be overwritten",
        ConflictError, "there is an image of that name", command("infra", "show")),
    _Sign(
        r"name unknown|repository .* does not exist",
        MissingError, "the account has no such repository", command("infra", "up")),
    _Sign(
        r"authorization token has expired|no basic auth credentials|denied|unauthorized",
        AccessError, "the registry does not accept the token", COMMAND),
)  # fmt: skip


class Docker:
    """One docker engine, asked through the program, so that whatever engine a person has set up is used."""

    def __init__(self, told: Told, variables: Mapping[str, str] | None = None) -> None:
        self.told = told
        self.variables = variables or {}

    def require_engine(self) -> None:
        """Raise MachineError unless the program is there and an engine answers it."""
        if shutil.which("docker") is None:
            raise MachineError(
                "There is no docker on this machine, which builds the image.",
                next_step=f"install it (https://docs.docker.com/get-docker), or on a machine that has it: {COMMAND}",
            )
        self.run("talk to docker", "version")

    def build(
        self,
        folder: Path,
        image: str,
        *,
        platform: str,
        arguments: Mapping[str, str],
    ) -> None:
        """Build the Dockerfile of a folder and give the image its name."""
        words = ["build", "--platform", platform, "--tag", image, *self._plain_format()]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        self.follow("build the image", *words, str(folder))

    def push(self, image: str, password: str) -> None:
        """Push an image with a password for its registry, which goes in by stdin and is forgotten afterwards."""
        registry = image.partition("/")[0]
        with self._signing_in_to(registry) as docker:
            words = ["login", "--username", _USER, "--password-stdin", registry]
            docker.run(
                "sign in to the registry",
                *words,
                typed=password,
                signs=_OF_THE_REGISTRY,
            )
            docker.follow("push the image", "push", image, signs=_OF_THE_REGISTRY)

    def _plain_format(self) -> list[str]:
        """Return the flags for Docker's own image format: SageMaker has refused that of OCI, which newer engines make.

        The older builder, which knows no such flags, makes no other.
        """
        if self._ask("buildx", "version").returncode != 0:
            return []
        return ["--provenance=false", "--output", "type=image,oci-mediatypes=false"]

    @contextmanager
    def _signing_in_to(self, registry: str) -> Iterator["Docker"]:
        """Yield the same engine with a configuration that is thrown away, and the password with it.

        In the person's own it would stay behind, in plain text where no keychain is set up; a configuration that knows
        no registry would have docker look for a keychain. Which engine is meant stands in the person's own.
        """
        asked = self._ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        engine = {"DOCKER_HOST": asked.stdout.strip()} if asked.returncode == 0 else {}
        with tempfile.TemporaryDirectory(prefix="orchestrator-docker-") as folder:
            Path(folder, "config.json").write_text(json.dumps({"auths": {registry: {}}}), encoding="utf-8")
            yield Docker(self.told, {**self.variables, **engine, "DOCKER_CONFIG": folder})

    def _ask(self, *words: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # stderr is where docker says what is wrong
            ["docker", *words],  # noqa: S607  (whichever docker the person has)
            env={**os.environ, **self.variables},
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )

    def run(self, doing: str, *words: str, typed: str = "", signs: Signs = ()) -> None:
        """Run a command that takes a moment, without showing its output; raises an error of ours when it fails."""
        answer = self._ask(*words, typed=typed)
        if answer.returncode != 0:
            raise _failure(doing, answer.stdout.splitlines(), signs)

    def follow(self, doing: str, *words: str, signs: Signs = ()) -> None:
        """Run a command that takes minutes and tell its lines; raises an error of ours when it fails."""
        lines: deque[str] = deque(maxlen=_EVIDENCE_LINES)
        with subprocess.Popen(
            ["docker", *words],  # noqa: S607
            env={**os.environ, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in map(str.rstrip, process.stdout or ()):
                lines.append(line)
                self.told(line)
        if process.returncode != 0:
            raise _failure(doing, lines, signs)


def _failure(doing: str, said: Iterable[str], signs: Signs) -> OrchestratorError:
    """Return what docker's last lines mean; lines that no sign fits are shown as they are."""
    lines = [line.strip() for line in said if line.strip()]
    lines = lines[-_EVIDENCE_LINES:]
    for sign in (*_OF_THE_ENGINE, *signs):
        for line in reversed(lines):
            if re.search(sign.pattern, line, re.IGNORECASE):
                return sign.error(f"Could not {doing}: {sign.cause}. ({line})", next_step=sign.next_step)
    shown = "\n  ".join(["", *lines]) if lines else " nothing"
    return MachineError(f"Could not {doing}. The last docker said:{shown}", next_step=f"fix it, then: {COMMAND}")
