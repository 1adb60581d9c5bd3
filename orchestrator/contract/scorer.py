"""The CLIP that measures the figures of a job whose base model brings none: a folder of transformers' `CLIPModel`.

Figures by different scorers have different scales, so the adapter's manifest records the hash of the one that was used.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.contract.model_configs import ClipConfig
from orchestrator.contract.model_fit import Part, clip_problems
from orchestrator.contract.model_layout import (
    CLIP_FOLDER,
    FileContents,
    clip_files,
    clip_names,
    files_sha256,
    find_weights,
    read_files,
)
from orchestrator.contract.model_vocabulary import number_problems, token_problems, vocabulary_problems
from orchestrator.contract.problem import problems_of
from orchestrator.contract.safetensors_header import TensorEntry

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of a tokenizer: one of these sets."""


def require_scorer(folder: Path) -> None:
    """Raise ValueError, with the reason, unless `folder` holds a whole CLIP: configurations, tokenizer and weights.

    Only JSON and the headers of weight files are read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for name in (CONFIG_FILE, PREPROCESSOR_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; a CLIP that transformers has saved has one")
    if not any(all((folder / file).is_file() for file in files) for files in TOKENIZERS):
        raise ValueError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    contents = read_files(folder, clip_files(folder))
    objects = contents.objects
    for name, error in contents.damaged.items():
        raise ValueError(f"{folder / name} {error.what}; {error.fix}") from error
    _require_tokenizer(folder, contents)
    kind = objects[CONFIG_FILE].get("model_type")
    if kind != "clip":
        raise ValueError(f'{folder} holds a model of the type "{kind}"; figures are measured by one of the type "clip"')
    weights = find_weights(CLIP_FOLDER, clip_names(folder))
    if weights is None:
        raise ValueError(f"{folder} has no weights in the safetensors format")
    if weights.shard_index is not None:
        _require_shards(folder, weights.shard_index, weights.files, contents)
    _require_fit(folder, contents)


def _require_shards(folder: Path, index: str, found: Sequence[str], contents: FileContents) -> None:
    """Raise ValueError unless all shards of the weights are there."""
    listed = contents.objects[index].get("weight_map")
    files = listed.values() if isinstance(listed, dict) else ()
    shards = {file for file in files if isinstance(file, str)}
    missing = sorted(shards.difference(found))
    if missing or not shards:
        absent = ", ".join(missing) or "all of them"
        raise ValueError(f"{folder} lacks weights that {index} should list and name: {absent}")


def _require_fit(folder: Path, contents: FileContents) -> None:
    """Raise ValueError unless weights and tokenizer are those of the configuration."""
    path = folder / CONFIG_FILE
    try:
        config = ClipConfig.model_validate(contents.objects[CONFIG_FILE])
    except ValidationError as error:
        (first, *_) = problems_of(error)
        raise ValueError(f"{path}: {first.where} {first.what}") from error
    tensors: dict[str, TensorEntry] = {}
    for header in contents.headers.values():
        tensors |= header
    name = str(folder)
    problems = list(clip_problems(Part(name, config, tensors)))
    objects = {f"{name}/{file}": values for file, values in contents.objects.items()}
    problems += number_problems(name, objects, Part(name, config.text_config, None))
    for problem in problems:
        raise ValueError(f"{problem.what}; {problem.fix}")


def _require_tokenizer(folder: Path, contents: FileContents) -> None:
    """Raise ValueError for a tokenizer that cannot be read."""
    part = str(folder)
    objects = {f"{part}/{name}": values for name, values in contents.objects.items()}
    texts = {f"{part}/{name}": text for name, text in contents.texts.items()}
    problems = [*vocabulary_problems(part, objects, texts), *token_problems(part, objects)]
    for problem in problems:
        raise ValueError(f"{problem.what}; {problem.fix}")


def scorer_sha256(folder: Path) -> str:
    """Return one hash over the files of a scorer: equal files, equal hash, wherever they lie."""
    return files_sha256(folder, clip_files(folder))
