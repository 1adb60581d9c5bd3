"""Image files and their captions: from a channel's folder to pixels."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.datasets import CAPTIONS_FILE

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class CaptionedImage:
    """A training image and its caption."""

    path: Path
    """The image file."""
    caption: str | None = None
    """What it shows; None where the recipe's own prompt describes it."""


def list_images(folder: Path | None) -> list[CaptionedImage]:
    """Return the images below a channel's folder, sorted by path, with their captions from `metadata.jsonl`.

    Raises TrainingError("dataset") when there is no image or the captions cannot be read.
    """
    paths = []
    if folder is not None:
        for path in sorted(folder.rglob("*")):
            if is_image(path):
                paths.append(path)
    if folder is None or not paths:
        raise TrainingError(
            "dataset",
            "The training channel holds no PNG, JPEG or WebP image.",
            "Give a folder of them.",
        )
    captions = read_captions(folder / CAPTIONS_FILE)
    images = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        caption = captions.get(name)
        images.append(CaptionedImage(path, caption))
    return images


def is_image(path: Path) -> bool:
    """Whether a file is named like an image and is not hidden."""
    is_hidden = path.name.startswith(".")
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden


def read_captions(path: Path) -> dict[str, str]:
    """Return the captions of a `metadata.jsonl` by file name; none when the file does not exist.

    Each line is a JSON object with `file_name` and `text`, as in the Hub's image folders; a row without `text` has no
    caption. Raises TrainingError("dataset") when a line is not such an object.
    """
    if not path.is_file():
        return {}
    captions: dict[str, str] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            row = json.loads(line)
            if "text" in row:
                captions[row["file_name"]] = row["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            "dataset",
            f"{path.name} cannot be read: {error!r}",
            'Write one JSON object a line: {"file_name": "1.png", "text": "a photo of ..."}.',
        ) from error
    return captions


def read_image(path: Path) -> Image.Image:
    """Decode an image as RGB; raises TrainingError("dataset") when it is damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises a SyntaxError for a broken PNG
        raise TrainingError(
            "dataset",
            f"{path.name} cannot be decoded: {error}",
            "Replace or remove this image.",
        ) from error


def crop_square(
    image: Image.Image,
    side: int,
    across: float = 0.5,
    down: float = 0.5,
) -> Image.Image:
    """Scale the shorter side to `side` pixels and cut a square out of the longer one.

    `across` and `down` say where, from 0 (left, top) to 1 (right, bottom); 0.5 is the centre.
    """
    scale = side / min(image.size)
    # Rounding must not leave a side shorter than the square.
    width = max(side, round(image.width * scale))
    height = max(side, round(image.height * scale))
    left = round((width - side) * across)
    top = round((height - side) * down)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + side, top + side))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as (1, 3, height, width) in [-1, 1], the range that autoencoders are trained on."""
    values = np.asarray(image, dtype=np.float32)  # (height, width, 3), 0 to 255
    pixels = torch.from_numpy(values / 127.5 - 1)
    channels_first = pixels.permute(2, 0, 1)
    return channels_first.unsqueeze(0).contiguous()
