"""Which base models can be personalised, and which files of the diffusers layout make one."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256

FAMILIES = {"StableDiffusionPipeline": "sd"}
"""Pipeline class to the name of its family."""
SUPPORTED = "only Stable Diffusion 1 and 2 (StableDiffusionPipeline) can be personalised"

INDEX_FILE = "model_index.json"
CLIP_FOLDER = "clip"
WEIGHT_PARTS = ("unet", "vae", "text_encoder")
SETTING_PARTS = (*WEIGHT_PARTS, "tokenizer", "scheduler")
_SETTINGS = ("*.json", "*.txt")
_NEEDED = {
    **dict.fromkeys(WEIGHT_PARTS, ("config.json",)),
    "tokenizer": ("vocab.json", "tokenizer.json"),
    "scheduler": ("scheduler_config.json",),
}
"""Part to the files of which it has one."""


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
    try:
        pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", "nothing"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as JSON: {error}") from error
    if pipeline not in FAMILIES:
        raise ValueError(f"{folder} is a {pipeline}; {SUPPORTED}")
    missing = _missing(folder)
    if missing:
        raise ValueError(f"{folder} is not a whole model: {'; '.join(missing)}")
    return FAMILIES[pipeline]


def _missing(folder: Path) -> list[str]:
    """Return what the model in `folder` lacks of its parts."""
    absent = [
        f"{part}/ has no {' or '.join(names)}"
        for part, names in _NEEDED.items()
        if not any((folder / part / name).is_file() for name in names)
    ]
    bare = [part for part in WEIGHT_PARTS if not _weights_in(folder / part)]
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
    # "model.fp16.safetensors" is another precision of the same weights, which nothing reads.
    return [path for path in part.glob("*.safetensors") if path.name.count(".") == 1]


def _settings_in(part: Path) -> list[Path]:
    return [path for ending in _SETTINGS for path in part.glob(ending)]
