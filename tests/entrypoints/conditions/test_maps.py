"""Condition maps show what they are named for, at any size, and agreement tells who obeys them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from pydantic import ValidationError

from entrypoints.conditions.agreement import agreement, edge_f1, ssim
from entrypoints.conditions.maps import condition_map, map_maker
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.conditions import (
    LEARNED,
    MAP_KINDS,
    PALETTE,
    WEIGHT_FREE,
    CannySettings,
    PaletteSettings,
    settings_of,
)

SIZES = [(64, 64), (96, 64), (333, 512), (1024, 1024), (1, 1), (3, 200)]


def drawing(size: tuple[int, int], *, mirrored: bool = False) -> Image.Image:
    """A red disc at the left and a dark bar at the right, at any size."""
    large = Image.new("RGB", (size[0] * 4, size[1] * 4), (230, 225, 200))
    draw = ImageDraw.Draw(large)
    width, height = large.size
    draw.ellipse((width * 0.1, height * 0.2, width * 0.45, height * 0.6), fill=(210, 40, 30))
    draw.rectangle((width * 0.7, height * 0.1, width * 0.8, height * 0.9), fill=(20, 30, 80))
    picture = large.resize(size, Image.Resampling.BOX)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", WEIGHT_FREE)
def test_a_map_has_the_size_of_its_picture_whatever_its_mode(kind: str, size: tuple[int, int]) -> None:
    for mode in ("RGB", "L", "RGBA", "P"):
        made = condition_map(kind, drawing(size).convert(mode))
        assert (made.size, made.mode) == (size, "RGB")


@pytest.mark.parametrize("kind", ["canny", "sketch"])
@pytest.mark.parametrize("side", [64, 256, 1024])
def test_lines_follow_the_outline_and_leave_the_rest_black(kind: str, side: int) -> None:
    lines = np.asarray(condition_map(kind, drawing((side, side))).convert("L")) > 127
    row = lines[side * 4 // 10]  # through the disc and the bar
    places = np.flatnonzero(row) / side
    for outline in (0.1, 0.45, 0.7, 0.8):
        assert np.abs(places - outline).min() < 0.03
    assert 0.001 < lines.mean() < 0.3
    assert not lines[:, int(side * 0.55) : int(side * 0.65)].any()


@pytest.mark.parametrize("kind", WEIGHT_FREE)
def test_maps_of_one_picture_at_two_sizes_look_alike(kind: str) -> None:
    small = condition_map(kind, drawing((128, 128)))
    large = condition_map(kind, drawing((512, 512)))
    # Lines become thinner, so they are compared where they are and not by how wide.
    reduced = large.resize((128, 128), Image.Resampling.BOX)
    if kind in ("canny", "sketch"):
        one, other = (np.asarray(map_.convert("L")) > 40 for map_ in (small, reduced))
        assert edge_f1(one, other, tolerance=2) > 0.9
    else:
        assert np.abs(np.asarray(small, float) - np.asarray(reduced, float)).mean() < 4


def test_a_palette_has_at_most_its_number_of_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = condition_map(PALETTE, Image.fromarray(noise), PaletteSettings(cells=16, colours=5))
    assert 2 <= len(made.getcolors(64 * 64) or []) <= 5


def test_settings_change_the_map() -> None:
    faint = Image.new("L", (64, 64), 100)
    ImageDraw.Draw(faint).rectangle((20, 20, 40, 40), fill=120)  # a step of 20 grey levels: a gradient of 80
    assert condition_map("canny", faint).getbbox() is None
    assert condition_map("canny", faint, CannySettings(low=30, high=60)).getbbox() is not None


@pytest.mark.parametrize(
    ("kind", "values", "what"),
    [
        ("canny", {"low": 300}, "low must not be above high"),
        ("canny", {"high": -1}, "high"),
        ("blur", {"radius": float("nan")}, "radius"),
        ("palette", {"colours": 1}, "colours"),
        ("palette", {"cells": 8, "colors": 4}, "colors"),
        ("depth", {"resolution": 500}, "resolution"),
    ],
)
def test_settings_outside_their_limits_are_refused(kind: str, values: dict[str, float], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        settings_of(kind, values)


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("kind", WEIGHT_FREE)
def test_a_picture_agrees_with_its_own_map_and_less_with_another(kind: str, size: tuple[int, int]) -> None:
    picture = drawing(size)
    own = agreement(kind, picture, condition_map(kind, picture))
    other = agreement(kind, picture, condition_map(kind, drawing(size, mirrored=True)))
    softened = agreement(kind, picture.filter(ImageFilter.GaussianBlur(0.6)), condition_map(kind, picture))
    assert own == pytest.approx(1, abs=1e-6)
    assert 0 <= other < softened - 0.1 <= 1


def test_edge_f1_is_that_of_the_pixels_within_the_tolerance() -> None:
    wanted = np.zeros((64, 64), bool)
    wanted[20] = True
    near = np.roll(wanted, 1, axis=0)
    far = np.roll(wanted, 9, axis=0)
    nothing = np.zeros_like(wanted)
    assert edge_f1(near, wanted) == 1
    assert edge_f1(far, wanted) == 0
    # Every pixel that was wanted is found, and half of those found were not wanted: 2 * 0.5 / 1.5.
    assert edge_f1(wanted | far, wanted) == pytest.approx(2 / 3)
    assert (edge_f1(nothing, wanted), edge_f1(wanted, nothing), edge_f1(nothing, nothing)) == (0, 0, 1)


def test_ssim_is_that_of_its_paper() -> None:
    from skimage.metrics import structural_similarity

    random = np.random.default_rng(0)
    one = random.random((64, 64), dtype=np.float32)
    other = np.clip(one + random.normal(0, 0.1, (64, 64)), 0, 1).astype(np.float32)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = structural_similarity(one, other, **options)
    assert ssim(one, other) == pytest.approx(theirs, abs=0.01)  # they leave out the borders


def test_maps_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="64"):
        agreement("canny", drawing((64, 64)), drawing((32, 32)))


@pytest.mark.parametrize("kind", LEARNED)
def test_a_learned_map_without_its_weights_says_which_and_from_where(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as unnamed:
        map_maker(kind)
    with pytest.raises(TrainingError) as empty:
        map_maker(kind, weights=tmp_path)
    first = MAP_KINDS[kind].weights[0]
    assert first in unnamed.value.next_step
    assert f"lacks {first}" in empty.value.message
    assert "lllyasviel/Annotators" in empty.value.next_step


STAND_IN = """
import torch
from PIL import Image

print("a library that prints")


class HEDdetector:
    def __init__(self, level):
        self.level = level

    @classmethod
    def from_pretrained(cls, folder):
        return cls(torch.load(folder + "/ControlNetHED.pth")["level"])

    def to(self, device):
        return self

    def __call__(self, picture, detect_resolution, image_resolution, output_type):
        side = detect_resolution
        return Image.new("L", (side, side), int(self.level))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for controlnet-aux, which brings torchvision and timm; returns a folder for weights."""
    monkeypatch.delitem(sys.modules, "controlnet_aux", raising=False)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "controlnet_aux.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    weights = tmp_path / "weights"
    weights.mkdir()
    torch.save({"level": torch.tensor(200)}, weights / "ControlNetHED.pth")
    return weights


def test_a_learned_map_has_the_size_of_its_picture_and_comes_from_the_weights_of_its_folder(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = map_maker("hed", settings_of("hed", {"resolution": 128}), package)
    made = make(drawing((90, 60)))
    assert (made.size, made.mode) == ((90, 60), "RGB")
    assert made.getpixel((40, 30)) == (200, 200, 200)
    assert agreement("hed", drawing((90, 60)), made, make=make) == 1
    assert capsys.readouterr().out == ""  # stdout is for events


def test_a_network_that_cannot_be_used_is_one_message(package: Path) -> None:
    (package / "ControlNetHED.pth").write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"The weights for hed maps in .* cannot be loaded"):
        map_maker("hed", weights=package)
    sys.modules.pop("controlnet_aux")
    (package.parent / "site" / "controlnet_aux.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    with pytest.raises(TrainingError, match="controlnet-aux cannot be used: operator nms") as broken:
        map_maker("hed", weights=package)
    assert "pip install" in broken.value.next_step
