"""The loss is that of the white of the masks, which are cut as their images are."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage, list_images, to_tensor
from entrypoints.training.denoising import weighted_mse
from entrypoints.training.latents import latents_of
from orchestrator.contract.mixins import Denoising

ALL = slice(None)


def masked_image(folder: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> list[CaptionedImage]:
    """Write an image that is white in a box and black elsewhere, and its mask, which is the same."""
    folder.mkdir(exist_ok=True)
    image = Image.new("L", size, 0)
    image.paste(255, box)
    image.convert("RGB").save(folder / "0.png")
    image.save(folder / "0-masklabel.png")
    return list_images(folder)


@pytest.mark.parametrize(
    "recipe",
    [
        tiny.captioned_lora(masked_loss=True),
        tiny.captioned_lora(masked_loss=True, buckets=False),
        tiny.captioned_lora(masked_loss=True, buckets=False, random_crop=True),
    ],
)
def test_a_mask_is_cut_and_scaled_as_its_image(
    recipe: Denoising, base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    encode = type(base).encode_images

    def looked_at(self: BaseModel, images: list[Image.Image]) -> torch.Tensor:
        seen.extend(to_tensor(image) for image in images)
        return encode(self, images)

    monkeypatch.setattr(type(base), "encode_images", looked_at)
    images = masked_image(tmp_path / "images", (96, 48), (30, 10, 60, 40))
    latents = latents_of(base, recipe, images)
    views = latents.views_of([0], latents.cuts(1, torch.Generator().manual_seed(5)))
    shown = (seen[-1].mean(dim=1, keepdim=True) + 1) / 2  # the image that was encoded, 0 to 1
    expected = torch.nn.functional.adaptive_avg_pool2d(shown, views.moments.shape[-2:])
    assert views.weights is not None
    torch.testing.assert_close(views.weights, expected.clamp(min=recipe.unmasked_weight), atol=0.01, rtol=0)


def test_places_weigh_as_much_as_their_mask() -> None:
    prediction = torch.zeros(2, 4, 2, 2, requires_grad=True)
    places = torch.tensor([[1.0, 0.1], [0.1, 0.1]]).expand(2, 1, 2, 2)
    weighted_mse(prediction, torch.ones(2, 4, 2, 2), None, places).backward()
    assert prediction.grad is not None
    one = prediction.grad[:, :, 0, 0]
    assert torch.equal(prediction.grad[:, :, 1, 1], 0.1 * one)
    assert bool((one != 0).all())
    samples = weighted_mse(prediction, torch.ones(2, 4, 2, 2), torch.tensor([1.0, 3.0]), places)
    assert samples.item() == pytest.approx(2 * 1.3 / 4)


@pytest.mark.parametrize(
    "make", [tiny.dreambooth, tiny.captioned_lora, tiny.textual_inversion], ids=["dreambooth", "lora", "inversion"]
)
def test_every_recipe_learns_what_is_white(make: Any, job: Any, run: Any) -> None:
    losses = []
    for number, left in enumerate((None, 0, 24)):
        recipe = make(masked_loss=left is not None, evaluation_prompts=0, steps=2)
        environment = job(recipe, f"job-{number}")
        folder = environment.root / "input" / "data" / "training"
        if left is not None:
            tiny.write_masks(folder, left)
        losses.append(next(event["loss"] for event in run(environment) if event["event"] == "step"))
    assert losses[1] == losses[0]  # all white
    assert losses[2] < 0.8 * losses[0]


def test_a_job_without_a_mask_or_with_one_of_another_size_says_which(job: Any, run: Any) -> None:
    environment = job(tiny.captioned_lora(masked_loss=True))
    folder = environment.root / "input" / "data" / "training"
    with pytest.raises(TrainingError, match=r"0\.png has no mask"):
        run(environment)
    tiny.write_masks(folder)
    Image.new("L", (40, 40), 255).save(folder / "0-masklabel.png")
    with pytest.raises(TrainingError, match=r"0-masklabel\.png is 40x40, and its image 0\.png 32x32"):
        run(environment)


def test_a_mask_whose_white_is_cut_away_is_warned_of(
    base: BaseModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = masked_image(tmp_path / "images", (128, 40), (0, 0, 30, 40))
    latents_of(base, tiny.captioned_lora(masked_loss=True, buckets=False), images)
    assert "lies outside what is cut from 1 image, 0.png first" in capfd.readouterr().out
