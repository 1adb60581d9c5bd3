"""Images in registries of ECR: the parts of their names, and whether they are there."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.errors import MissingError

_UP = command("infra", "up")
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^:@]+)(?::(?P<tag>[^:@]+)|@(?P<digest>.+))"
)


class RegistryImage(NamedTuple):
    """An image's name in an ECR registry, and the parts of it."""

    name: str
    """The whole name."""
    account: str
    """Twelve digits."""
    region: str
    """AWS region."""
    repository: str
    """Name of the repository."""
    tag: str | None
    """Tag; None for an image that is named by its digest."""
    digest: str | None
    """Digest; None for an image that is named by its tag."""

    @property
    def query(self) -> dict[str, Any]:
        """The arguments of DescribeImages, with the account that must own the registry."""
        image_id = {"imageDigest": self.digest}
        if self.tag:
            image_id = {"imageTag": self.tag}
        return {
            "registryId": self.account,
            "repositoryName": self.repository,
            "imageIds": [image_id],
        }


def parse_image(name: str) -> RegistryImage | None:
    """Return the parts of an image's name; None for one that is in no registry of ECR."""
    match = _ECR.fullmatch(name)
    return None if match is None else RegistryImage(name=name, **match.groupdict())


def by_digest(image: RegistryImage, details: Mapping[str, Any]) -> str:
    """Return an image's name with its digest in place of its tag, so that what was found is what runs, every time.

    The name as it is when the registry's `details` have no digest. SageMaker takes both forms:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ContainerDefinition.html
    """
    digest = details.get("imageDigest")
    if image.tag is None or not digest:
        return image.name
    untagged = image.name.removesuffix(f":{image.tag}")
    return f"{untagged}@{digest}"


def describe_image(aws: Aws, image: RegistryImage) -> dict[str, Any] | None:
    """Return the registry's details of an image, or None without it; raises MissingError without the repository."""
    client = aws.client("ecr")
    version = image.tag or image.digest
    try:
        with calling(f"look for the image {image.repository}:{version}", not_found=_UP):
            found: dict[str, Any] = client.describe_images(**image.query)["imageDetails"][0]
    except MissingError as error:
        if error.code == "ImageNotFoundException":
            return None
        raise
    return found
