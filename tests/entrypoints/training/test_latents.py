"""From picture files to latents and prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.recipes.dreambooth import captions
from entrypoints.recipes.textual_inversion import prompts_with
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import crop_square, list_images, read_image, to_tensor
from entrypoints.runtime.randomness import generator
from entrypoints.training.latents import Latents, latents_of
from orchestrator.contract.adapter import AdapterManifest

ALL = slice(None)


def gradient(width: int, height: int) -> Image.Image:
    """Draw a picture that is black on the left and white on the right."""
    return Image.linear_gradient("L").rotate(90).resize((width, height)).convert("RGB")


@pytest.mark.parametrize(("width", "height"), [(64, 64), (101, 64), (64, 333), (40, 30)])
def test_a_crop_is_square_and_of_the_size_asked_for(width: int, height: int) -> None:
    assert crop_square(gradient(width, height), 48).size == (48, 48)


def test_a_crop_is_cut_where_it_was_asked_for() -> None:
    means = [to_tensor(crop_square(gradient(400, 100), 32, across)).mean().item() for across in (0, 0.5, 1)]
    assert means[0] < -0.6 < means[1] < 0.6 < means[2]
    assert means[1] == pytest.approx(0, abs=0.05)


def test_pixels_go_from_minus_one_to_one() -> None:
    tensor = to_tensor(Image.new("RGB", (5, 3), (255, 0, 127)))
    assert tensor.shape == (1, 3, 3, 5)
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([1, -1, -0.004], abs=1e-3)


def test_pictures_are_listed_in_order_with_their_captions(tmp_path: Path) -> None:
    tiny.write_pictures(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "text": "sks dog asleep"}) + "\n\n")
    pictures = list_images(tmp_path)
    assert [(picture.path.name, picture.caption) for picture in pictures] == [
        ("0.png", None),
        ("1.png", "sks dog asleep"),
    ]
    assert captions(pictures, "a photo of sks dog")([1, 0, 1], torch.Generator()) == [
        "sks dog asleep",
        "a photo of sks dog",
        "sks dog asleep",
    ]


def test_a_broken_captions_file_is_named(tmp_path: Path) -> None:
    (tiny.write_pictures(tmp_path) / "metadata.jsonl").write_text("{'file_name': 1}\n")
    with pytest.raises(TrainingError, match=r"metadata\.jsonl cannot be read"):
        list_images(tmp_path)


@pytest.mark.parametrize("folder", [None, "empty"])
def test_no_pictures_is_a_failure(tmp_path: Path, folder: str | None) -> None:
    with pytest.raises(TrainingError, match="no PNG, JPEG or WebP") as caught:
        list_images(tmp_path / folder if folder else None)
    assert caught.value.kind == "dataset"


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tiny.write_pictures(tmp_path, 1) / "0.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"0\.png cannot be decoded"):
        read_image(path)


def test_latents_are_encoded_once_unless_crops_are_random(base: BaseModel, tmp_path: Path) -> None:
    pictures = list_images(tiny.write_pictures(tmp_path))
    fixed = latents_of(base, tiny.dreambooth(), pictures)
    cut = latents_of(base, tiny.dreambooth(random_crop=True), pictures)

    def visited(latents: Latents, step: int) -> torch.Tensor:
        return latents.views_of([2], latents.cuts(1, generator(0, "step", 0, step))).moments

    assert torch.equal(visited(fixed, 1), visited(fixed, 2))
    moments = [visited(cut, step) for step in (1, 2, 1)]
    assert moments[0].shape == (1, 2, 4, tiny.SIDE // 2, tiny.SIDE // 2)
    assert torch.equal(moments[0], moments[2])
    assert not torch.equal(moments[0], moments[1])


def test_templates_name_the_placeholder(tmp_path: Path) -> None:
    pictures = list_images(tiny.write_pictures(tmp_path))
    recipe = tiny.textual_inversion()
    prompts = prompts_with(recipe, pictures)([0, 1, 2, 0, 1, 2], generator(0, "step", 0, 0))
    assert all("<my-dog>" in prompt for prompt in prompts)
    assert len(set(prompts)) > 1
    styled = prompts_with(tiny.textual_inversion(learnable_property="style"), pictures)([0], generator(0, "step", 0, 0))
    assert "in the style of <my-dog>" in styled[0]


def test_a_caption_in_capitals_is_trained_on_with_the_placeholder_as_it_was_added(tmp_path: Path) -> None:
    row = {"file_name": "1.png", "text": "My <My-Dog>, asleep"}
    (tiny.write_pictures(tmp_path) / "metadata.jsonl").write_text(json.dumps(row))
    prompts = prompts_with(tiny.textual_inversion(), list_images(tmp_path))([1], generator(0, "step", 0, 0))
    assert prompts == ["My <my-dog>, asleep"]


def test_captions_are_trained_on(job: Any, run: Any) -> None:
    plain, captioned = (
        job(tiny.dreambooth(evaluation_prompts=0), "plain"),
        job(tiny.dreambooth(evaluation_prompts=0), "own"),
    )
    rows = [json.dumps({"file_name": f"{number}.png", "text": "red sks toy"}) for number in range(3)]
    (captioned.root / "input" / "data" / "training" / "metadata.jsonl").write_text("\n".join(rows))
    losses = [
        [event["loss"] for event in run(environment) if event["event"] == "step"] for environment in (plain, captioned)
    ]
    assert losses[0] != losses[1]
    manifests = [AdapterManifest.read(environment.model) for environment in (plain, captioned)]
    assert [(manifest.images, manifest.captions) for manifest in manifests] == [(3, 0), (3, 3)]
