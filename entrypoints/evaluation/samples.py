"""Images that a run draws, kept as PNG files with an index."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from orchestrator.contract.samples import INDEX_FILE, MOST_IMAGES, SampleImage, SampleIndex


@dataclass(frozen=True)
class IndexedImage:
    """An image and what the index says of it."""

    image: Image.Image
    about: SampleImage


def write_samples(folder: Path, samples: Sequence[IndexedImage]) -> None:
    """Write images at their own size and add them to the folder's index, the index last.

    A sample replaces an earlier one of the same file: a resumed run draws some images again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = listed_images(folder)
    for sample in samples:
        sample.image.save(folder / sample.about.file, format="PNG")
        listed[sample.about.file] = sample.about
    newest = tuple(listed.values())[-MOST_IMAGES:]
    text = SampleIndex(images=newest).model_dump_json(indent=2)
    draft = folder / f".{INDEX_FILE}.{os.getpid()}"
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(folder / INDEX_FILE)


def listed_images(folder: Path) -> dict[str, SampleImage]:
    """Return what the index of a folder lists, by file; nothing when there is none, or none that can be read."""
    try:
        index = SampleIndex.model_validate_json((folder / INDEX_FILE).read_bytes())
    except (FileNotFoundError, ValueError):  # samples are a by-product: a damaged index must not end the run
        return {}
    return {image.file: image for image in index.images}
