"""ControlNets draw what they draw in plain diffusers, several at once, in their steps and under their masks."""

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control, draw_controlled
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.generation import SCHEDULERS

REQUESTS = [DrawRequest("a photo of a toy dog", 3), DrawRequest("a red background", 4)]
DRAWING = Drawing(4, 5.0, tiny.SIDE, "a toy")


def condition(seed: int, width: int = tiny.SIDE, height: int = tiny.SIDE) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def values(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.float64) / 255 for image in images])


def go_on() -> None: ...


@pytest.fixture
def controls(family_base: BaseModel) -> list[Control]:
    networks = [tiny.control_network(family_base, seed) for seed in (0, 1)]
    return [Control(network, condition(seed)) for seed, network in enumerate(networks)]


WINDOWS: dict[str, tuple[float, *tuple[dict[str, float], ...]]] = {  # guidance, then settings of each control
    "one for some of the steps": (5.0, {"scale": 1.5, "start": 0.25, "end": 0.75}),
    "two": (5.0, {}, {"scale": 0.8}),
    "two, each in its own steps": (1.0, {"end": 0.5}, {"scale": 0.8, "start": 0.3}),
    "at the scale of zero": (5.0, {"scale": 0.0}),
}


def test_controlled_images_are_those_of_plain_diffusers(family_base: BaseModel, controls: list[Control]) -> None:
    plain = DiffusionPipeline.from_pretrained(family_base.folder)
    without = float_images(family_base, DRAWING, [])
    for name, (guidance, *window) in WINDOWS.items():
        drawing = replace(DRAWING, guidance=guidance)
        used = []
        for one, settings in zip(controls, window, strict=False):
            used.append(Control(one.network, one.condition, **settings))
        ours = float_images(family_base, drawing, used)
        assert np.abs(ours - their_images(plain, drawing, used)).max() <= 1e-5, name
        if any(one.scale for one in used):
            assert np.abs(ours - without).max() > 0.01, name  # the controls do something


def their_images(plain: Any, drawing: Drawing, used: list[Control]) -> np.ndarray:
    """Draw with the ControlNet pipeline of diffusers."""
    name = type(plain).__name__.replace("Pipeline", "ControlNetPipeline")
    pipeline = getattr(diffusers, name).from_pipe(plain, controlnet=[one.network for one in used])
    pipeline.set_progress_bar_config(disable=True)
    images: np.ndarray = pipeline(
        [request.prompt for request in REQUESTS],
        image=[one.condition for one in used],
        negative_prompt=["a toy"] * len(REQUESTS),
        height=drawing.shape.height,
        width=drawing.shape.width,
        num_inference_steps=4,
        guidance_scale=drawing.guidance,
        generator=[torch.Generator().manual_seed(request.seed) for request in REQUESTS],
        controlnet_conditioning_scale=[one.scale for one in used],
        control_guidance_start=[one.start for one in used],
        control_guidance_end=[one.end for one in used],
        output_type="np",
    ).images
    return images


def float_images(base: BaseModel, drawing: Drawing, controls: list[Control]) -> np.ndarray:
    """Draw without rounding to 8 bits."""
    processor = base.pipeline.image_processor
    kept = []

    def keep(pixels: Tensor, **options: Any) -> Any:
        kept.append(type(processor).postprocess(processor, pixels, output_type="np"))
        return type(processor).postprocess(processor, pixels, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "postprocess", keep, raising=False)
        draw_controlled(base, REQUESTS, drawing, controls, go_on)
    return np.concatenate(kept)


def test_controlled_images_that_are_not_square_are_those_of_plain_diffusers(family_base: BaseModel) -> None:
    drawing = replace(DRAWING, width=96, height=64)
    used = [Control(tiny.control_network(family_base), condition(0, 96, 64))]
    ours = float_images(family_base, drawing, used)
    plain = DiffusionPipeline.from_pretrained(family_base.folder)
    assert ours.shape == (len(REQUESTS), 64, 96, 3)
    assert np.abs(ours - their_images(plain, drawing, used)).max() <= 1e-5
    controlled = draw_controlled(family_base, REQUESTS, drawing, [], go_on)
    assert np.abs(values(controlled) - values(draw(family_base, REQUESTS, drawing, go_on))).max() <= 1 / 255


def test_without_a_control_the_images_are_those_of_the_pipeline(family_base: BaseModel) -> None:
    for drawing in (DRAWING, Drawing(2, 1.0, tiny.SIDE), Drawing(2, 5.0, tiny.SIDE)):
        controlled = draw_controlled(family_base, REQUESTS, drawing, [], go_on)
        assert np.abs(values(controlled) - values(draw(family_base, REQUESTS, drawing, go_on))).max() <= 1 / 255


def test_schedulers_of_other_orders_and_scales_draw_as_in_diffusers(base: BaseModel) -> None:
    own = base.pipeline.scheduler.config
    for scheduler in SCHEDULERS.values():
        base.pipeline.scheduler = getattr(diffusers, scheduler).from_config(own)
        controlled = draw_controlled(base, REQUESTS, DRAWING, [], go_on)
        theirs = draw(base, REQUESTS, DRAWING, go_on)
        assert np.abs(values(controlled) - values(theirs)).max() <= 1 / 255, scheduler


def test_a_mask_says_where_a_control_acts(family_base: BaseModel, controls: list[Control]) -> None:
    (one, _) = controls
    white = torch.ones(1, 1, tiny.SIDE, tiny.SIDE)
    left = white.clone()
    left[..., tiny.SIDE // 2 :] = 0

    def drawn(*used: Control) -> np.ndarray:
        return values(draw_controlled(family_base, REQUESTS, DRAWING, list(used), go_on))

    def masked(mask: Tensor) -> Control:
        return Control(one.network, one.condition, mask=mask)

    assert (drawn(masked(white)) == drawn(one)).all()
    assert (drawn(masked(white * 0)) == drawn()).all()
    changed = np.abs(drawn(masked(left)) - drawn()).mean(axis=(0, 1, 3))  # of each column
    middle = tiny.SIDE // 2
    assert changed[:middle].mean() > 1.3 * changed[middle:].mean()  # attention carries some of it across
    for side in (16, 8, 4, 3, 1):
        residual = masked(left).scaled(torch.ones(2, 5, side, side))
        half = side // 2
        assert (residual[..., :half] == 1).all()
        assert (residual[..., half + side % 2 :] == 0).all()


def test_what_several_controls_add_does_not_depend_on_their_order(
    family_base: BaseModel, controls: list[Control]
) -> None:
    forth = draw_controlled(family_base, REQUESTS, DRAWING, controls, go_on)
    back = draw_controlled(family_base, REQUESTS, DRAWING, controls[::-1], go_on)
    assert np.abs(values(forth) - values(back)).max() <= 1 / 255


def test_a_controlled_drawing_stops_between_steps(base: BaseModel) -> None:
    flag = StopFlag(asked=True)
    with pytest.raises(Stopped):
        draw_controlled(base, REQUESTS, DRAWING, [], flag.check)


def test_progress_is_told_after_each_batch(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrypoints.models.sampling.images_at_once", lambda *_, **__: 1)
    told: list[int] = []
    draw_controlled(base, REQUESTS, DRAWING, [], go_on, told.append)
    assert told == [1, 2]
