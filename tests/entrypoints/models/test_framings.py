"""SDXL is told of each sample how large its image was and where it was cut (arXiv 2307.01952, sec. 2.2)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.models.sampling import Drawing, DrawRequest, draw
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import list_images
from entrypoints.runtime.ranks import Ranks
from entrypoints.training.captions import caption_prompts
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of

SIZES = [(96, 48), (40, 80), (32, 32)]


@pytest.fixture
def sdxl(sdxl_folder: Path) -> BaseModel:
    return load_base_model(sdxl_folder, "tiny", None, torch.device("cpu"))


@contextmanager
def told(base: BaseModel) -> Iterator[list[Tensor]]:
    """Catch what the denoiser is told of sizes while the context lasts."""
    found: list[Tensor] = []

    def catch(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        found.append(arguments["added_cond_kwargs"]["time_ids"])

    hook = base.denoiser.register_forward_pre_hook(catch, with_kwargs=True)
    yield found
    hook.remove()


def theirs(base: BaseModel, *sizes: tuple[int, int]) -> Tensor:
    """Return what diffusers tells of an original size, the place of a crop, and a target size: rows before columns."""
    width = base.text_encoders["text_encoder_2"].config.projection_dim
    ids: Tensor = base.pipeline._get_add_time_ids(*sizes, torch.float32, width)
    return ids


def trained(base: BaseModel, folder: Path, **fields: Any) -> list[Tensor]:
    """Return what the denoiser is told in some steps, one image each."""
    recipe = tiny.captioned_lora(batch_size=1, **fields)
    images = list_images(folder)
    stream = Stream("images", latents_of(base, recipe, images), caption_prompts(recipe, images))
    objective = DenoisingObjective(base, recipe, [stream], PromptEncoder(base, frozen=True))
    with told(base) as found, torch.no_grad():
        for step in range(len(images)):
            next(objective.losses(step, Ranks()))
    return found


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, size in enumerate(SIZES):
        Image.new("RGB", size, (number * 50, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_each_sample_is_told_as_diffusers_tells_it(sdxl: BaseModel, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    row = {"file_name": "2.png", "text": "a toy", "width": 4000, "height": 3000}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    found = trained(sdxl, folder, buckets=False)
    expected = [
        theirs(sdxl, (48, 96), (0, 16), (32, 32)),  # scaled to 64x32, of which the middle is kept
        theirs(sdxl, (80, 40), (16, 0), (32, 32)),
        theirs(sdxl, (3000, 4000), (0, 0), (32, 32)),  # before it was prepared
    ]
    assert sorted(ids.tolist() for ids in found) == sorted(ids.tolist() for ids in expected)


def test_a_bucket_is_the_target_and_a_random_crop_tells_where_it_is(sdxl: BaseModel, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    shapes = {tuple(ids[0, 4:].tolist()) for ids in trained(sdxl, folder)}
    assert len(shapes) == 3
    (wide,) = [ids for ids in trained(sdxl, folder, buckets=False, random_crop=True) if ids[0, 1] == 96]
    assert torch.equal(wide, theirs(sdxl, (48, 96), (0, int(wide[0, 3])), (32, 32)))
    assert 0 < wide[0, 3] <= 32


def test_what_is_drawn_is_whole_and_of_its_own_size(sdxl: BaseModel) -> None:
    with told(sdxl) as found:
        draw(sdxl, [DrawRequest("a toy", 0)], Drawing(2, 3.0, tiny.SIDE), lambda: None)
    expected = theirs(sdxl, (32, 32), (0, 0), (32, 32))
    for ids in found:
        assert torch.equal(ids, expected.expand_as(ids))
    assert found


@pytest.mark.parametrize("size", [{"width": 0, "height": 5}, {"width": 10}, {"width": "x", "height": 1}])
def test_an_original_size_that_is_none_is_a_failure(tmp_path: Path, size: dict[str, Any]) -> None:
    folder = pictures(tmp_path / "pictures")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", **size}))
    with pytest.raises(TrainingError, match="cannot be read"):
        list_images(folder)
