"""The images that jobs and endpoints run in: whether the account has them, building and pushing them.

Their tag is derived from the files they are built from, and the registry's tags are immutable: a name stands for one
image.
"""

import base64
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator import __version__
from orchestrator.aws.client import Aws, calling
from orchestrator.container_images import SOURCES, ImageKind, image_here, image_tag
from orchestrator.contract.command_line import command
from orchestrator.docker import COMMAND, Docker, Listener
from orchestrator.errors import AccessError, AccountError, ConflictError, MachineError, MissingError
from orchestrator.infra.registry import RegistryImage, by_digest, describe_image, parse_image
from orchestrator.resources import CONTAINERS
from orchestrator.settings import AwsSettings

PLATFORM = "linux/amd64"
"""Platform of SageMaker's GPU instances, for which requirements.txt is locked."""
_UP = command("infra", "up")
BASE_IMAGE = "python:3.11-slim-bookworm"
"""As in the Dockerfiles."""
_DOCKER_FORMAT = "application/vnd.docker.distribution.manifest.v2+json"


class Image(BaseModel):
    """What `infra image` did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    """Name with tag."""
    built: bool
    """False when the registry already had it."""
    pushed: bool
    """False when the registry already had it, and for a build only."""
    warning: str = ""
    """Why SageMaker may refuse it."""


class Build(BaseModel):
    """How an image is built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ImageKind = ImageKind.TRAINING
    """Which image."""
    platform: str = PLATFORM
    """Platform of the image."""
    cpu: bool = False
    """Without CUDA, for machines without a GPU."""
    base_image: str | None = None
    """Image with Python 3.11, venv and pip; that of the Dockerfile when left out."""
    wheelhouse: Path | None = None
    """Folder with all wheels, for a build without a network."""

    def arguments(self) -> dict[str, str]:
        """Return the build arguments."""
        arguments = {"VERSION": __version__}
        if self.base_image is not None:
            arguments["BASE_IMAGE"] = self.base_image
        if self.cpu:
            arguments["REQUIREMENTS"] = "requirements-cpu.txt"
            arguments["CUDA_IMAGE"] = self.base_image or BASE_IMAGE
        return arguments


def build(how: Build, *, report: Listener, again: str = COMMAND) -> Image:
    """Build an image on this machine, unless it is here, without pushing it.

    Its tag is the hash of what it is built from; one of another platform, base or wheels is built in any case.
    """
    image = image_here(how.kind, for_gpu=not how.cpu)
    docker = Docker(report, again=again)
    docker.require_engine()
    is_usual = how == Build(kind=how.kind, cpu=how.cpu)
    if is_usual and docker.has_image(image):
        return Image(image=image, built=False, pushed=False)
    _build(docker, image, how)
    return Image(image=image, built=True, pushed=False)


def publish(
    aws: Aws,
    account: AwsSettings,
    how: Build,
    *,
    report: Listener,
    again: str = COMMAND,
) -> Image:
    """Build the image that the stack names and push it, unless the registry has it.

    Raises AccountError when the stack names another image than this version builds, MachineError without docker.
    """
    registered = image_to_build(account, how.kind)
    name = registered.name
    if describe_image(aws, registered) is not None:
        return Image(image=name, built=False, pushed=False)
    docker = Docker(report, again=again)
    in_account = command("infra", "image", how.kind, "--in-account")
    docker.require_engine(instead=f"{in_account}  (it builds in the account)")
    password = _password(aws, registered)  # before minutes of building: fails for those who may not push
    _build(docker, name, how)
    try:
        docker.push(name, password)
    except ConflictError:  # somebody else pushed it meanwhile; the same name is the same image
        return Image(image=name, built=True, pushed=False)
    pushed = describe_image(aws, registered)
    return Image(image=name, built=True, pushed=True, warning=format_warning(pushed))


def image_to_build(account: AwsSettings, kind: ImageKind) -> RegistryImage:
    """Return the image that the stack names and this version builds; raises AccountError when it names another one."""
    name = _name(account, kind)
    registered = _registered(account, kind)
    if registered is None:
        what = "Jobs run" if kind is ImageKind.TRAINING else "Endpoints run"
        raise AccountError(
            f"{what} in {name}, which is not in this account's own registry: there is nothing to build.",
            next_step=command("infra", "show"),
        )
    if registered.tag != image_tag():
        message = f"The stack names the image {name}; this version of orchestrator builds {image_tag()}."
        raise AccountError(message, next_step=_UP)
    return registered


def is_missing(aws: Aws, account: AwsSettings, kind: ImageKind = ImageKind.TRAINING) -> bool:
    """Return whether the account's registry lacks the image that jobs, or endpoints, run in.

    Also False where that is unknown: for an image in another registry, and without permission to look.
    """
    registered = _registered(account, kind)
    if registered is None:
        return False
    try:
        return describe_image(aws, registered) is None
    except AccessError:
        return False


def require_image(aws: Aws, account: AwsSettings) -> str:
    """Return the name of the image for requests: with its digest, so that each attempt of a job runs what was found.

    As the settings name it where the registry cannot be asked: for an image in another registry, and without permission
    to look. Raises an error when jobs cannot start in the image, as a job would only fail after minutes of waiting:
    MissingError when it is not in the registry; AccountError when the stack names the image of another version, which
    lacks what this version's requests start. An image of one's own, in another repository, may have any tag.
    """
    name = account.training_image
    registered = _registered(account)
    if registered is None:
        return name
    details: dict[str, Any] | None = {}
    with suppress(AccessError):  # the service says it when the job starts
        details = describe_image(aws, registered)
    if details is None:
        message = f"The image that jobs run in is not in the registry yet: {name}"
        raise MissingError(f"{message}. Nothing was submitted.", next_step=COMMAND)
    is_of_stack = registered.repository == f"{account.stack_name}-training"
    if is_of_stack and registered.tag not in {None, image_tag()}:
        message = (
            f"The image that jobs run in, {name}, is that of another version of orchestrator; "
            f"this one needs {image_tag()}. Nothing was submitted."
        )
        show = command("infra", "show")
        raise AccountError(message, next_step=f"{_UP} && {COMMAND}  # by the account's owner; everybody else: {show}")
    return by_digest(registered, details)


def _name(account: AwsSettings, kind: ImageKind) -> str:
    """Return the name of an image as the stack has it; raises AccountError for a stack from before it had one."""
    if kind is ImageKind.TRAINING:
        return account.training_image
    if account.inference_image is None:
        raise AccountError("The stack has no image of endpoints: it is of an older version.", next_step=_UP)
    return account.inference_image


def _registered(account: AwsSettings, kind: ImageKind = ImageKind.TRAINING) -> RegistryImage | None:
    """Return an image's name in the account's own registry, or None for an image in another registry."""
    image = parse_image(_name(account, kind))
    if image is None or image.account != account.account_id or image.region != account.region:
        return None
    return image


def _password(aws: Aws, image: RegistryImage) -> str:
    """Return the password for the registry, which is good for twelve hours."""
    client = aws.client("ecr")
    try:
        with calling("sign in to the registry"):
            answer = client.get_authorization_token(registryIds=[image.account])
    except AccessError as error:
        raise AccessError(error.message, next_step=f"ask the account's owner to run: {COMMAND}") from error
    token = answer["authorizationData"][0]["authorizationToken"]
    user_and_password = base64.b64decode(token).decode()
    return user_and_password.partition(":")[2]


def _build(docker: Docker, image: str, how: Build) -> None:
    with _context(how) as folder:
        if how.base_image is not None and not docker.has_image(how.base_image):
            docker.pull(how.base_image, how.platform)
        docker.build(
            folder,
            folder / how.kind / "Dockerfile",
            image,
            platform=how.platform,
            arguments=how.arguments(),
        )


@contextmanager
def _context(how: Build) -> Iterator[Path]:
    """Yield the folder that an image is built from: with wheels, a copy that has them where the Dockerfile looks."""
    wheelhouse = how.wheelhouse
    if wheelhouse is None:
        yield CONTAINERS
        return
    wheels = sorted(wheelhouse.glob("*.whl"))
    if not wheels:
        raise MachineError(f"{wheelhouse} has no wheels.", next_step=_download(how, wheelhouse))
    with TemporaryDirectory(prefix="orchestrator-image-") as temporary:
        folder = Path(temporary)
        for name in SOURCES:
            copy = folder / name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(CONTAINERS / name, copy)
        (folder / "wheelhouse").mkdir()
        for wheel in wheels:
            shutil.copyfile(wheel, folder / "wheelhouse" / wheel.name)
        yield folder


def _download(how: Build, wheelhouse: Path) -> str:
    """Return the command that fills a folder with the wheels of an image."""
    requirements = CONTAINERS / how.kind / ("requirements-cpu.txt" if how.cpu else "requirements.txt")
    index = "--extra-index-url https://download.pytorch.org/whl/cpu " if how.cpu else ""
    flags = f"--no-deps --only-binary :all: {index}--dest {shlex.quote(str(wheelhouse))}"
    return f"pip download {flags} --requirement {shlex.quote(str(requirements))}"


def format_warning(found: dict[str, Any] | None) -> str:
    """Return a warning for an image in OCI's format, which SageMaker has refused; empty for Docker's own."""
    media_type = (found or {}).get("imageManifestMediaType")
    if media_type in (None, "", _DOCKER_FORMAT):
        return ""
    return f"It has the format {media_type}, which SageMaker may refuse. Install docker buildx for Docker's own format."
