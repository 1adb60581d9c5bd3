"""The files of the diffusers layout that make a model: which of them a run reads, in a folder and on the Hub.

The weights of a part are one file, or several shards with an index. They may be there in several variants, such as
"model.fp16.safetensors": the plain ones are read where they exist, else one of the variants.
"""

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256
from orchestrator.contract.families import FAMILIES, INDEX_FILE, Family, family_in
from orchestrator.contract.model_file import ModelFileError, model_problem
from orchestrator.contract.problem import Problem

CLIP_FOLDER = "clip"
TOKENIZER_FILES = ("vocab.json", "tokenizer.json")
"""A tokenizer has one of them."""
_SETTINGS = (
    *("config.json", "generation_config.json", "scheduler_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json"),
)
"""What diffusers and transformers read of a part: notes and whatever else lies beside them stay where they are."""
_PREFERRED_VARIANTS = ("fp32", "fp16", "bf16")
"""Variants that are read rather than others, the most exact first."""
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_OTHER_WEIGHTS = (".safetensors", ".msgpack", ".onnx", ".gguf")
_DIFFUSERS_STEM = "diffusion_pytorch_model"
_TRANSFORMERS_STEM = "model"


def _all_parts() -> tuple[str, ...]:
    parts: dict[str, None] = {}
    for family in FAMILIES.values():
        parts |= dict.fromkeys(family.setting_parts)
    return (*parts, CLIP_FOLDER)


_PARTS = _all_parts()
"""Folders that a model of any family may have."""
_FETCHED = (*_SETTINGS, "*.safetensors", "*.safetensors.index*.json")
HUB_FILES = (INDEX_FILE, *(f"{part}/{name}" for part in _PARTS for name in _FETCHED))
"""Patterns of what is fetched of a model on the Hub: no pickles, no single-file checkpoints beside the folders."""
HUB_VARIANTS = ("*.*.safetensors",)
"""Patterns of weights in variants: they are fetched only of a model that lacks plain ones."""


class Weights(NamedTuple):
    """The weight files that are read of a part."""

    files: tuple[str, ...]
    """One file, or the shards: names within the part's folder."""
    shard_index: str | None
    """Index of the shards."""
    variant: str | None
    """What diffusers and transformers call these files, such as "fp16"; None for the plain ones."""


def stem(part: str) -> str:
    """Return what the names of a part's weight files begin with, which depends on the library that reads them."""
    if part == CLIP_FOLDER or any(part in family.text_encoders for family in FAMILIES.values()):
        return _TRANSFORMERS_STEM
    return _DIFFUSERS_STEM


def find_weights(part: str, names: Collection[str]) -> Weights | None:
    """Return the weights that are read of a part, from the names of a model's files: "unet/config.json"."""
    inside = names_in(part, names)
    start = re.escape(stem(part))
    named = re.compile(rf"{start}\.(?:safetensors\.index\.)?([A-Za-z0-9_]+)(-\d+-of-\d+)?\.(safetensors|json)")
    variants = set()
    for name in inside:
        match = named.fullmatch(name)
        if match is not None:
            variants.add(match[1])
    preferred = [variant for variant in _PREFERRED_VARIANTS if variant in variants]
    others = sorted(variants.difference(preferred))
    for variant in (None, *preferred, *others):
        weights = _of_variant(stem(part), variant, inside)
        if weights is not None:
            return weights
    return None


def _of_variant(start: str, variant: str | None, inside: Collection[str]) -> Weights | None:
    dotted = "" if variant is None else f".{variant}"
    whole = f"{start}{dotted}.safetensors"
    index = f"{start}.safetensors.index{dotted}.json"
    # Where both are there, diffusers reads the shards, and transformers the one file.
    if index in inside and (start == _DIFFUSERS_STEM or whole not in inside):
        shard = re.compile(rf"{re.escape(start + dotted)}-\d+-of-\d+\.safetensors")
        shards = [name for name in inside if shard.fullmatch(name)]
        return Weights(tuple(sorted(shards)), index, variant)
    if whole in inside:
        return Weights((whole,), None, variant)
    return None


def names_in(part: str, names: Iterable[str]) -> set[str]:
    """Return the names of the files in a part's folder, without the folder."""
    prefix = f"{part}/"
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def names_of(folder: Path) -> set[str]:
    """Return the names of everything in the folders of a model: "unet/config.json"."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}


def files_read(names: Collection[str], parts: Iterable[str] = _PARTS) -> list[str]:
    """Return the files that a run reads of these parts, from the names of all files of a model."""
    found = _weights_of(names, parts)
    found += _settings_of(names, parts)
    return found


def _weights_of(names: Collection[str], parts: Iterable[str]) -> list[str]:
    found = []
    for part in parts:
        weights = find_weights(part, names)
        if weights is not None:
            found += [f"{part}/{file}" for file in weights.files]
    return found


def _settings_of(names: Collection[str], parts: Iterable[str]) -> list[str]:
    found = []
    for part in parts:
        weights = find_weights(part, names)
        index = None if weights is None else weights.shard_index
        for name in (*_SETTINGS, index):
            if f"{part}/{name}" in names:
                found.append(f"{part}/{name}")
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of denoiser, autoencoder and text encoders."""
    parts = _family_of(folder).weight_parts
    return [folder / name for name in _weights_of(names_of(folder), parts)]


def setting_files(folder: Path) -> list[Path]:
    """Return everything beside the weights that changes what a model computes: configs, vocabulary."""
    parts = _family_of(folder).setting_parts
    return [folder / name for name in _settings_of(names_of(folder), parts)]


def model_files(folder: Path) -> list[Path]:
    """Return every file of a model that a run reads, the CLIP it is judged by too."""
    parts = (*_family_of(folder).setting_parts, CLIP_FOLDER)
    return [folder / name for name in (INDEX_FILE, *files_read(names_of(folder), parts))]


def clip_names(folder: Path) -> set[str]:
    """Return the names of the files of a CLIP in a folder of its own, as if of a model: "clip/config.json"."""
    return {f"{CLIP_FOLDER}/{path.name}" for path in folder.iterdir()}


def clip_files(folder: Path) -> list[Path]:
    """Return every file that a run reads of a CLIP in a folder of its own."""
    names = files_read(clip_names(folder), [CLIP_FOLDER])
    return [folder / name.removeprefix(f"{CLIP_FOLDER}/") for name in names]


def _family_of(folder: Path) -> Family:
    return family_in(folder / INDEX_FILE, str(folder))


def files_sha256(folder: Path, paths: Iterable[Path], hash_of: Callable[[Path], FileDigest] = hash_file) -> str:
    """Return one hash over files of `folder`: equal names and bytes, equal hash, wherever the folder lies."""
    digests: dict[str, FileDigest] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        digests[name] = hash_of(path)
    return tree_sha256(digests)


def missing_parts(family: Family, names: Collection[str]) -> list[Problem]:
    """Return what a model lacks of its family's parts, from the names of its files alone."""
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(family.weight_parts, ("config.json",))
    needed |= dict.fromkeys(family.tokenizers, TOKENIZER_FILES)
    needed["scheduler"] = ("scheduler_config.json",)
    problems = []
    for part, files in needed.items():
        inside = names_in(part, names)
        if not inside.intersection(files):
            problems.append(model_problem(f"{part}/ has no {' or '.join(files)}"))
        if part in family.weight_parts and find_weights(part, names) is None:
            problems.append(_no_weights(part, inside))
    clip = names_in(CLIP_FOLDER, names)
    if "config.json" in clip and find_weights(CLIP_FOLDER, names) is None:
        problems.append(_no_weights(CLIP_FOLDER, clip))
    return problems


def _no_weights(part: str, inside: Iterable[str]) -> Problem:
    """Return what a part has in place of weights that can be read."""
    what = f"{part}/ has no {stem(part)}.safetensors"
    for name in sorted(inside):
        if name.endswith(_PICKLES):
            what = f"{what} but {name}, a pickle, which can run code and is not read"
            return model_problem(what, "if you trust it, convert it: save_pretrained of diffusers writes safetensors")
        if name.endswith(_OTHER_WEIGHTS):
            return model_problem(f"{what} but {name}")
    return model_problem(what)


def lacks_weights(folder: Path) -> bool:
    """Return whether a model lacks the weights of any part; False when its files do not say which parts it has."""
    try:
        family = _family_of(folder)
    except ModelFileError:
        return False
    names = names_of(folder)
    return any(find_weights(part, names) is None for part in family.weight_parts)
