"""The `docker` program: build, sign in, push, run. What it prints when it fails becomes one of our errors."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.errors import AccessError, ConflictError, MachineError, MissingError, OrchestratorError, ServiceError
from orchestrator.terminal import printable

COMMAND = command("infra", "image")
_EVIDENCE_LINES = 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_USER = "AWS"  # ECR's only one; the token is the password

Listener = Callable[[str], None]
"""Called with each line that docker prints while it works."""


class _Sign(NamedTuple):
    """A message of docker and what it means."""

    pattern: str
    """Regular expression of a line."""
    error: type[OrchestratorError]
    """Class of our error."""
    cause: str
    """What the line means."""
    next_step: str
    """The next command; `{again}` stands for the one that was typed, `{start}` for what starts the engine."""


Signs = tuple[_Sign, ...]

_OF_THE_ENGINE = (
    _Sign(
        r"permission denied while trying to connect|docker\.sock: connect: permission denied",
        MachineError, "this user may not use the docker engine",
        "sudo usermod -aG docker $USER && newgrp docker  (then: {again})"),
    _Sign(
        r"cannot connect to the docker daemon|is the docker daemon running|failed to connect to the docker api"
        r"|error during connect",
        MachineError, "the docker engine is not running",
        "{start}; then: {again})"),
    _Sign(
        r"no space left on device|disk quota exceeded",
        MachineError, "the disk of the docker engine is full",
        "docker system prune  (an image needs about 15 GB, one without CUDA 3 GB; then: {again})"),
    _Sign(
        r"exec format error",
        MachineError, "this machine cannot run programs of that platform",
        "docker run --privileged --rm tonistiigi/binfmt --install amd64  (then: {again})"),
    _Sign(
        r"certificate_verify_failed|certificate verify failed",
        MachineError, "pip in the image does not trust the certificate of its index",
        "build with wheels that are here (--wheelhouse, docs/local-mode.md); it was: {again}"),
    _Sign(
        r"no matching distribution found|newconnectionerror|could not find a version that satisfies",
        ServiceError, "pip in the image does not reach its index, or finds no such version there",
        "check the network, or build with wheels that are here (--wheelhouse, docs/local-mode.md); then: {again}"),
    _Sign(
        r"no such host|i/o timeout|tls handshake timeout|connection refused|network is unreachable|toomanyrequests"
        r"|name resolution",
        ServiceError, "a server that it downloads from cannot be reached",
        "check the network, or build without one (--base-image and --wheelhouse, docs/local-mode.md), then: {again}"),
)  # fmt: skip
_OF_THE_REGISTRY = (
    _Sign(
        r"not authorized to perform:? ecr:",
        AccessError, "this identity may not push images", "ask the account's owner to run: {again}"),
    _Sign(
        r"tag is immutable|cannot be overwritten",
        ConflictError, "the registry has an image of that name", command("infra", "show")),
    _Sign(
        r"name unknown|repository .* does not exist",
        MissingError, "the account has no such repository", command("infra", "up")),
    _Sign(
        r"authorization token has expired|no basic auth credentials|denied|unauthorized",
        AccessError, "the registry does not accept the token", "{again}"),
)  # fmt: skip


_OF_AN_IMAGE = (
    _Sign(
        r"pull access denied|manifest unknown|repository does not exist|manifest for .* not found"
        r"|invalid reference format",
        MissingError, "no registry gives out an image of that name",
        "docker image ls  (lists the images that are here; then: {again})"),
)  # fmt: skip


def _start_command() -> str:
    """Return how the engine that the program looks for is started, as far as the parenthesis that goes on."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return f"unset DOCKER_HOST  (it names {printable(host)}, where no engine answers"
    return "sudo systemctl start docker  (or open Docker Desktop"


class Docker:
    """A docker engine, used through the program, so that the engine a person has set up is the one that works."""

    def __init__(
        self,
        report: Listener,
        variables: Mapping[str, str] | None = None,
        again: str = COMMAND,
    ) -> None:
        self.report = report
        self.again = again
        self.variables = variables or {}

    def require_engine(self, doing: str = "Building the image", *, instead: str = "") -> None:
        """Raise MachineError unless docker is installed and its engine answers.

        `doing` is what needs it, `instead` the command that does it without docker, if there is one.
        """
        if not self.is_installed():
            install = f"install it (https://docs.docker.com/get-docker), or on a machine that has it: {self.again}"
            raise MachineError(
                f"{doing} needs docker, which is not installed on this machine.",
                next_step=f"{instead}, or {install}" if instead else install,
            )
        self.run("talk to docker", "version")

    @staticmethod
    def is_installed() -> bool:
        """Return whether there is a docker program: without one, no container was ever started."""
        return shutil.which("docker") is not None

    def require_compose(self) -> None:
        """Raise MachineError unless docker has its compose plugin, or there is docker-compose, its predecessor."""
        has_plugin = self._ask("compose", "version").returncode == 0
        if not has_plugin and shutil.which("docker-compose") is None:
            raise MachineError(
                "Jobs in containers need docker compose, which is not installed on this machine.",
                next_step=f"install it (https://docs.docker.com/compose/install), then: {self.again}",
            )

    def has_image(self, name: str) -> bool:
        """Return whether the engine has an image of that name."""
        return self._ask("image", "inspect", "--format", "{{.Id}}", name).returncode == 0

    def pull(self, image: str, platform: str) -> None:
        """Download an image that is not here; raises one of our errors, which names it, when it cannot be had."""
        doing = f"pull {printable(image)}, which is not on this machine"
        self.follow(doing, "pull", "--platform", platform, image, signs=_OF_AN_IMAGE)

    def is_rootless(self) -> bool:
        """Return whether the engine runs as this user, and root in its containers is this user too."""
        answer = self._ask("info", "--format", "{{.SecurityOptions}}")
        return answer.returncode == 0 and "rootless" in answer.stdout

    def containers(self, label: str) -> list[str]:
        """Return the ids of all containers with a label, the stopped ones too; none where docker cannot be asked."""
        try:
            answer = self._ask("ps", "--all", "--quiet", "--filter", f"label={label}")
        except FileNotFoundError:
            return []
        return answer.stdout.split() if answer.returncode == 0 else []

    def labels(self, container: str) -> dict[str, str]:
        """Return the labels of a container; none when it is gone."""
        answer = self._ask("inspect", "--format", "{{json .Config.Labels}}", container)
        if answer.returncode != 0:
            return {}
        labels: dict[str, str] = json.loads(answer.stdout) or {}
        return labels

    def kill(self, containers: Sequence[str], signal: str) -> None:
        """Send a signal to those containers that run."""
        if containers:
            self._ask("kill", "--signal", signal, *containers)

    def remove(self, containers: Sequence[str]) -> None:
        """Remove containers, also those that run; those that are gone are no failure."""
        if containers:
            self._ask("rm", "--force", "--volumes", *containers)

    def build(
        self,
        folder: Path,
        dockerfile: Path,
        image: str,
        *,
        platform: str,
        arguments: Mapping[str, str],
    ) -> None:
        """Build a Dockerfile with the files of a folder as an image of that name."""
        words = ["build", "--platform", platform, "--file", str(dockerfile), "--tag", image, *self._plain_format()]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        self.follow("build the image", *words, str(folder))

    def push(self, image: str, password: str) -> None:
        """Push an image; the registry's password goes in by stdin and is not kept."""
        registry = image.partition("/")[0]
        with self._signing_in_to(registry) as docker:
            words = ["login", "--username", _USER, "--password-stdin", registry]
            docker.run(
                "sign in to the registry",
                *words,
                stdin=password,
                signs=_OF_THE_REGISTRY,
            )
            docker.follow("push the image", "push", image, signs=_OF_THE_REGISTRY)

    def _plain_format(self) -> list[str]:
        """Return the flags for Docker's own image format: newer engines default to OCI's, which SageMaker has refused.

        The image goes to the engine, from where it is pushed: a builder of the kind docker-container keeps it to itself
        otherwise. The older builder has no such flags, and only makes Docker's own format; it would leave the container
        of a step that fails.
        """
        if self._ask("buildx", "version").returncode != 0:
            return ["--force-rm"]
        return ["--provenance=false", "--output", "type=docker"]

    @contextmanager
    def _signing_in_to(self, registry: str) -> Iterator["Docker"]:
        """Yield the same engine with a temporary configuration, which is deleted together with the password in it.

        The person's own configuration would keep the password, in plain text where no keychain is set up. An empty
        configuration would make docker look for a keychain, so this one names the registry. The person's own also
        selects the engine, which is therefore passed on.
        """
        variables = dict(self.variables)
        asked = self._ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        if asked.returncode == 0:
            variables["DOCKER_HOST"] = asked.stdout.strip()
        with tempfile.TemporaryDirectory(prefix="orchestrator-docker-") as folder:
            variables["DOCKER_CONFIG"] = folder
            config = json.dumps({"auths": {registry: {}}})
            Path(folder, "config.json").write_text(config, encoding="utf-8")
            yield Docker(self.report, variables, self.again)

    def _ask(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # with stderr in the output: there docker says what is wrong
            ["docker", *words],  # noqa: S607  (whichever docker the person has)
            env={**os.environ, **self.variables},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )

    def run(self, doing: str, *words: str, stdin: str = "", signs: Signs = ()) -> None:
        """Run a short command without showing its output; raises one of our errors when it fails."""
        answer = self._ask(*words, stdin=stdin)
        if answer.returncode != 0:
            said = _COLOUR.sub("", answer.stdout)
            raise self._failure(doing, said.splitlines(), signs)

    def follow(self, doing: str, *words: str, signs: Signs = ()) -> None:
        """Run a long command and report its lines; raises one of our errors when it fails."""
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
                plain = _COLOUR.sub("", line)
                lines.append(plain)
                self.report(plain)
        if process.returncode != 0:
            raise self._failure(doing, lines, signs)

    def _failure(self, doing: str, output: Iterable[str], signs: Signs) -> OrchestratorError:
        """Return the error for docker's last lines; those that match no sign are shown."""
        lines = []
        for line in output:
            if line.strip():
                lines.append(line.strip())
        lines = lines[-_EVIDENCE_LINES:]
        for sign in (*_OF_THE_ENGINE, *signs):
            for line in reversed(lines):
                if re.search(sign.pattern, line, re.IGNORECASE):
                    next_step = sign.next_step.format(again=self.again, start=_start_command())
                    return sign.error(f"Could not {doing}: {sign.cause}. ({line})", next_step=next_step)
        shown = " none"
        if lines:
            shown = "\n  ".join(["", *lines])
        return MachineError(
            f"Could not {doing}. Last lines of docker's output:{shown}", next_step=f"fix it, then: {self.again}"
        )
