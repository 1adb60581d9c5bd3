"""Which base models can be personalised: an entry for each family, and the files of the diffusers layout that make one.

A family is this entry and one module of its name in `entrypoints/models/`; nothing else knows families apart.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


class Family(BaseModel):
    """What is equal for all models of one architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """As manifests have it: "sd"."""
    title: str
    """As people say it."""
    pipeline: str
    """Class in diffusers that draws with it; what its index calls it."""
    module: str
    """Module of `entrypoints/models` that loads it."""
    denoiser: str = "unet"
    """Folder of the denoiser."""
    classes: Mapping[str, str]
    """Folder of each part that can be trained, and its class in diffusers or transformers."""
    text_encoders: tuple[str, ...]
    """Folders of the text encoders, in their order."""
    tokenizers: tuple[str, ...]
    """Folders of their tokenizers."""
    embedding_keys: Mapping[str, str] = {}
    """Text encoder to its key in a textual-inversion file; without one, the key is the new word."""
    denoiser_projections: tuple[str, ...] = ("to_k", "to_out.0", "to_q", "to_v")
    """Linear layers of the denoiser's attention that LoRA adapts."""
    text_projections: tuple[str, ...] = ("k_proj", "out_proj", "q_proj", "v_proj")
    """Linear layers of the text encoders' attention that LoRA adapts."""
    addition_embed_type: str | None = None
    """What the denoiser is told beside the prompt, as its config calls it: it tells architectures apart."""
    resolution: int
    """Side in pixels of the pictures it is trained on, where its files do not say."""
    gradient_checkpointing: bool = False
    """Whether training recomputes activations unless told otherwise: for models too large for common GPUs."""

    @property
    def weight_parts(self) -> tuple[str, ...]:
        """Folders with weights."""
        return (self.denoiser, "vae", *self.text_encoders)

    @property
    def setting_parts(self) -> tuple[str, ...]:
        """Folders with anything that changes what a model computes."""
        return (*self.weight_parts, *self.tokenizers, "scheduler")


STABLE_DIFFUSION = Family(
    name="sd",
    title="Stable Diffusion 1 and 2",
    pipeline="StableDiffusionPipeline",
    module="stable_diffusion",
    classes={"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"},
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer",),
    resolution=512,
)
SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    module="sdxl",
    classes={
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    },
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    embedding_keys={"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    addition_embed_type="text_time",
    resolution=1024,
    gradient_checkpointing=True,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in (STABLE_DIFFUSION, SDXL)}
"""Every family by its name."""

INDEX_FILE = "model_index.json"
CLIP_FOLDER = "clip"
_SETTINGS = (
    *("config.json", "generation_config.json", "scheduler_config.json", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json"),
)
"""What diffusers and transformers read of a part: notes and whatever else lies beside them stay where they are."""
_WEIGHTS = "*.safetensors"


def _hub_patterns() -> tuple[str, ...]:
    parts = {part for family in FAMILIES.values() for part in family.setting_parts}
    patterns = [INDEX_FILE]
    for part in (*sorted(parts), CLIP_FOLDER):
        patterns += [f"{part}/{kind}" for kind in (*_SETTINGS, _WEIGHTS)]
    return tuple(patterns)


HUB_FILES = _hub_patterns()
"""Patterns of what is fetched of a model on the Hub: no pickles, no single-file checkpoints beside the folders."""
HUB_OTHER_VARIANTS = ("*.*.safetensors",)
"""Patterns of what is left out of that: weights of another precision ("model.fp16.safetensors")."""


def native_resolution(folder: Path) -> int | None:
    """Return the side in pixels of the square pictures a model was trained on; None when its files do not say so.

    That is the denoiser's latents (`sample_size`) times the autoencoder's scale, which halves once less than it has
    blocks. Files that cannot be read are for whoever loads the model to complain about.
    """
    try:
        family = family_in(folder / INDEX_FILE, str(folder))
        latents = _read_json(folder / family.denoiser / "config.json")["sample_size"]
        blocks = _read_json(folder / "vae" / "config.json")["block_out_channels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(latents, int) or not isinstance(blocks, list) or not blocks:
        return None
    return latents << (len(blocks) - 1)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def family_of(folder: Path) -> Family:
    """Return the family of the model in `folder`; raises ValueError that says all that is wrong with it."""
    index = folder / INDEX_FILE
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not index.is_file():
        raise ValueError(f"{folder} holds no {INDEX_FILE}; a model in the diffusers layout has one")
    family = family_in(index, str(folder))
    names = set()
    for path in folder.glob("*/*"):
        if path.is_file():
            names.add(path.relative_to(folder).as_posix())
    missing = missing_parts(family, names)
    if missing:
        raise ValueError(f"{folder} is not a whole model: {'; '.join(missing)}")
    _require_architecture(folder, family)
    return family


def _require_architecture(folder: Path, family: Family) -> None:
    """Raise ValueError when the denoiser is not of the family that the index names."""
    path = folder / family.denoiser / "config.json"
    try:
        found = _read_json(path).get("addition_embed_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if found != family.addition_embed_type:
        expected = f"addition_embed_type {found}, expected {family.addition_embed_type}"
        raise ValueError(
            f"{folder} calls itself a {family.pipeline}, but its {family.denoiser} is another ({expected})"
        )


def family_in(index: Path, model: str) -> Family:
    """Return the family that the index of a `model` names; raises ValueError for one that cannot be trained."""
    try:
        pipeline = str(_read_json(index).get("_class_name", "nothing"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as JSON: {error}") from error
    for family in FAMILIES.values():
        if family.pipeline == pipeline:
            return family
    known = " and ".join(f"{family.title} ({family.pipeline})" for family in FAMILIES.values())
    raise ValueError(f"{model} is a {pipeline}; only {known} can be personalised")


def missing_parts(family: Family, names: Collection[str]) -> list[str]:
    """Return what a model lacks of its family's parts, from the names of its files alone: "unet/config.json"."""
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(family.weight_parts, ("config.json",))
    needed |= dict.fromkeys(family.tokenizers, ("vocab.json", "tokenizer.json"))
    needed["scheduler"] = ("scheduler_config.json",)
    missing = []
    for part, files in needed.items():
        if not any(f"{part}/{file}" in names for file in files):
            missing.append(f"{part}/ has no {' or '.join(files)}")
    with_weights = {name.partition("/")[0] for name in names if _is_weights(PurePosixPath(name))}
    for part in family.weight_parts:
        if part not in with_weights:
            missing.append(f"{part}/ has no weights in the safetensors format")
    return missing


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of denoiser, autoencoder and text encoders."""
    family = family_in(folder / INDEX_FILE, str(folder))
    files = []
    for part in family.weight_parts:
        files += weights_in(folder / part)
    return files


def setting_files(folder: Path) -> list[Path]:
    """Return everything beside the weights that changes what a model computes: configs, vocabulary."""
    family = family_in(folder / INDEX_FILE, str(folder))
    files = []
    for part in family.setting_parts:
        files += _settings_in(folder / part)
    return files


def model_files(folder: Path) -> list[Path]:
    """Return every file of a model that a run reads, the CLIP it is judged by too."""
    files = [folder / INDEX_FILE]
    files += weight_files(folder)
    files += setting_files(folder)
    files += part_files(folder / CLIP_FOLDER)
    return files


def part_files(part: Path) -> list[Path]:
    """Return every file of one part that a run reads: weights, configurations, vocabulary."""
    return [*weights_in(part), *_settings_in(part)]


def files_sha256(folder: Path, paths: Iterable[Path], hash_of: Callable[[Path], FileDigest] = hash_file) -> str:
    """Return one hash over files of `folder`: equal names and bytes, equal hash, wherever the folder lies."""
    digests: dict[str, FileDigest] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        digests[name] = hash_of(path)
    return tree_sha256(digests)


def weights_in(part: Path) -> list[Path]:
    """Return the weight files of one part."""
    return [path for path in part.glob(_WEIGHTS) if _is_weights(path)]


def _is_weights(path: PurePath) -> bool:
    # "model.fp16.safetensors" is another precision of the same weights, which nothing reads.
    return path.match(_WEIGHTS) and path.name.count(".") == 1


def _settings_in(part: Path) -> list[Path]:
    files: list[Path] = []
    for pattern in _SETTINGS:
        files += part.glob(pattern)
    return files


def is_hub_id(name: str) -> bool:
    """Return whether a name looks like one of the Hugging Face Hub ("org/model"), and not like a path."""
    return _HUB_ID.fullmatch(name) is not None
