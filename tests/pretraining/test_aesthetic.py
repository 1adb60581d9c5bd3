"""The head of the aesthetic reward for the built-in model, and what it is fitted to."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from entrypoints.evaluation.metrics import clip_scorer
from entrypoints.models.loading import load_base_model
from orchestrator.resources import BUILTIN_MODEL
from pretraining.aesthetic import colourfulness, examples, fit


def test_colourfulness_by_hand() -> None:
    assert colourfulness(Image.new("RGB", (8, 8), (90, 90, 90))) == 0
    halves = np.zeros((2, 2, 3), dtype=np.uint8)
    halves[0] = (255, 0, 0)
    halves[1] = (0, 255, 0)
    # red - green is 255 and -255, and (red + green) / 2 - blue is 127.5 everywhere.
    expected = 255 + 0.3 * 127.5
    assert colourfulness(Image.fromarray(halves)) == pytest.approx(expected)


def test_stronger_colours_are_more_colourful() -> None:
    for picture in examples(0, "test", 5):
        pale, strong = (colourfulness(ImageEnhance.Color(picture).enhance(factor)) for factor in (0.3, 1))
        assert pale <= strong


def test_a_head_predicts_colours_of_pictures_that_it_has_not_seen() -> None:
    scorer = clip_scorer(load_base_model(BUILTIN_MODEL, "builtin", None, torch.device("cpu")))
    assert scorer is not None
    found = fit(scorer, pictures=300, held_out=60)
    assert found.weight.shape == (1, scorer.clip.config.projection_dim)
    assert found.explained > 0.3
