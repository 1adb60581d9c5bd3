"""The files of the diffusers layout that make a model: which of them a run reads, in a folder and on the Hub.

The weights of a part are one file, or several shards with an index. They may be there in several variants, such as
"model.fp16.safetensors": the plain ones are read where they exist, else one of the variants.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256
from orchestrator.contract.families import FAMILIES, INDEX_FILE, Family, family_in
from orchestrator.contract.model_file import ModelFileError, model_problem, read_object, read_text
from orchestrator.contract.problem import Problem
from orchestrator.contract.safetensors_header import Header, read_header

CLIP_FOLDER = "clip"
SAFETY_CHECKER = "safety_checker"
FEATURE_EXTRACTOR = "feature_extractor"
"""Of the safety checker; a server alone reads the two."""
TOKENIZER_FILES = ("vocab.json", "tokenizer.json")
"""A tokenizer has one of them."""
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "scheduler_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What diffusers and transformers read of a part: notes and whatever else lies beside them stay where they are."""
_PREFERRED_VARIANTS = ("fp32", "fp16", "bf16")
"""Variants that are read rather than others, the most exact first."""
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_OTHER_WEIGHTS = (".safetensors", ".msgpack", ".onnx", ".gguf")
_DIFFUSERS_STEM = "diffusion_pytorch_model"
_TRANSFORMERS_STEM = "model"


Names = Collection[str]
"""Names of a model's files: "unet/config.json"."""


class FileContents(NamedTuple):
    """What some files of a model hold, as far as they can be read, by their names within its folder."""

    objects: Mapping[str, dict[str, Any]]
    """JSON file to what it holds."""
    headers: Mapping[str, Header]
    """Weight file to its tensors."""
    texts: Mapping[str, str]
    """Any other file to its text."""
    damaged: Mapping[str, ModelFileError]
    """File to why it cannot be used."""


def read_files(folder: Path, files: Iterable[Path]) -> FileContents:
    """Read files of a model in `folder`: JSON, the headers of weights, and the text of others."""
    objects = {}
    headers = {}
    texts = {}
    damaged = {}
    for path in files:
        relative = path.relative_to(folder)
        name = relative.as_posix()
        try:
            if path.suffix == ".json":
                objects[name] = read_object(path)
            elif path.suffix == ".safetensors":
                headers[name] = read_header(path)
            else:
                texts[name] = read_text(path)
        except ModelFileError as error:
            damaged[name] = error
    return FileContents(objects, headers, texts, damaged)


def _all_parts() -> tuple[str, ...]:
    """Return the parts of all families, each once."""
    parts: list[str] = []
    for family in FAMILIES.values():
        for part in family.setting_parts:
            if part not in parts:
                parts.append(part)
    return (*parts, CLIP_FOLDER)


_PARTS = _all_parts()
"""Folders that a model of any family may have."""


def _hub_files() -> tuple[str, ...]:
    """Return the patterns of what is fetched, of every part that a family may have."""
    fetched = (*_SETTINGS, "*.safetensors", "*.safetensors.index*.json")
    patterns = [INDEX_FILE]
    for part in _PARTS:
        for name in fetched:
            patterns.append(f"{part}/{name}")
    return tuple(patterns)


HUB_FILES = _hub_files()
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


def weights_file(part: str) -> str:
    """Return the name of a part's plain weights in one file."""
    return f"{_stem(part)}.safetensors"


def _stem(part: str) -> str:
    """Return what the names of a part's weight files begin with, which depends on the library that reads them."""
    if part in (CLIP_FOLDER, SAFETY_CHECKER):
        return _TRANSFORMERS_STEM
    for family in FAMILIES.values():
        if part in family.text_encoders:
            return _TRANSFORMERS_STEM
    return _DIFFUSERS_STEM


def find_weights(part: str, names: Names) -> Weights | None:
    """Return the weights that are read of a part, from the names of all files of a model."""
    stem = _stem(part)
    inside = names_in(part, names)
    plain = _of_variant(stem, None, inside)
    if plain is not None:
        return plain
    for variant in _variants(stem, inside):
        weights = _of_variant(stem, variant, inside)
        if weights is not None:
            return weights
    return None


def _variants(stem: str, inside: Names) -> list[str]:
    """Return the variants that file names speak of, those that are read rather than others first."""
    index = r"safetensors\.index\."
    shard = r"-\d+-of-\d+"
    pattern = rf"{stem}\.(?:{index})?([A-Za-z0-9_]+)(?:{shard})?\.(?:safetensors|json)"
    found = set()
    for name in inside:
        match = re.fullmatch(pattern, name)
        if match is not None:
            found.add(match[1])
    preferred = [variant for variant in _PREFERRED_VARIANTS if variant in found]
    others = sorted(found.difference(preferred))
    return preferred + others


def _of_variant(stem: str, variant: str | None, inside: Names) -> Weights | None:
    """Return a part's weights in one variant, or the plain ones for None; None where there are none."""
    dotted = ""
    if variant is not None:
        dotted = f".{variant}"
    whole = f"{stem}{dotted}.safetensors"
    index = f"{stem}.safetensors.index{dotted}.json"
    # Where both are there, diffusers reads the shards, and transformers the one file.
    takes_shards = index in inside
    if whole in inside and stem == _TRANSFORMERS_STEM:
        takes_shards = False
    if not takes_shards:
        if whole not in inside:
            return None
        return Weights((whole,), None, variant)
    start = re.escape(stem + dotted)
    shard = re.compile(rf"{start}-\d+-of-\d+\.safetensors")
    shards = sorted(name for name in inside if shard.fullmatch(name))
    return Weights(tuple(shards), index, variant)


def variant_to_name(folder: Path) -> str | None:
    """Return the variant that diffusers has to be told to load a model: that of the first part without plain weights.

    Of parts that lack the variant, diffusers reads the plain weights. None where all parts have those.
    """
    try:
        family = _family_of(folder)
    except ModelFileError:
        return None
    names = names_of(folder)
    for part in family.weight_parts:
        weights = find_weights(part, names)
        if weights is not None and weights.variant is not None:
            return weights.variant
    return None


def names_in(part: str, names: Iterable[str]) -> set[str]:
    """Return the names of the files in a part's folder, without the folder."""
    prefix = f"{part}/"
    inside = set()
    for name in names:
        if name.startswith(prefix):
            inside.add(name.removeprefix(prefix))
    return inside


def names_of(folder: Path) -> set[str]:
    """Return the names of everything in the folders of a model: "unet/config.json"."""
    names = set()
    for path in folder.glob("*/*"):
        relative = path.relative_to(folder)
        names.add(relative.as_posix())
    return names


def files_read(names: Names, parts: Iterable[str] = _PARTS) -> list[str]:
    """Return the files that a run reads of these parts, from the names of all files of a model."""
    found = _weights_of(names, parts)
    found += _settings_of(names, parts)
    return found


def _weights_of(names: Names, parts: Iterable[str]) -> list[str]:
    """Return the weight files that are read of these parts."""
    found = []
    for part in parts:
        weights = find_weights(part, names)
        if weights is None:
            continue
        for file in weights.files:
            found.append(f"{part}/{file}")
    return found


def _settings_of(names: Names, parts: Iterable[str]) -> list[str]:
    """Return the files beside the weights that are read of these parts, the index of shards among them."""
    found = []
    for part in parts:
        files = list(_SETTINGS)
        weights = find_weights(part, names)
        if weights is not None and weights.shard_index is not None:
            files.append(weights.shard_index)
        for file in files:
            name = f"{part}/{file}"
            if name in names:
                found.append(name)
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of denoiser, autoencoder and text encoders."""
    family = _family_of(folder)
    found = _weights_of(names_of(folder), family.weight_parts)
    return [folder / name for name in found]


def setting_files(folder: Path) -> list[Path]:
    """Return everything beside the weights that changes what a model computes: configs, vocabulary."""
    family = _family_of(folder)
    found = _settings_of(names_of(folder), family.setting_parts)
    return [folder / name for name in found]


def model_files(folder: Path) -> list[Path]:
    """Return every file of a model that a run reads, the CLIP it is judged by too."""
    family = _family_of(folder)
    parts = (*family.setting_parts, CLIP_FOLDER)
    found = files_read(names_of(folder), parts)
    return [folder / name for name in (INDEX_FILE, *found)]


def checker_files(folder: Path) -> list[Path]:
    """Return the files that a server reads of a model's safety checker; none when it has no weights as safetensors."""
    names = names_of(folder)
    if find_weights(SAFETY_CHECKER, names) is None:
        return []
    found = files_read(names, (SAFETY_CHECKER, FEATURE_EXTRACTOR))
    return [folder / name for name in found]


def clip_names(folder: Path) -> set[str]:
    """Return the names of the files of a CLIP in a folder of its own, as if of a model: "clip/config.json"."""
    return {f"{CLIP_FOLDER}/{path.name}" for path in folder.iterdir()}


def clip_files(folder: Path) -> list[Path]:
    """Return every file that a run reads of a CLIP in a folder of its own."""
    prefix = f"{CLIP_FOLDER}/"
    found = []
    for name in files_read(clip_names(folder), [CLIP_FOLDER]):
        found.append(folder / name.removeprefix(prefix))
    return found


def _family_of(folder: Path) -> Family:
    """Return the family of a model; raises ModelFileError when its index does not tell."""
    index = folder / INDEX_FILE
    return family_in(index, str(folder))


def files_sha256(
    folder: Path,
    paths: Iterable[Path],
    hash_of: Callable[[Path], FileDigest] = hash_file,
) -> str:
    """Return one hash over files of `folder`: equal names and bytes, equal hash, wherever the folder lies."""
    digests: dict[str, FileDigest] = {}
    for path in paths:
        relative = path.relative_to(folder)
        digests[relative.as_posix()] = hash_of(path)
    return tree_sha256(digests)


def missing_parts(family: Family, names: Names) -> list[Problem]:
    """Return what a model lacks of its family's parts, from the names of its files alone."""
    problems = []
    for part in family.weight_parts:
        inside = names_in(part, names)
        if "config.json" not in inside:
            problems.append(model_problem(f"{part}/ has no config.json"))
        if find_weights(part, names) is None:
            problems.append(_no_weights(part, inside))
    for part in family.tokenizers:
        inside = names_in(part, names)
        if not inside.intersection(TOKENIZER_FILES):
            choice = " or ".join(TOKENIZER_FILES)
            problems.append(model_problem(f"{part}/ has no {choice}"))
    if "scheduler/scheduler_config.json" not in names:
        problems.append(model_problem("scheduler/ has no scheduler_config.json"))
    clip = names_in(CLIP_FOLDER, names)
    if "config.json" in clip and find_weights(CLIP_FOLDER, names) is None:
        problems.append(_no_weights(CLIP_FOLDER, clip))
    return problems


def _no_weights(part: str, inside: Iterable[str]) -> Problem:
    """Return what a part has in place of weights that can be read."""
    what = f"{part}/ has no {weights_file(part)}"
    for name in sorted(inside):
        if name.endswith(_PICKLES):
            what = f"{what} but {name}, a pickle, which can run code and is not read"
            fix = "if you trust it, convert it: save_pretrained of diffusers writes safetensors"
            return model_problem(what, fix)
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
