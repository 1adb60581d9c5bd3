"""Images before and after training: whose they are, what they cost, and what is left of the adapter."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.sampling import DrawRequest, draw
from entrypoints.training.publication import draw_tuned, draw_untuned
from entrypoints.training.run import Run
from orchestrator.contract.digest import FileDigest, hash_files

TUNERS: dict[str, Callable[[BaseModel], Tuner]] = {
    "lora": lambda base: Lora(base, rank=2, alpha=4, text_encoder=True, seed=0),
    "embedding": lambda base: Embedding(base, placeholder="oto", initializer="dog", vectors=1),  # as in "photo"
    "full": lambda base: Full(base, text_encoder=True),
}
BEFORE = [DrawRequest("a photo of a sks dog", seed) for seed in range(2)]
AFTER = [DrawRequest("a photo of oto", seed) for seed in range(2)]


class CountingRun(Run):
    """Counts the U-Nets that are held at each denoising step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.others = denoisers()
        self.held: list[int] = []
        self.stop.check = lambda: self.held.append(denoisers() - self.others)  # type: ignore[method-assign]


def denoisers() -> int:
    gc.collect()
    return sum(isinstance(thing, UNet2DConditionModel) for thing in gc.get_objects())


def saved(tuner: Tuner, folder: Path) -> dict[str, FileDigest]:
    folder.mkdir()
    tuner.save(folder, {"format": "pt"})
    return hash_files(folder)


def tobytes(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


@pytest.fixture
def new_run(job: Any, family_folder: Path) -> Callable[[], CountingRun]:
    recipe = tiny.dreambooth()
    environment = job(recipe, base_model=family_folder)
    return lambda: CountingRun(environment, recipe)


def trained_tuner(base: BaseModel, kind: str) -> Tuner:
    tuner = TUNERS[kind](base)
    with torch.no_grad():
        for parameter in tuner.parameters.values():
            parameter.add_(0.1)
    return tuner


@pytest.mark.parametrize("kind", TUNERS)
def test_images_before_are_the_base_models_and_a_second_copy_is_held_only_where_its_weights_are_gone(
    kind: str, new_run: Callable[[], CountingRun], tmp_path: Path
) -> None:
    run = new_run()
    expected = tobytes(draw(run.load_base_model(), BEFORE, run.drawing, lambda: None))
    base = run.load_base_model()
    tuner = trained_tuner(base, kind)
    trained = saved(tuner, tmp_path / "trained")
    told: list[int] = []
    before = draw_untuned(run, base, tuner, BEFORE, told.append)
    after = draw_tuned(run, base, tuner, AFTER, told.append)
    assert tobytes(before) == expected
    assert tobytes(after) != expected
    assert saved(tuner, tmp_path / "evaluated") == trained
    assert told == [2, 2]
    assert run.held == ([2, 2, 1, 1] if kind == "full" else [1, 1, 1, 1])


@pytest.mark.parametrize("kind", TUNERS)
def test_images_before_are_drawn_by_the_first_job_and_kept_for_the_next(
    kind: str, new_run: Callable[[], CountingRun]
) -> None:
    run = new_run()
    base = run.load_base_model()
    first = draw_untuned(run, base, trained_tuner(base, kind), BEFORE, lambda _: None)
    again = new_run()
    base = again.load_base_model()
    second = draw_untuned(again, base, trained_tuner(base, kind), BEFORE, lambda _: None)
    assert tobytes(second) == tobytes(first)
    assert again.held == []  # no denoising step


def test_a_fused_lora_draws_what_the_layers_beside_the_weights_draw(new_run: Callable[[], CountingRun]) -> None:
    run = new_run()
    base = run.load_base_model()
    tuner = trained_tuner(base, "lora")
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([500, 500])
    with torch.no_grad():
        conditions = base.encode_prompts(["a photo of oto"] * 2)
        beside = base.predict(noisy, times, conditions)
        tuner.fuse()
        conditions = base.encode_prompts(["a photo of oto"] * 2)
        fused = base.predict(noisy, times, conditions)
    torch.testing.assert_close(fused, beside, rtol=0, atol=1e-5)
