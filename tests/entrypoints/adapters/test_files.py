"""Files of adapters: those of earlier versions still load, and a configuration says what its weights are."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor
from transformers import CLIPTextModel

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.full import Full
from entrypoints.adapters.loading import load_adapter
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError
from orchestrator.adapters.usage import snippet
from orchestrator.contract.adapter import EMBEDDING, FULL, LORA, LORA_FILE, AdapterManifest
from orchestrator.contract.model_check import model_problems

CPU = torch.device("cpu")
FLAT_PREFIX = "text_encoder.text_model."


@torch.no_grad()
def save(base: BaseModel, tuner: Tuner, folder: Path) -> None:
    """Move everything that is trained, and save it."""
    random = torch.Generator().manual_seed(0)
    for parameter in tuner.parameters.values():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=random)
    folder.mkdir()
    tuner.save(folder, {"format": "pt"})
    write_manifest(base, tuner, folder)


def write_manifest(base: BaseModel, tuner: Tuner, folder: Path) -> None:
    fields = {"recipe": "dreambooth", "config": {}, "dataset_sha256": "", "bundle_sha256": "", "libraries": {}}
    about = {"kind": tuner.kind, "parts": tuner.parts, "trigger": "<my-dog>", "base_model": base.reference}
    AdapterManifest(**about, **fields).write(folder)


def assert_loads(base: BaseModel, folder: Path) -> None:
    """The adapter in a folder does in a fresh base model what its tuner does in `base`."""
    fresh = load_base_model(base.folder, "tiny", None, CPU)
    load_adapter(fresh, folder)
    noisy, times = torch.ones(1, 4, 16, 16), torch.tensor([500])
    with torch.no_grad():
        conditions = base.encode_prompts(["a dog"])
        loaded = fresh.encode_prompts(["a dog"])
        torch.testing.assert_close(loaded, conditions, rtol=0, atol=1e-5)
        found = fresh.predict(noisy, times, loaded)
        torch.testing.assert_close(found, base.predict(noisy, times, conditions), rtol=0, atol=1e-5)


def test_full_weights_of_an_earlier_version_load(family_base: BaseModel, tmp_path: Path) -> None:
    base, folder = family_base, tmp_path / "adapter"
    tuner = Full(base, text_encoder=True)
    save(base, tuner, folder)
    file = folder / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    assert all(name.startswith("text_model.") for name in weights)
    save_file({name.removeprefix("text_model."): weight for name, weight in weights.items()}, file, {"format": "pt"})
    write_manifest(base, tuner, folder)
    assert_loads(base, folder)


def test_a_lora_of_an_earlier_version_loads_with_the_alpha_of_its_metadata(
    family_base: BaseModel, tmp_path: Path
) -> None:
    base, folder = family_base, tmp_path / "adapter"
    tuner = Lora(base, rank=2, alpha=8, text_encoder=True, seed=0)
    save(base, tuner, folder)
    file = folder / LORA_FILE
    with safe_open(file, framework="pt") as opened:
        metadata = json.loads(opened.metadata()["lora_adapter_metadata"])
    earlier: dict[str, Tensor] = {}
    for name, weight in load_file(file).items():
        name = name.replace(FLAT_PREFIX, "text_encoder.")  # noqa: PLW2901 - the same weight
        earlier[name] = weight / 4 if ".up." in name else weight
    metadata |= {name: 8 for name in metadata if name.endswith("lora_alpha")}
    save_file(earlier, file, {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)})
    write_manifest(base, tuner, folder)
    assert_loads(base, folder)


def run_program(folder: Path, base_folder: Path) -> Any:
    """Run the printed program of an adapter up to where it draws, on the device that computes nothing."""
    lines = snippet(AdapterManifest.read(folder), str(folder), base_folder)
    names: dict[str, Any] = {}
    opening = "\n".join(lines[:-2]).replace('"cpu"', '"meta"')
    exec(opening, names)  # noqa: S102 - the lines that a user copies
    return names["pipe"]


TUNERS: dict[str, Callable[[BaseModel], Tuner]] = {
    EMBEDDING: lambda base: Embedding(base, placeholder="<my-dog>", initializer="dog", vectors=1),
    FULL: lambda base: Full(base, text_encoder=True),
    LORA: lambda base: Lora(base, rank=2, alpha=2, text_encoder=True, seed=0),
}


@pytest.mark.parametrize("kind", TUNERS)
def test_a_printed_program_has_all_of_its_pipeline_on_one_device(
    family_base: BaseModel, tmp_path: Path, kind: str
) -> None:
    save(family_base, TUNERS[kind](family_base), tmp_path / "adapter")
    pipe = run_program(tmp_path / "adapter", family_base.folder)
    for part in family_base.family.weight_parts:
        devices = {tensor.device.type for tensor in getattr(pipe, part).parameters()}
        assert devices == {"meta"}, part


def test_a_printed_program_opens_every_base_model_that_training_opens(family_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(family_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    # An index of the Hub names parts that are not fetched, because training reads none of them.
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    index |= {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}
    if "safety_checker" in index:
        index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert model_problems(folder) == []
    base = load_base_model(folder, "tiny", None, CPU)
    save(base, Lora(base, rank=2, alpha=2, text_encoder=False, seed=0), tmp_path / "adapter")
    assert isinstance(run_program(tmp_path / "adapter", folder), type(base.pipeline))


class Trap:
    """What a pickle of it does when somebody reads it: make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", [EMBEDDING, FULL, LORA])
@pytest.mark.parametrize("damage", ["a pickle beside", "a pickle instead", "other weights", "cut"])
def test_what_is_no_safetensors_file_of_an_adapter_is_refused_and_never_unpickled(
    family_base: BaseModel, tmp_path: Path, kind: str, damage: str
) -> None:
    folder = tmp_path / "adapter"
    fields = {"recipe": "dreambooth", "config": {}, "dataset_sha256": "", "bundle_sha256": "", "libraries": {}}
    file, pickled = {
        EMBEDDING: ("learned_embeds.safetensors", "learned_embeds.bin"),
        FULL: ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
        LORA: (LORA_FILE, "pytorch_lora_weights.bin"),
    }[kind]
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    content = {
        "a pickle beside": None,
        "a pickle instead": trap,
        "other weights": tensors_to_bytes({"lora": torch.ones(2)}),
        "cut": b"\x08",
    }[damage]
    (folder / file).parent.mkdir(parents=True)
    (folder / pickled).write_bytes(trap)
    if content is not None:
        (folder / file).write_bytes(content)
    manifest = AdapterManifest(kind=kind, parts=("unet",), trigger="<dog>", base_model=family_base.reference, **fields)
    manifest.write(folder)
    with pytest.raises(TrainingError, match="cannot be loaded") as raised:
        load_adapter(family_base, folder)
    assert raised.value.kind == "adapter"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_lora_without_weights_of_a_part_is_refused(base: BaseModel, tmp_path: Path, named: bool) -> None:
    folder = tmp_path / "adapter"
    tuner = Lora(base, rank=2, alpha=2, text_encoder=True, seed=0)
    save(base, tuner, folder)
    weights = load_file(folder / LORA_FILE)
    lost = "text_encoder." if named else "unet."
    save_file({name: weight for name, weight in weights.items() if not name.startswith(lost)}, folder / LORA_FILE)
    tuner.parts = tuner.parts if named else ()  # as of earlier versions
    write_manifest(base, tuner, folder)
    fresh = load_base_model(base.folder, "tiny", None, CPU)
    with pytest.raises(TrainingError, match=f"it has no weights of {lost[:-1]}"):
        load_adapter(fresh, folder)


def test_a_lora_needs_no_alpha_and_names_text_encoders_as_old_loaders_do(
    family_base: BaseModel, tmp_path: Path
) -> None:
    tuner = Lora(family_base, rank=2, alpha=8, text_encoder=True, seed=0)
    save(family_base, tuner, tmp_path / "adapter")
    with safe_open(tmp_path / "adapter" / LORA_FILE, framework="pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    for part in tuner.parts:
        assert metadata[f"{part}.lora_alpha"] == metadata[f"{part}.r"] == 2
    names = [name for name in weights if name.startswith("text_encoder")]
    assert names
    assert all(name.partition(".")[2].startswith("text_model.encoder.") for name in names)
    trained = tuner.parameters["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.default.weight"]
    saved = weights["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight"]
    assert torch.equal(saved, 4 * trained)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_trained_weights_are_not_rounded_to_the_type_of_the_base(name: str, base_folder: Path, tmp_path: Path) -> None:
    halves = shutil.copytree(base_folder, tmp_path / "base")
    file = halves / "text_encoder" / "config.json"
    config = json.loads(file.read_text())
    config.pop("dtype")
    file.write_text(json.dumps({**config, name: "float16"}))
    base = load_base_model(halves, "tiny", None, CPU)
    tuner = Full(base, text_encoder=True)
    save(base, tuner, tmp_path / "adapter")
    loaded = CLIPTextModel.from_pretrained(tmp_path / "adapter", subfolder="text_encoder")
    torch.testing.assert_close(loaded.state_dict(), base.text_encoders["text_encoder"].state_dict(), rtol=0, atol=0)
