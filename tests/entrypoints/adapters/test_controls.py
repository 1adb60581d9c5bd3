"""An order with controls: what does not fit is refused before the base model is loaded, what fits steers."""

import base64
import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from entrypoints.draw import draw_order
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import CONTROLNET, LORA, AdapterManifest, BaseModelReference
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Warned, parse
from orchestrator.contract.generation import Control, Generation

Draws = Callable[..., np.ndarray]


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue())


def control(**fields: Any) -> Control:
    values = {"network": "net", "kind": "canny", "picture": png(tiny.random_image(0)), **fields}
    return Control.model_validate(values)


@pytest.fixture(scope="module")
def network(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ControlNet as diffusers writes it; tests only read it."""
    folder = tmp_path_factory.mktemp("control") / "net"
    base = load_base_model(base_folder, "tiny", None, torch.device("cpu"))
    tiny.control_network(base).save_pretrained(folder)
    return folder


@pytest.fixture
def net(network: Path, tmp_path: Path) -> Path:
    """A copy of the ControlNet to change."""
    return shutil.copytree(network, tmp_path / "net")


@pytest.fixture
def draws(base_folder: Path, net: Path, tmp_path: Path) -> Draws:
    """Draw one image with controls and return its pixels."""

    def draw(*controls: Control, base: Path = base_folder, **fields: Any) -> np.ndarray:
        values = {"prompts": ("a toy dog",), "seeds": (3,), "steps": 2, "guidance": 5.0, "size": tiny.SIDE, **fields}
        order = DrawOrder(
            generation=Generation(controls=controls, **values),
            folders={"net": net},
            base_model="tiny",
            base_folder=base,
        )
        draw_order(order, tmp_path)
        with Image.open(tmp_path / order.file(0)) as image:
            return np.asarray(image, dtype=np.float64) / 255

    return draw


def refusal(draws: Draws, *controls: Control, **fields: Any) -> TrainingError:
    with pytest.raises(TrainingError) as raised:
        draws(*controls, **fields)
    assert raised.value.next_step
    return raised.value


def configure(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def write_manifest(folder: Path, base: BaseModelReference, kind: str = CONTROLNET, **config: Any) -> None:
    AdapterManifest(
        kind=kind,
        recipe="controlnet",
        config=config,
        base_model=base,
        dataset_sha256="",
        bundle_sha256="",
        libraries={},
    ).write(folder)


def test_controls_steer_in_their_steps_and_where_their_masks_are_white(draws: Draws) -> None:
    picture = Image.new("L", (tiny.SIDE, tiny.SIDE + 8))
    black, white = png(picture), png(Image.new("L", picture.size, "white"))
    wide = png(tiny.random_image(1).resize(picture.size))
    without = draws()
    steered = draws(control(picture=wide))
    assert np.abs(steered - without).max() > 0.05
    assert (draws(control(picture=wide, mask=white)) == steered).all()
    assert (draws(control(picture=wide, mask=black)) == without).all()
    assert (draws(control(picture=wide, start=0.1, end=0.5)) == without).all()  # not the whole of any step
    assert np.abs(draws(control(picture=wide), control(kind="blur", scale=0.5)) - steered).max() > 0.01
    map_itself = draws(control(picture=wide, is_map=True))
    assert np.abs(map_itself - steered).max() > 0.01  # no edges were looked for


def test_images_that_are_not_square_follow_a_picture_cut_to_their_shape(draws: Draws) -> None:
    (wide,) = [tiny.random_image(1).resize((96, 64))]
    taller = Image.new("RGB", (96, 128))
    taller.paste(wide, (0, 32))
    shape = {"width": 96, "height": 64}
    steered = draws(control(picture=png(wide)), **shape)
    assert steered.shape == (64, 96, 3)
    assert (draws(control(picture=png(taller)), **shape) == steered).all()
    assert np.abs(draws(**shape) - steered).max() > 0.01


def test_a_negative_prompt_and_a_scheduler_change_the_image(draws: Draws) -> None:
    plain = draws()
    assert np.abs(draws(negative_prompt="a red dog") - plain).max() > 0.01
    assert np.abs(draws(scheduler="euler-ancestral") - plain).max() > 0.01


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "another family": ({"addition_embed_type": "text_time"}, "is made for Stable Diffusion XL"),
    "another text encoder": ({"cross_attention_dim": 768}, "has cross_attention_dim 768, and the base model 16"),
    "another width": ({"block_out_channels": [16, 32]}, "has block_out_channels"),
    "other latents": ({"in_channels": 8}, "has in_channels 8, and the base model 4"),
    "another depth": ({"layers_per_block": 2}, "has layers_per_block 2"),
    "another autoencoder": (
        {"conditioning_embedding_out_channels": [4, 4, 4, 4]},
        "makes conditions 8 times smaller, and the autoencoder of the base model pictures 2 times",
    ),
    "no list of widths": ({"conditioning_embedding_out_channels": 4}, "makes conditions"),
    "a union": ({"_class_name": "ControlNetUnionModel"}, "is a ControlNetUnionModel"),
    "no ControlNet": ({"_class_name": "UNet2DConditionModel"}, "is no ControlNet"),
}


@pytest.mark.parametrize(("fields", "why"), MISFITS.values(), ids=list(MISFITS))
def test_a_controlnet_that_does_not_fit_is_refused(draws: Draws, net: Path, fields: dict[str, Any], why: str) -> None:
    configure(net, **fields)
    (net / "diffusion_pytorch_model.safetensors").unlink()  # it is not looked at
    assert why in refusal(draws, control()).message


def test_a_controlnet_whose_files_cannot_be_read_is_refused(draws: Draws, net: Path, base: BaseModel) -> None:
    weights = net / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    assert "The weights of the ControlNet" in refusal(draws, control()).message
    weights.rename(net / "diffusion_pytorch_model.bin")
    assert "no safetensors file" in refusal(draws, control()).message
    weights.write_bytes(content)
    write_manifest(net, base.reference)
    weights.write_bytes(content[:-1] + b"x")
    assert "is damaged: diffusion_pytorch_model.safetensors" in refusal(draws, control()).message
    (net / "adapter.json").write_text("{}")
    assert "no readable adapter" in refusal(draws, control()).message
    (net / "adapter.json").unlink()
    (net / "config.json").write_text("[")
    assert "config.json" in refusal(draws, control()).message
    (net / "config.json").unlink()
    assert "config.json does not exist" in refusal(draws, control()).message


def test_a_controlnet_is_shown_maps_of_its_own_kinds_alone(draws: Draws, net: Path, base: BaseModel) -> None:
    write_manifest(net, base.reference, conditions=["canny", "given"], given_map="depth")
    draws(control(), control(kind="depth", is_map=True), control(kind="canny", is_map=True))
    assert "was trained on canny and given maps, and not on blur" in refusal(draws, control(kind="blur")).message
    refusal(draws, control(kind="hed", is_map=True))
    write_manifest(net, base.reference, conditions=["given"])
    draws(control(kind="hed", is_map=True), control(kind="given", is_map=True))
    write_manifest(net, base.reference, LORA)
    assert 'an adapter of the kind "lora"' in refusal(draws, control()).message


def test_a_controlnet_of_a_relative_of_the_base_model_is_used_with_a_warning(
    draws: Draws, net: Path, base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(net, base.reference.model_copy(update={"fingerprint": "0", "id": "./other"}))
    draws(control())
    events = [parse(line) for line in capsys.readouterr().out.splitlines()]
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert 'was trained on "./other", which has other weights' in warning.message


def test_a_picture_that_cannot_be_shown_is_refused(draws: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    junk = base64.b64encode(b"junk")
    assert "the picture of the canny control cannot be decoded" in refusal(draws, control(picture=junk)).message
    assert "the mask of the canny control cannot be decoded" in refusal(draws, control(mask=junk)).message
    wide = png(Image.new("L", (64, 40)))
    assert "is 64x40, and its picture 32x32" in refusal(draws, control(mask=wide)).message
    assert "no folder with its weights" in refusal(draws, control(kind="depth")).message
    monkeypatch.setattr("entrypoints.adapters.controls._MOST_PIXELS", 1000)
    assert "has 1024 pixels" in refusal(draws, control()).message
