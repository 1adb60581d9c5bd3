"""Which base models can be personalised, and which files of the diffusers layout make one."""

import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePath, PurePosixPath

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

FAMILIES = {"StableDiffusionPipeline": "sd"}
"""Pipeline class to the name of its family."""
SUPPORTED = "only Stable Diffusion 1 and 2 (StableDiffusionPipeline) can be personalised"

INDEX_FILE = "model_index.json"
CLIP_FOLDER = "clip"
WEIGHT_PARTS = ("unet", "vae", "text_encoder")
SETTING_PARTS = (*WEIGHT_PARTS, "tokenizer", "scheduler")
_SETTINGS = (
    *("config.json", "generation_config.json", "scheduler_config.json", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json"),
)
"""What diffusers and transformers read of a part: notes and whatever else lies beside them stay where they are."""
_WEIGHTS = "*.safetensors"
_NEEDED = {
    **dict.fromkeys(WEIGHT_PARTS, ("config.json",)),
    "tokenizer": ("vocab.json", "tokenizer.json"),
    "scheduler": ("scheduler_config.json",),
}
"""Part to the files of which it has one."""

HUB_FILES = (
    INDEX_FILE,
    *(f"{part}/{kind}" for part in (*SETTING_PARTS, CLIP_FOLDER) for kind in (*_SETTINGS, _WEIGHTS)),
)
"""Patterns of what is fetched of a model on the Hub: no pickles, no single-file checkpoints beside the folders."""
HUB_OTHER_VARIANTS = ("*.*.safetensors",)
"""Patterns of what is left out of that: weights of another precision ("model.fp16.safetensors")."""


def native_resolution(folder: Path) -> int | None:
    """Return the side in pixels of the square pictures a model was trained on; None when its files do not say so.

    That is the denoiser's latents (`sample_size`) times the autoencoder's scale, which halves once less than it has
    blocks. Files that cannot be read are for whoever loads the model to complain about.
    """
    try:
        latents = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))["sample_size"]
        blocks = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["block_out_channels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(latents, int) or not isinstance(blocks, list) or not blocks:
        return None
    return latents << (len(blocks) - 1)


def family_of(folder: Path) -> str:
    """Return the family of the model in `folder`; raises ValueError that says all that is wrong with it."""
    index = folder / INDEX_FILE
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not index.is_file():
        raise ValueError(f"{folder} holds no {INDEX_FILE}; a model in the diffusers layout has one")
    family = family_in(index, str(folder))
    missing = missing_parts({path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()})
    if missing:
        raise ValueError(f"{folder} is not a whole model: {'; '.join(missing)}")
    return family


def family_in(index: Path, model: str) -> str:
    """Return the family that the index of a `model` names; raises ValueError for one that cannot be trained."""
    try:
        pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", "nothing"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as JSON: {error}") from error
    if pipeline not in FAMILIES:
        raise ValueError(f"{model} is a {pipeline}; {SUPPORTED}")
    return FAMILIES[pipeline]


def missing_parts(names: Collection[str]) -> list[str]:
    """Return what a model lacks of its parts, from the names of its files alone: "unet/config.json"."""
    absent = [
        f"{part}/ has no {' or '.join(files)}"
        for part, files in _NEEDED.items()
        if not any(f"{part}/{file}" in names for file in files)
    ]
    weights = {name.partition("/")[0] for name in names if _is_weights(PurePosixPath(name))}
    bare = [part for part in WEIGHT_PARTS if part not in weights]
    return [*absent, *(f"{part}/ has no weights in the safetensors format" for part in bare)]


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of denoiser, autoencoder and text encoder."""
    return [path for part in WEIGHT_PARTS for path in _weights_in(folder / part)]


def setting_files(folder: Path) -> list[Path]:
    """Return everything beside the weights that changes what a model computes: configs, vocabulary."""
    return [path for part in SETTING_PARTS for path in _settings_in(folder / part)]


def model_files(folder: Path) -> list[Path]:
    """Return every file of a model that a run reads, the CLIP it is judged by too."""
    clip = folder / CLIP_FOLDER
    return [folder / INDEX_FILE, *weight_files(folder), *setting_files(folder), *_weights_in(clip), *_settings_in(clip)]


def files_sha256(folder: Path, paths: Iterable[Path], hash_of: Callable[[Path], FileDigest] = hash_file) -> str:
    """Return one hash over files of `folder`: equal names and bytes, equal hash, wherever the folder lies."""
    return tree_sha256({path.relative_to(folder).as_posix(): hash_of(path) for path in paths})


def _weights_in(part: Path) -> list[Path]:
    return [path for path in part.glob(_WEIGHTS) if _is_weights(path)]


def _is_weights(path: PurePath) -> bool:
    # "model.fp16.safetensors" is another precision of the same weights, which nothing reads.
    return path.match(_WEIGHTS) and path.name.count(".") == 1


def _settings_in(part: Path) -> list[Path]:
    return [path for ending in _SETTINGS for path in part.glob(ending)]


def is_hub_id(name: str) -> bool:
    """Return whether a name looks like one of the Hugging Face Hub ("org/model"), and not like a path."""
    return _HUB_ID.fullmatch(name) is not None
