"""Figures of images whose features are known, and their intervals."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from entrypoints.evaluation.bootstrap import Bootstrap
from entrypoints.evaluation.comparison import Compared, Drawn, compare
from entrypoints.evaluation.spaces import Spaces
from orchestrator.contract.evaluation_result import Estimate, Figure

BOOTSTRAP = Bootstrap(1000, seed=0)
FAR, NEAR, REAL = 0.0, 0.8, 1.0


class Angles:
    """A feature space of two dimensions: the red of an image is its angle."""

    sha256 = "0" * 64

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        angles = torch.tensor([image.getpixel((0, 0))[0] / 100 for image in images])
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def image(angle: float) -> Image.Image:
    return Image.new("RGB", (4, 4), (round(100 * angle), 0, 0))


def drawn(base: Sequence[float], adapter: Sequence[float], seeds: int = 2) -> Drawn:
    texts = [f"prompt {number}" for number in range(len(base) // seeds)]
    return Drawn(texts, seeds, [image(angle) for angle in base], [image(angle) for angle in adapter])


NOTHING = Drawn([], 2, [], [])


def compared(asked: Drawn, unrelated: Drawn = NOTHING, real: Sequence[float] = (REAL, 1.02, 0.98)) -> Compared:
    spaces = Spaces()
    spaces.add("angles", "Angles", Angles())
    return compare(spaces, asked, unrelated, [image(angle) for angle in real], BOOTSTRAP)


def figure(found: Compared, measure: str) -> Figure:
    (one,) = [figure for figure in found.figures if figure.measure == measure]
    return one


def test_an_adapter_that_draws_real_pictures_closes_the_gap_and_the_base_model_none_of_it() -> None:
    whole = figure(compared(drawn([FAR] * 4, [REAL, 1.02] * 2)), "subject_fidelity")
    none = figure(compared(drawn([FAR, 0.1] * 2, [FAR, 0.1] * 2)), "subject_fidelity")
    part = figure(compared(drawn([FAR, 0.1] * 2, [NEAR, 0.7] * 2)), "subject_fidelity")
    assert whole.gap_closed is not None
    assert whole.gap_closed.value == pytest.approx(1, abs=0.01)
    assert none.gap_closed is not None
    assert (none.gap_closed.value, none.gap_closed.low, none.gap_closed.high) == (0, 0, 0)
    assert part.gap_closed is not None
    assert 0.5 < part.gap_closed.low <= part.gap_closed.value <= part.gap_closed.high < 1


def test_a_base_model_as_near_as_real_pictures_leaves_no_gap_to_close() -> None:
    found = figure(compared(drawn([REAL] * 4, [REAL] * 4), real=[0.9, 1.1]), "subject_fidelity")
    assert found.ceiling is not None
    assert found.gap_closed is None


def test_the_ceiling_compares_each_real_picture_with_the_others_and_not_with_itself() -> None:
    found = figure(compared(drawn([FAR] * 4, [NEAR] * 4), real=[0.5, 1.0]), "subject_fidelity")
    assert found.ceiling is not None
    assert found.ceiling.value == pytest.approx(np.cos(0.5), abs=1e-3)


def test_images_that_all_become_one_have_no_diversity() -> None:
    found = figure(compared(drawn([0.0, 1.0] * 3, [NEAR] * 6)), "diversity")
    assert found.base is not None
    assert found.base.value == pytest.approx(1 - np.cos(1.0), abs=1e-3)
    assert found.adapter.value == pytest.approx(0, abs=1e-6)
    assert found.difference is not None
    assert found.difference.high < 0


def test_drift_is_how_far_the_adapter_moves_an_image_of_the_same_prompt_and_seed() -> None:
    asked = drawn([FAR] * 4, [NEAR] * 4)
    moved = figure(compared(asked, drawn([0.0, 1.0], [0.5, 1.5])), "drift")
    still = figure(compared(asked, drawn([0.0, 1.0], [0.0, 1.0])), "drift")
    assert moved.adapter.value == pytest.approx(1 - np.cos(0.5), abs=1e-3)
    assert moved.base is not None
    assert moved.base.value == pytest.approx(1 - np.cos(1.0), abs=1e-3)  # from seed to seed
    assert still.adapter.value == pytest.approx(0, abs=1e-6)


def test_what_too_few_images_cannot_tell_is_named() -> None:
    found = compared(drawn([FAR] * 2, [NEAR] * 2, seeds=1), real=[REAL])
    assert {skipped.what for skipped in found.skipped} == {"the ceiling of real pictures", "diversity", "drift"}
    assert {figure.measure for figure in found.figures} == {"subject_fidelity"}
    nothing = compared(drawn([FAR] * 4, [NEAR] * 4), real=[])
    assert "--reference" in nothing.skipped[0].how
    assert {figure.measure for figure in nothing.figures} == {"diversity"}


def test_what_was_measured_once_has_no_interval_and_says_why() -> None:
    """One image, one pair of seeds, one pair of real pictures: resamples of a single value are all equal."""

    def has_none(*estimates: Estimate | None) -> bool:
        for one in estimates:
            assert one is not None
            assert (one.low, one.high) == (None, None)
            assert "one image" in one.no_interval
            assert not one.differs
        return True

    alone = figure(compared(drawn([FAR], [NEAR], seeds=1)), "subject_fidelity")
    assert has_none(alone.base, alone.adapter, alone.difference, alone.gap_closed)
    assert alone.ceiling is not None
    assert alone.ceiling.low is not None
    pair = figure(compared(drawn([FAR, 0.1], [NEAR, 0.7])), "diversity")
    assert has_none(pair.base, pair.adapter, pair.difference)
    assert pair.images == 2
    two_real = figure(compared(drawn([FAR, 0.1], [NEAR, 0.7]), real=[REAL, 1.02]), "subject_fidelity")
    assert has_none(two_real.ceiling, two_real.gap_closed)
    assert two_real.adapter.low is not None
    moved = figure(compared(drawn([FAR] * 2, [NEAR] * 2), drawn([FAR, 0.3], [0.1, 0.5])), "drift")
    assert has_none(moved.base)
    assert moved.adapter.no_interval == ""
    several = figure(compared(drawn([FAR, 0.1, FAR, 0.3], [NEAR, 0.7, NEAR, 0.9])), "diversity")
    assert several.difference is not None
    assert several.difference.low is not None


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        estimate = Bootstrap(500, seed).mean(random.normal(size=40))
        assert estimate.low < estimate.value < estimate.high
        held += estimate.low < 0 < estimate.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(10.0)
    assert Bootstrap(200, 1).mean(values) == Bootstrap(200, 1).mean(values)
    assert Bootstrap(200, 1).mean(values) != Bootstrap(200, 2).mean(values)
