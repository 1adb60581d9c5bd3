"""Images by their digests, as moto's registry knows them: in this process, so that no permission is needed to look."""

from collections.abc import Iterator


def names(uri: str) -> Iterator[str]:
    """Yield an image's URI, and for one with a digest those by the tags that the registry has for it."""
    from moto.ecr.models import ecr_backends

    yield uri
    untagged, _, digest = uri.partition("@")
    registry, _, name = untagged.partition("/")
    account, _, _, region, *_ = [*registry.split("."), "", "", "", ""]
    if not digest or not region:
        return
    repository = ecr_backends[account][region].repositories.get(name)
    if repository is None:
        return
    for image in repository.images:
        if image.get_image_digest() == digest:
            yield from (f"{untagged}:{tag}" for tag in image.image_tags)
