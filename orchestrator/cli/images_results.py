"""What a batch has drawn, on a terminal."""

from orchestrator.contract.batch_result import IMAGES_FOLDER, DrawnImages, index_file
from orchestrator.contract.plurals import counted


def images_facts(location: str, drawn: DrawnImages) -> list[tuple[str, str]]:
    """Return where the images of a batch lie, by the folder or URI of all of it."""
    folder = location.rstrip("/")
    indexes = [f"{folder}/{index_file(host, drawn.hosts)}" for host in range(drawn.hosts)]
    return [
        ("drawn", counted(len(drawn.images), "image")),
        ("images", f"{folder}/{IMAGES_FOLDER}"),
        *[("index", index) for index in indexes],
    ]
