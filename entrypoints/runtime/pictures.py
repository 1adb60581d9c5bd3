"""Image files and their captions: from a channel's folder to pixels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.buckets import Size
from orchestrator.contract.datasets import CAPTIONS_FILE, CONDITIONS_FOLDER, MASK_ENDING, MOST_REPEATS

MOST_PIXELS_A_SIDE = 10**6
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class CaptionedImage:
    """A training image and its caption."""

    path: Path
    """The image file."""
    caption: str | None = None
    """What it shows; None where the recipe's own prompt describes it."""
    repeats: int = 1
    """As how many pictures it counts."""
    condition: Path | None = None
    """The picture that a ControlNet is shown of it; None where there is none of its own."""
    mask: Path | None = None
    """The file of its mask, white where it is to be learned."""
    original: Size | None = None
    """Its size before it was prepared for training; None where that is the file's own."""


def list_images(folder: Path | None) -> list[CaptionedImage]:
    """Return the images below a channel's folder, sorted by path, with their masks and captions.

    Raises TrainingError("dataset") when there is no image or the captions cannot be read.
    """
    paths = []
    conditions: dict[str, Path] = {}
    if folder is not None:
        for path in sorted(folder.rglob("*")):
            if not is_image(path):
                continue
            if path.parent == folder / CONDITIONS_FOLDER:
                conditions[path.stem] = path
            else:
                paths.append(path)
    if folder is None or not paths:
        raise TrainingError(
            "dataset",
            "The training channel holds no PNG, JPEG or WebP image.",
            "Give a folder of them.",
        )
    rows = read_rows(folder / CAPTIONS_FILE)
    images = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        row = rows.get(name, CaptionRow())
        mask: Path | None = path.with_name(f"{path.stem}{MASK_ENDING}.png")
        if not mask.is_file():
            mask = None
        image = CaptionedImage(
            path, row.caption, row.repeats, condition=conditions.get(path.stem), mask=mask, original=row.original
        )
        images.append(image)
    return images


def is_image(path: Path) -> bool:
    """Whether a file is named like an image, is not hidden, and is no mask of another."""
    is_hidden = path.name.startswith(".")
    is_mask = path.stem.endswith(MASK_ENDING)
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and not is_mask


def require_masks(images: Sequence[CaptionedImage]) -> None:
    """Raise TrainingError("dataset") unless every image has a mask."""
    for image in images:
        if image.mask is None:
            raise TrainingError(
                "dataset",
                f"{image.path.name} has no mask, which masked_loss needs.",
                f"Save one as {image.path.stem}{MASK_ENDING}.png, white where it is to be learned; then submit again.",
            )


class CaptionRow(NamedTuple):
    """What `metadata.jsonl` says of an image."""

    caption: str | None = None
    repeats: int = 1
    original: Size | None = None


def read_rows(path: Path) -> dict[str, CaptionRow]:
    """Return the rows of a `metadata.jsonl` by file name; none when the file does not exist.

    Each line is a JSON object with `file_name` and `text`, as in the Hub's image folders; a row without `text` has no
    caption. Raises TrainingError("dataset") when a line is not such an object.
    """
    if not path.is_file():
        return {}
    rows: dict[str, CaptionRow] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            row = json.loads(line)
            repeats = int(row.get("repeats", 1))
            if not 1 <= repeats <= MOST_REPEATS:
                raise ValueError(f"repeats is {repeats}")
            original = None
            if "width" in row:
                original = Size(int(row["width"]), int(row["height"]))
                if not 1 <= min(original) <= max(original) <= MOST_PIXELS_A_SIDE:
                    raise ValueError(f"its size is {original.width}x{original.height}")
            rows[row["file_name"]] = CaptionRow(row.get("text"), repeats, original)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            "dataset",
            f"{path.name} cannot be read: {error!r}",
            'Write one JSON object a line: {"file_name": "1.png", "text": "a photo of ..."}.',
        ) from error
    return rows


def read_image(path: Path, mode: str = "RGB") -> Image.Image:
    """Decode an image, a mask in mode "L"; raises TrainingError("dataset") when it is damaged."""
    try:
        with Image.open(path) as image:
            return image.convert(mode)
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
    """Scale the shorter side to `side` pixels and cut a square out of the longer one, as `crop` does."""
    return crop(image, Size(side, side), across, down)


class CropBox(NamedTuple):
    """How an image is cut: it is scaled, and of that a part is kept."""

    width: int
    """Of the scaled image."""
    height: int
    left: int
    """Pixels of the scaled image that are cut away before the part."""
    top: int


def cut_of(image: Size, size: Size, across: float, down: float) -> CropBox:
    """Return how an image is cut so that it covers `size`, as `crop` says."""
    scale = max(size.width / image.width, size.height / image.height)
    # Rounding must not leave a side shorter than the size.
    width = max(size.width, round(image.width * scale))
    height = max(size.height, round(image.height * scale))
    left = round((width - size.width) * across)
    top = round((height - size.height) * down)
    return CropBox(width, height, left, top)


def crop(
    image: Image.Image,
    size: Size,
    across: float = 0.5,
    down: float = 0.5,
) -> Image.Image:
    """Scale an image so that it covers `size`, and cut away what is left of one side.

    `across` and `down` say where, from 0 (left, top) to 1 (right, bottom); 0.5 is the centre.
    """
    cut = cut_of(Size(*image.size), size, across, down)
    resized = image.resize((cut.width, cut.height), Image.Resampling.LANCZOS)
    return resized.crop((cut.left, cut.top, cut.left + size.width, cut.top + size.height))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as (1, 3, height, width) in [-1, 1], the range that autoencoders are trained on."""
    values = np.asarray(image, dtype=np.float32)  # (height, width, 3), 0 to 255
    pixels = torch.from_numpy(values / 127.5 - 1)
    channels_first = pixels.permute(2, 0, 1)
    return channels_first.unsqueeze(0).contiguous()


def png_of(image: Image.Image) -> bytes:
    """Return an image as a PNG file: what people, or a server that judges, are shown."""
    file = BytesIO()
    image.convert("RGB").save(file, format="PNG")
    return file.getvalue()
