"""What both sides are given beside the base model: pictures, and a ControlNet to start from.

A process of its own: what makes them takes memory that is no command's.
python -m benchmarks.beside_diffusers.materials FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image, ImageChops

from benchmarks.beside_diffusers.cases import LAYOUTS, PHOTOS, PREPARED, RESOLUTION, UNTRAINED
from entrypoints.adapters.controlnet import new_network
from entrypoints.conditions.maps import condition_map
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.pictures import list_images, read_image
from orchestrator.contract.conditions import CANNY
from orchestrator.contract.datasets import CAPTIONS_FILE, CONDITIONS_FOLDER
from orchestrator.contract.recipe import BUILTIN
from orchestrator.resources import ASSETS, BUILTIN_MODEL

CAMERA = (3000, 2000)
"""Pixels of a photo: 6 million."""
CONDITION_COLUMN = "conditioning_image_file_name"
"""Where an image folder of `datasets` names a second picture; our recipe goes by its name in `conditions/`."""


def write_subject(folder: Path) -> None:
    """Write the sample subject's pictures at the size of training, and as a camera would take them."""
    for name in (PREPARED, PHOTOS):
        (folder / name).mkdir()
    for path in sorted((ASSETS / "sample").glob("*.png")):
        picture = read_image(path)
        small = picture.resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS)
        small.save(folder / PREPARED / path.name)
        photo = picture.resize(CAMERA, Image.Resampling.BICUBIC)
        noise = Image.effect_noise(photo.size, 8).convert("RGB")  # around 128; a smooth JPEG would be small
        noisy = ImageChops.add(photo, noise, offset=-128)
        noisy.save(folder / PHOTOS / f"{path.stem}.jpg", quality=92)


def write_layouts(folder: Path) -> None:
    """Write the sample layouts at the size of training, their edges, and one table that both sides read."""
    layouts = folder / LAYOUTS
    (layouts / CONDITIONS_FOLDER).mkdir(parents=True)
    rows = []
    for image in list_images(ASSETS / "layouts"):
        name = image.path.name
        picture = read_image(image.path).resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS)
        picture.save(layouts / name)
        edges = f"{CONDITIONS_FOLDER}/{name}"
        condition_map(CANNY, picture).save(layouts / edges)
        row = {"file_name": name, "text": image.caption, CONDITION_COLUMN: edges}
        rows.append(json.dumps(row) + "\n")
    (layouts / CAPTIONS_FILE).write_text("".join(rows), encoding="utf-8")


def write_untrained(folder: Path) -> None:
    """Write the ControlNet that ours starts from: one that the script makes itself does not fit the built-in model."""
    base = load_base_model(BUILTIN_MODEL, BUILTIN, None, torch.device("cpu"))
    new_network(base, seed=0).save_pretrained(folder / UNTRAINED)


if __name__ == "__main__":
    write_subject(Path(sys.argv[1]))
    write_layouts(Path(sys.argv[1]))
    write_untrained(Path(sys.argv[1]))
