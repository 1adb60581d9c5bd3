"""Control agreement: images that follow their maps, that ignore them, and that follow those of others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image, ImageDraw

from entrypoints.evaluation.bootstrap import Bootstrap
from entrypoints.evaluation.control_agreement import DrawnAnew, control_agreement
from entrypoints.evaluation.held_out import held_out_pictures
from orchestrator.contract.evaluation import MOST_PROMPTS, Way, most_pictures, ways_of
from orchestrator.contract.evaluation_result import ControlAgreement

SIDE = 64
PLACES = (12, 24, 36, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of a square each, at places of their own."""
    for number, place in enumerate(PLACES):
        picture = Image.new("RGB", (SIDE, SIDE), "navy")
        ImageDraw.Draw(picture).rectangle((place - 8, place - 8, place + 8, place + 8), fill="yellow")
        picture.save(tmp_path / f"{number}.png")
    return tmp_path


def measured(
    folder: Path,
    images: Sequence[int],
    *,
    shuffled: Sequence[int] = (1, 2, 3, 0),
    kinds: tuple[str, ...] = ("canny",),
    given_map: str | None = None,
) -> list[ControlAgreement]:
    """Measure images that are the pictures of these numbers, two of each as if of two seeds; base images are plain."""
    pictures = held_out_pictures(folder, kinds, given_map, SIDE)
    plain = [Image.new("RGB", (SIDE, SIDE), "navy")] * (2 * len(pictures))

    def twice(numbers: Sequence[int]) -> list[Image.Image]:
        return [pictures[number].picture for number in np.repeat(numbers, 2)]

    ways = {}
    for way in ways_of(kinds):
        ways[way] = twice(images if way.is_own else shuffled)
    decoded = [each.picture for each in pictures]
    return control_agreement(pictures, DrawnAnew(plain, ways, decoded), Bootstrap(300, 0))


def test_images_that_follow_their_maps_reach_the_ceiling_and_leave_those_of_others(folder: Path) -> None:
    (canny,) = measured(folder, (0, 1, 2, 3))
    assert canny.own.value == canny.ceiling.value == 1
    assert canny.base.value == 0
    assert canny.gap is not None
    assert canny.gap.low > 0.5
    assert canny.share_of_ceiling is not None
    assert canny.share_of_ceiling.value == 1
    assert canny.times_base is None  # the base model has no edges at all
    assert (canny.pictures, canny.images) == (4, 8)


def test_images_that_ignore_their_maps_have_a_gap_of_none(folder: Path) -> None:
    (canny,) = measured(folder, (0, 0, 0, 0), shuffled=(0, 0, 0, 0))
    assert canny.gap is not None
    assert canny.gap.low <= 0 <= canny.gap.high


def test_images_that_follow_the_maps_of_others_have_a_gap_below_none(folder: Path) -> None:
    (canny,) = measured(folder, (1, 2, 3, 0), shuffled=(0, 1, 2, 3))
    assert canny.gap is not None
    assert canny.gap.high < 0


def test_intervals_are_over_pictures_so_that_more_seeds_of_the_same_do_not_narrow_them(folder: Path) -> None:
    (canny,) = measured(folder, (0, 1, 0, 0))
    of_each = np.array([1, 1, 0, 0]) + 0.0  # as far as squares that do not touch are concerned
    assert canny.own.high - canny.own.low > of_each.std() / 2


def test_each_kind_has_a_row_and_two_at_once_are_measured_by_both(folder: Path) -> None:
    rows = measured(folder, (0, 1, 2, 3), kinds=("canny", "blur", "palette"))
    assert [(row.shown, row.kind) for row in rows] == [
        (("canny",), "canny"),
        (("blur",), "blur"),
        (("palette",), "palette"),
        (("canny", "blur"), "canny"),
        (("canny", "blur"), "blur"),
    ]
    assert all(row.own.value == pytest.approx(1, abs=1e-3) for row in rows)
    assert [row.gap is None for row in rows] == [False, False, False, True, True]


def test_given_maps_are_compared_as_what_they_are_and_else_by_their_pictures(folder: Path) -> None:
    tiny.write_conditions(folder)  # whose left half is white
    (unknown,) = measured(folder, (0, 1, 2, 3), kinds=("given",))
    assert (unknown.kind, unknown.measured_by, unknown.own.value) == ("given", "blur", 1)
    (known,) = measured(folder, (0, 1, 2, 3), kinds=("given",), given_map="canny")
    assert known.measured_by == "canny"
    assert known.own.value < 1


@pytest.mark.parametrize("kinds", [("canny",), ("canny", "blur"), ("canny", "blur", "palette", "sketch", "given")])
def test_all_rows_of_all_pictures_fit_onto_the_contact_sheet(kinds: tuple[str, ...]) -> None:
    rows = [way for way in ways_of(kinds) if way.is_own]
    assert most_pictures(kinds) * len(rows) <= 64
    assert most_pictures(kinds) <= MOST_PROMPTS
    assert Way(kinds[:1]) in rows
