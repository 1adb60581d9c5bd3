"""Held-out pictures drawn anew: each image is shown the map of its own picture, or of another, or two at once."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from entrypoints.adapters.controlnet import ControlNetTuner
from entrypoints.conditions.shown import bytes_of, from_bytes
from entrypoints.evaluation.drawing_anew import draw_anew
from entrypoints.evaluation.held_out import held_out_pictures
from entrypoints.evaluation.kept_drawing import KeptDrawing
from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control, draw_controlled
from entrypoints.models.image_cache import ImageCache
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.runtime.machine import this_machine
from orchestrator.contract.evaluation import Evaluation, EvaluationPrompts, Way
from orchestrator.contract.prompts import EvaluationPrompt

TEXTS = ("a dog", "a toy", "a red dog")
KINDS = ("canny", "palette")
BATCH = 4
"""Of the six images of each way."""


def same(one: list[Image.Image], other: list[Image.Image]) -> bool:
    return all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_each_image_is_shown_what_its_way_says(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    monkeypatch.setattr("entrypoints.models.sampling.images_at_once", lambda width, height, *, gpu: BATCH)  # noqa: ARG005
    network = ControlNetTuner(base, seed=0).network.requires_grad_(False).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    pictures = held_out_pictures(tiny.write_pictures(tmp_path / "new"), KINDS, None, tiny.SIDE)
    asked = EvaluationPrompts(prompts=tuple(EvaluationPrompt(text, f"toy, {text}", text) for text in TEXTS))
    settings = Evaluation(adapter="a", conditions=KINDS, seeds=2, weight=scale, resolution=tiny.SIDE)
    drawing = Drawing(2, 2.0, tiny.SIDE)
    cache = ImageCache.of(tmp_path / "cache", base, this_machine(base.device), drawing)

    def go_on() -> None:
        pass

    drawn = draw_anew(
        drawing=KeptDrawing(base, asked.images(2, KINDS), go_on),
        network=network,
        cache=cache,
        adapter_sha256="a",
        pictures=pictures,
        asked=asked,
        settings=settings,
    )
    requests = [DrawRequest(f"toy, {text}", seed) for text in TEXTS for seed in settings.all_seeds]

    def steered(*shown: tuple[str, tuple[int, ...]]) -> list[Image.Image]:
        """Draw from maps of kinds, of the pictures of these numbers, two images of each."""
        images = []
        for batch in (slice(0, BATCH), slice(BATCH, None)):
            controls = []
            for kind, numbers in shown:
                maps = [bytes_of(pictures[number].maps[kind].shown) for number in np.repeat(numbers, 2)[batch]]
                controls.append(Control(network, from_bytes(maps), scale))
            images += draw_controlled(base, requests[batch], drawing, controls, go_on)
        return images

    own, others = (0, 1, 2), (1, 2, 0)
    assert same(list(drawn.ways[Way(("canny",))]), steered(("canny", own)))
    assert same(list(drawn.ways[Way(("canny",), is_own=False)]), steered(("canny", others)))
    assert same(list(drawn.ways[Way(("palette",))]), steered(("palette", own)))
    assert same(list(drawn.ways[Way(KINDS)]), steered(("canny", own), ("palette", own)))
    assert not same(steered(("canny", own)), steered(("canny", others)))
    plain = [DrawRequest(text, seed) for text in TEXTS for seed in settings.all_seeds]
    assert same(list(drawn.base), draw(base, plain, drawing, go_on))
    latents = base.encode_images([pictures[1].picture])[:, 0]
    assert same([drawn.decoded[1]], base.decode(latents))
