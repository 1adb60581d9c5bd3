"""The image that training jobs run in: its name, whether the account has it, and how it gets there.

Its tag follows from what it is made of, and in the registry no tag can be changed: an image of that name is that image.
"""

import base64
import re
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from orchestrator import __version__
from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import hash_file, tree_sha256
from orchestrator.errors import AccessError, AccountError, ConflictError, MissingError
from orchestrator.infra.docker import COMMAND, Docker, Told
from orchestrator.resources import TRAINING_IMAGE
from orchestrator.settings import AwsSettings

PLATFORM = "linux/amd64"
"""What SageMaker's GPU instances run, and what requirements.txt is locked for."""
_MADE_OF = ("Dockerfile", "requirements.txt")
_UP = command("infra", "up")
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^:@]+)(?::(?P<tag>[^:@]+)|@(?P<digest>.+))"
)
_TAKEN = "application/vnd.docker.distribution.manifest.v2+json"


class Image(BaseModel):
    """What `infra image` did."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str
    """The name, with its tag."""
    built: bool
    """False when the registry had it already."""
    pushed: bool
    """False too when it was only to be built."""
    warning: str = ""
    """What may keep SageMaker from taking it."""


class _Registered(NamedTuple):
    """An image by its place in a registry of ECR."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def query(self) -> dict[str, Any]:
        """The arguments of DescribeImages."""
        one = {"imageTag": self.tag} if self.tag else {"imageDigest": self.digest}
        return {"registryId": self.account, "repositoryName": self.repository, "imageIds": [one]}


def image_tag() -> str:
    """Return the version and ten digits of the hash of what the image is made of: another image, another tag."""
    files = {name: hash_file(TRAINING_IMAGE / name) for name in _MADE_OF}
    return f"{__version__}-{tree_sha256(files)[:10]}"


def build(*, platform: str, told: Told) -> Image:
    """Build the image for this machine alone."""
    image = f"orchestrator-training:{image_tag()}"
    docker = Docker(told)
    docker.require_engine()
    _build(docker, image, platform)
    return Image(image=image, built=True, pushed=False)


def publish(aws: Aws, account: AwsSettings, *, platform: str, told: Told) -> Image:
    """Build the image the stack names and push it, unless the registry has it.

    Raises AccountError when the stack names another image than this version makes, MachineError without docker.
    """
    name = account.training_image
    place = _place(account)
    if place is None:
        raise AccountError(
            f"Jobs run in {name}, which is not in this account's own registry: there is nothing to build.",
            next_step=command("infra", "show"),
        )
    if place.tag != image_tag():
        raise AccountError(f"The stack names {name}, and this version makes the image {image_tag()}.", next_step=_UP)
    if _describe(aws, place) is not None:
        return Image(image=name, built=False, pushed=False)
    docker = Docker(told)
    docker.require_engine()
    password = _password(aws, place)  # before minutes of building: whoever may not push learns it here
    _build(docker, name, platform)
    try:
        docker.push(name, password)
    except ConflictError:  # somebody else was quicker; the same name is the same image
        return Image(image=name, built=True, pushed=False)
    pushed = _describe(aws, place)
    return Image(image=name, built=True, pushed=True, warning=_oddity(pushed))


def is_missing(aws: Aws, account: AwsSettings) -> bool:
    """Return whether the account's registry lacks the image that jobs are to run in.

    False too where that cannot be told: for an image of another registry, and for somebody who may not look.
    """
    place = _place(account)
    try:
        return place is not None and _describe(aws, place) is None
    except AccessError:
        return False


def require_image(aws: Aws, account: AwsSettings) -> None:
    """Raise MissingError when the image is not there: a job would find that out after minutes of waiting."""
    if is_missing(aws, account):
        message = f"The image that jobs run in is not in the registry yet: {account.training_image}"
        raise MissingError(f"{message}. Nothing was submitted.", next_step=COMMAND)


def _place(account: AwsSettings) -> _Registered | None:
    """Return where the image is in the account's own registry, or None for one of another registry."""
    match = _ECR.fullmatch(account.training_image)
    if match is None:
        return None
    if match["account"] != account.account_id or match["region"] != account.region:
        return None
    return _Registered(**match.groupdict())


def _describe(aws: Aws, image: _Registered) -> dict[str, Any] | None:
    """Return what the registry knows of an image, or None without it; raises MissingError without its repository."""
    client = aws.client("ecr")
    try:
        with calling(f"look for the image {image.repository}:{image.tag or image.digest}", not_found=_UP):
            found: dict[str, Any] = client.describe_images(**image.query)["imageDetails"][0]
    except MissingError as error:
        if error.code == "ImageNotFoundException":
            return None
        raise
    return found


def _password(aws: Aws, image: _Registered) -> str:
    """Return the password for the registry, which is good for twelve hours."""
    client = aws.client("ecr")
    try:
        with calling("sign in to the registry"):
            answer = client.get_authorization_token(registryIds=[image.account])
    except AccessError as error:
        raise AccessError(error.message, next_step=f"ask the account's owner to run: {COMMAND}") from error
    token = answer["authorizationData"][0]["authorizationToken"]
    return base64.b64decode(token).decode().partition(":")[2]


def _build(docker: Docker, image: str, platform: str) -> None:
    docker.build(
        TRAINING_IMAGE,
        image,
        platform=platform,
        arguments={"VERSION": __version__},
    )


def _oddity(found: dict[str, Any] | None) -> str:
    """Return what is odd about a pushed image: SageMaker has refused images in the format of OCI."""
    form = (found or {}).get("imageManifestMediaType") or _TAKEN
    if form == _TAKEN:
        return ""
    return f"It is in the format {form}, which SageMaker may refuse. Docker's own format comes with docker buildx."
