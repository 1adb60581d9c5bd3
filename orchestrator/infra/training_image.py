"""The image that training jobs run in: its name, whether the account has it, building and pushing it.

Its tag is derived from the files it is built from, and the registry's tags are immutable: a name stands for one image.
"""

import base64
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator import __version__
from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import hash_file, tree_sha256
from orchestrator.errors import AccessError, AccountError, ConflictError, MissingError
from orchestrator.infra.docker import COMMAND, Docker, Listener
from orchestrator.infra.registry import RegistryImage, describe_image, parse_image
from orchestrator.resources import TRAINING_IMAGE
from orchestrator.settings import AwsSettings

PLATFORM = "linux/amd64"
"""Platform of SageMaker's GPU instances, for which requirements.txt is locked."""
_SOURCES = ("Dockerfile", "requirements.txt", "start.py")
_UP = command("infra", "up")
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


def image_tag() -> str:
    """Return the version and ten digits of the hash of the files that the image is built from."""
    files = {name: hash_file(TRAINING_IMAGE / name) for name in _SOURCES}
    digits = tree_sha256(files)[:10]
    return f"{__version__}-{digits}"


def build(*, platform: str, report: Listener, again: str = COMMAND) -> Image:
    """Build the image on this machine, without pushing it."""
    image = f"orchestrator-training:{image_tag()}"
    docker = Docker(report, again=again)
    docker.require_engine()
    _build(docker, image, platform)
    return Image(image=image, built=True, pushed=False)


def publish(
    aws: Aws,
    account: AwsSettings,
    *,
    platform: str,
    report: Listener,
    again: str = COMMAND,
) -> Image:
    """Build the image that the stack names and push it, unless the registry has it.

    Raises AccountError when the stack names another image than this version builds, MachineError without docker.
    """
    name = account.training_image
    registered = _registered(account)
    if registered is None:
        raise AccountError(
            f"Jobs run in {name}, which is not in this account's own registry: there is nothing to build.",
            next_step=command("infra", "show"),
        )
    if registered.tag != image_tag():
        message = f"The stack names the image {name}; this version of orchestrator builds {image_tag()}."
        raise AccountError(message, next_step=_UP)
    if describe_image(aws, registered) is not None:
        return Image(image=name, built=False, pushed=False)
    docker = Docker(report, again=again)
    docker.require_engine()
    password = _password(aws, registered)  # before minutes of building: fails for those who may not push
    _build(docker, name, platform)
    try:
        docker.push(name, password)
    except ConflictError:  # somebody else pushed it meanwhile; the same name is the same image
        return Image(image=name, built=True, pushed=False)
    pushed = describe_image(aws, registered)
    return Image(image=name, built=True, pushed=True, warning=_format_warning(pushed))


def is_missing(aws: Aws, account: AwsSettings) -> bool:
    """Return whether the account's registry lacks the image that jobs run in.

    Also False where that is unknown: for an image in another registry, and without permission to look.
    """
    registered = _registered(account)
    if registered is None:
        return False
    try:
        return describe_image(aws, registered) is None
    except AccessError:
        return False


def require_image(aws: Aws, account: AwsSettings) -> None:
    """Raise an error when jobs cannot start in the image: a job would only fail after minutes of waiting.

    MissingError when it is not in the registry; AccountError when the stack names the image of another version, which
    lacks what this version's requests start. An image of one's own, in another repository, may have any tag.
    """
    name = account.training_image
    if is_missing(aws, account):
        message = f"The image that jobs run in is not in the registry yet: {name}"
        raise MissingError(f"{message}. Nothing was submitted.", next_step=COMMAND)
    registered = _registered(account)
    if registered is None or registered.repository != f"{account.stack_name}-training":
        return
    if registered.tag not in {None, image_tag()}:
        message = (
            f"The image that jobs run in, {name}, is that of another version of orchestrator; "
            f"this one needs {image_tag()}. Nothing was submitted."
        )
        show = command("infra", "show")
        raise AccountError(message, next_step=f"{_UP} && {COMMAND}  # by the account's owner; everybody else: {show}")


def _registered(account: AwsSettings) -> RegistryImage | None:
    """Return the image's name in the account's own registry, or None for an image in another registry."""
    image = parse_image(account.training_image)
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


def _build(docker: Docker, image: str, platform: str) -> None:
    docker.build(
        TRAINING_IMAGE,
        image,
        platform=platform,
        arguments={"VERSION": __version__},
    )


def _format_warning(found: dict[str, Any] | None) -> str:
    """Return a warning for an image in OCI's format, which SageMaker has refused; empty for Docker's own."""
    media_type = (found or {}).get("imageManifestMediaType")
    if media_type in (None, "", _DOCKER_FORMAT):
        return ""
    return f"It has the format {media_type}, which SageMaker may refuse. Install docker buildx for Docker's own format."
