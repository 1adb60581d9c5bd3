"""How far a picture agrees with a condition map: 1 for the picture that the map was made of, 0 for no likeness."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entrypoints.conditions.maps import MapMaker, grey_values, map_maker
from orchestrator.contract.conditions import BLUR, DEPTH, PALETTE, MapSettings

Mask = NDArray[np.bool_]
_TOLERANCE = 0.0075
"""Distance at which two edges are one, as a share of the diagonal (Martin, Fowlkes and Malik 2004, sec. 3)."""
_FAR = 50.0
"""Distance of two colours in CIELAB that are nothing alike: black and middle grey."""
_SMOOTH_SIDE = 64
"""Shorter side in pixels at which smooth maps are compared."""
_LINE = 0.5
"""Brightness from which a pixel of a map belongs to a line."""


def agreement(
    kind: str,
    picture: Image.Image,
    condition: Image.Image,
    settings: MapSettings | None = None,
    make: MapMaker | None = None,
) -> float:
    """Return how far a picture has what a condition map shows, from 0 to 1.

    Lines (canny, sketch, hed, lineart, openpose): F1 of the pixels of lines. Blur and depth: SSIM. Palette: likeness
    of colours. The picture's own map is compared with the wanted one: `make` computes it, which for a learned kind has
    to be a `map_maker` with its weights. Raises ValueError for a map of another size than the picture.
    """
    if picture.size != condition.size:
        raise ValueError(f"the picture has {picture.size} pixels, and the map {condition.size}")
    if make is None:
        make = map_maker(kind, settings)
    found = make(picture)
    if kind == PALETTE:
        return colour_agreement(found, condition)
    if kind in (BLUR, DEPTH):
        similarity = ssim(_reduced(found), _reduced(condition))
        return max(0.0, similarity)
    found_lines = grey_values(found) >= _LINE
    wanted_lines = grey_values(condition) >= _LINE
    return edge_f1(found_lines, wanted_lines)


def edge_f1(found: Mask, wanted: Mask, tolerance: float | None = None) -> float:
    """Return the F1 of the pixels of lines, (height, width), that have one of the other within `tolerance` pixels.

    The tolerance is that of Martin et al. for this size when left out, at least one pixel. Two maps without lines
    agree; one without does not agree with one that has some.
    """
    has_found = found.any()
    has_wanted = wanted.any()
    if not has_found and not has_wanted:
        return 1.0
    if not has_found or not has_wanted:
        return 0.0
    if tolerance is None:
        diagonal = float(np.hypot(*found.shape))
        tolerance = max(1.0, _TOLERANCE * diagonal)
    precision = _share_near(found, wanted, tolerance)
    recall = _share_near(wanted, found, tolerance)
    total = precision + recall
    if total == 0:
        return 0.0
    return 2 * precision * recall / total


def _share_near(lines: Mask, others: Mask, tolerance: float) -> float:
    """Return the share of the pixels of lines that have one of the others within so many pixels.

    Both have some pixels of lines.
    """
    elsewhere = (~others).astype(np.uint8)
    distance = cv2.distanceTransform(
        elsewhere,
        cv2.DIST_L2,
        cv2.DIST_MASK_PRECISE,
    )
    is_near = distance[lines] <= tolerance
    return float(is_near.mean())


def _reduced(picture: Image.Image) -> NDArray[np.float32]:
    """Return grey values at a size where SSIM's windows are about as wide as what a smooth map shows."""
    shorter_side = min(picture.size)
    scale = min(1.0, _SMOOTH_SIDE / shorter_side)
    width = round(picture.width * scale)
    height = round(picture.height * scale)
    reduced = picture.resize((width, height), Image.Resampling.BOX)
    return grey_values(reduced)


def ssim(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the structural similarity of two grey pictures with values from 0 to 1 (Wang et al. 2004).

    With the paper's constants: windows of 11 pixels weighted by a Gaussian of 1.5, K1 = 0.01, K2 = 0.03. The pictures
    have one size, (height, width); 1 for equal ones, and below 0 for what is the inverse of the other.
    """
    c1 = 0.01**2
    c2 = 0.03**2
    mean_1 = _windowed(one)
    mean_2 = _windowed(other)
    squares = mean_1**2 + mean_2**2
    product = mean_1 * mean_2
    variances = _windowed(one**2) + _windowed(other**2) - squares
    covariance = _windowed(one * other) - product
    luminance = (2 * product + c1) / (squares + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    similarity = luminance * structure
    return float(similarity.mean())


def _windowed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the window around each pixel."""
    return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5))


def colour_agreement(one: Image.Image, other: Image.Image) -> float:
    """Return the likeness of the colours of two pictures of one size: 1 for equal ones, 0 for those that are far apart.

    Colours are compared by their distance in CIELAB (CIE 1976).
    """
    difference = _lab(one) - _lab(other)
    distance = np.linalg.norm(difference, axis=-1)
    likeness = np.maximum(0, 1 - distance / _FAR)
    return float(likeness.mean())


def _lab(picture: Image.Image) -> NDArray[np.float32]:
    """Return a picture in CIELAB, (height, width, 3)."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2LAB))
