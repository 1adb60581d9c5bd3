"""Picture files and their captions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.datasets import CAPTIONS_FILE

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Picture:
    """A training picture and what it shows, None where the recipe's own words are meant."""

    path: Path
    caption: str | None = None


def read_pictures(folder: Path | None) -> list[Picture]:
    """List the pictures of a channel with their captions from `metadata.jsonl`; raises TrainingError("dataset")."""
    paths = [] if folder is None else sorted(path for path in folder.rglob("*") if _is_picture(path))
    if folder is None or not paths:
        raise TrainingError(
            "dataset", "The training channel holds no PNG, JPEG or WebP picture.", "Give a folder of them."
        )
    captions = _read_captions(folder / CAPTIONS_FILE)
    return [Picture(path, captions.get(path.relative_to(folder).as_posix())) for path in paths]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _read_captions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return {row["file_name"]: row["text"] for row in rows if "text" in row}
    except (ValueError, KeyError, TypeError) as error:
        fix = 'Write one JSON object a line: {"file_name": "1.png", "text": "a photo of ..."}.'
        raise TrainingError("dataset", f"{path.name} cannot be read: {error!r}", fix) from error


def read_image(path: Path) -> Image.Image:
    """Decode a picture as RGB; raises TrainingError("dataset") when it is damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise TrainingError(
            "dataset", f"{path.name} cannot be decoded: {error}", "Replace or remove this picture."
        ) from error


def crop_square(image: Image.Image, side: int, across: float = 0.5, down: float = 0.5) -> Image.Image:
    """Scale the shorter side to `side` pixels and cut a square, `across` and `down` (0 to 1) of the way."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = round((width - side) * across), round((height - side) * down)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + side, top + side))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as (1, 3, height, width) in [-1, 1]."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1)
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous()
