"""Condition maps that need no weights, and the one way to all kinds: `map_maker`.

Maps are RGB and have the size of their picture. Lines are white on black: a ControlNet's zero convolutions and black
both mean "nothing".
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from entrypoints.conditions.learned import load_detector
from orchestrator.contract.conditions import (
    BLUR,
    CANNY,
    MAP_KINDS,
    PALETTE,
    SKETCH,
    BlurSettings,
    CannySettings,
    MapSettings,
    PaletteSettings,
    SketchSettings,
)

MapMaker = Callable[[Image.Image], Image.Image]
"""From a picture to its map."""
_LEAST_SIGMA = 0.5
"""In pixels: a narrower Gaussian is a single pixel."""
_WIDER = 1.6
"""Ratio of the two Gaussians, which makes their difference a Laplacian (Marr and Hildreth 1980)."""


def map_maker(
    kind: str,
    settings: MapSettings | None = None,
    weights: Path | None = None,
    device: torch.device | None = None,
) -> MapMaker:
    """Return what computes maps of a kind; a learned one loads its network once.

    `settings` are those of the kind, its defaults when left out; `weights` is the folder of a learned kind's network.
    Raises TrainingError("conditions") when a network cannot be loaded.
    """
    if MAP_KINDS[kind].needs_weights:
        return load_detector(kind, settings, weights, device)
    return lambda picture: condition_map(kind, picture, settings)


def condition_map(kind: str, picture: Image.Image, settings: MapSettings | None = None) -> Image.Image:
    """Return the map of a picture, of a kind that needs no weights."""
    if settings is None:
        settings = MAP_KINDS[kind].settings()
    return _MAPS[kind](picture.convert("RGB"), settings)


def canny(picture: Image.Image, settings: CannySettings) -> Image.Image:
    """Return edges: white on black, one pixel wide."""
    grey = np.asarray(picture.convert("L"))
    edges = cv2.Canny(grey, settings.low, settings.high)
    return Image.fromarray(edges).convert("RGB")


def blur(picture: Image.Image, settings: BlurSettings) -> Image.Image:
    """Return the picture blurred by a Gaussian, which Pillow makes of three box filters: quick at any radius."""
    sigma = max(_LEAST_SIGMA, settings.radius * min(picture.size))
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def palette(picture: Image.Image, settings: PaletteSettings) -> Image.Image:
    """Return the mean colour of each cell of a grid, the nearest of a few."""
    size = grid(picture, settings.cells)
    cells = picture.resize(size, Image.Resampling.BOX)
    few = cells.quantize(settings.colours, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    return few.convert("RGB").resize(picture.size, Image.Resampling.NEAREST)


def grid(picture: Image.Image, cells: int) -> tuple[int, int]:
    """Return columns and rows of about square cells, `cells` of them along the shorter side."""
    side = min(picture.size) / min(cells, *picture.size)
    columns = round(picture.width / side)
    rows = round(picture.height / side)
    return columns, rows


def sketch(picture: Image.Image, settings: SketchSettings) -> Image.Image:
    """Return the lines of a picture by the extended difference of Gaussians: white on black.

    Winnemoeller, Kyprianidis and Olsen 2012, "XDoG: An eXtended difference-of-Gaussians compendium", sec. 2:
    D(x) = G_sigma(x) - tau G_(k sigma)(x), and T(D) = 1 where D >= epsilon, else 1 + tanh(phi (D - epsilon)).
    T is dark on the darker side of a contrast; the map is its inverse.
    """
    grey = grey_values(picture)
    sigma = max(_LEAST_SIGMA, settings.sigma * min(picture.size))
    narrow = cv2.GaussianBlur(grey, (0, 0), sigma)
    wide = cv2.GaussianBlur(grey, (0, 0), _WIDER * sigma)
    difference = narrow - settings.tau * wide
    below = np.minimum(difference - settings.epsilon, 0)
    ground = 1 + np.tanh(settings.phi * below)
    lines = np.rint((1 - ground) * 255)
    grey_map = Image.fromarray(lines.astype(np.uint8))
    return grey_map.convert("RGB")


def grey_values(picture: Image.Image) -> NDArray[np.float32]:
    """Return a picture's grey values from 0 to 1, (height, width)."""
    return np.asarray(picture.convert("L"), dtype=np.float32) / 255


_MAPS: Mapping[str, Callable[[Image.Image, Any], Image.Image]] = {
    BLUR: blur,
    CANNY: canny,
    PALETTE: palette,
    SKETCH: sketch,
}
