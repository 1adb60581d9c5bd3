"""Images that are drawn, kept with the checkpoints until their host leaves all of them.

A file appears by a rename and is named by all that its image depends on: it is whole, and nobody draws it again.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.batch_result import IMAGES_FOLDER, Sample
from orchestrator.contract.environment import Environment

if TYPE_CHECKING:
    from PIL import Image


def kept_folder(environment: Environment) -> Path:
    """Return where images are kept until their host leaves all of them."""
    return environment.checkpoints / IMAGES_FOLDER


def kept_file(folder: Path, sample: Sample) -> Path:
    """Return where an image is kept."""
    return folder / f"{sample.id}.png"


def is_drawn(batch: Sequence[Sample], folder: Path) -> bool:
    """Whether all images of a batch are kept and whole: it is drawn as a whole, so that its images stay the same."""
    for sample in batch:
        path = kept_file(folder, sample)
        if not _is_whole(path, (sample.width, sample.height)):
            return False
    return True


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a file is an image of a width and height. A copy of the checkpoints may be cut off."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != shape:
                return False
            image.load()
    except (OSError, ValueError, SyntaxError):  # Pillow raises a SyntaxError for a broken PNG
        return False
    return True


def keep(image: "Image.Image", path: Path) -> None:
    """Write an image that is whole or absent."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    image.save(draft, format="PNG")
    draft.replace(path)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file another name, or copy it to another disk: a checkpoint that is moved is lost to a retry."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)
