"""The CLIP that measures the figures of a job whose base model brings none: a folder of transformers' `CLIPModel`.

Figures by different scorers have different scales, so the adapter's manifest records the hash of the one that was used.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

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
from orchestrator.contract.model_vocabulary import embedding_problems, token_problems, tokenizer_problems
from orchestrator.contract.problem import Problem, problems_of
from orchestrator.contract.safetensors_header import TensorEntry

_ContentT = TypeVar("_ContentT")

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
)
"""Files of a tokenizer: one of these sets."""


def require_scorer(folder: Path) -> None:
    """Raise ValueError, with the reason, unless `folder` holds a whole CLIP: configurations, tokenizer and weights.

    Only JSON and the headers of weight files are read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for name in (CONFIG_FILE, PREPROCESSOR_FILE):
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{folder} has no {name}; a CLIP that transformers has saved has one")
    if not _has_tokenizer(folder):
        raise ValueError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    contents = read_files(folder, clip_files(folder))
    for name, error in contents.damaged.items():
        path = folder / name
        raise ValueError(f"{path} {error.what}; {error.fix}") from error
    _require_tokenizer(folder, contents)
    config = contents.objects[CONFIG_FILE]
    kind = config.get("model_type")
    if kind != "clip":
        raise ValueError(f'{folder} holds a model of the type "{kind}"; figures are measured by one of the type "clip"')
    weights = find_weights(CLIP_FOLDER, clip_names(folder))
    if weights is None:
        raise ValueError(f"{folder} has no weights in the safetensors format")
    if weights.shard_index is not None:
        _require_shards(folder, weights.shard_index, weights.files, contents)
    _require_fit(folder, contents)


def _has_tokenizer(folder: Path) -> bool:
    """Return whether one of the sets of files is there."""
    present = {path.name for path in folder.iterdir() if path.is_file()}
    return any(present.issuperset(names) for names in TOKENIZERS)


def _require_shards(folder: Path, index: str, found: Sequence[str], contents: FileContents) -> None:
    """Raise ValueError unless all shards of the weights are there.

    `index` is the file that lists them, and `found` are the names of those in the folder.
    """
    shards: set[str] = set()
    listed = contents.objects[index].get("weight_map")
    if isinstance(listed, dict):
        shards.update(file for file in listed.values() if isinstance(file, str))
    missing = sorted(shards.difference(found))
    if missing or not shards:
        absent = ", ".join(missing) or "all of them"
        raise ValueError(f"{folder} lacks weights that {index} should list and name: {absent}")


def _require_fit(folder: Path, contents: FileContents) -> None:
    """Raise ValueError unless weights and tokenizer are those of the configuration."""
    path = folder / CONFIG_FILE
    read = contents.objects[CONFIG_FILE]
    try:
        config = ClipConfig.model_validate(read)
    except ValidationError as error:
        first, *_ = problems_of(error, whole="")
        what = f"{first.where} {first.what}".strip()
        raise ValueError(f"{path}: {what}") from error
    tensors: dict[str, TensorEntry] = {}
    for header in contents.headers.values():
        tensors |= header
    name = str(folder)
    clip = Part(name, config, tensors)
    text_encoder = Part(name, config.text_config, None)
    objects = _inside(name, contents.objects)
    _require_none(clip_problems(clip))
    _require_none(embedding_problems(name, objects, text_encoder))


def _require_tokenizer(folder: Path, contents: FileContents) -> None:
    """Raise ValueError for a tokenizer that cannot be read."""
    part = str(folder)
    objects = _inside(part, contents.objects)
    texts = _inside(part, contents.texts)
    _require_none(tokenizer_problems(part, objects, texts))
    _require_none(token_problems(part, objects))


def _inside(part: str, files: Mapping[str, _ContentT]) -> dict[str, _ContentT]:
    """Return what files hold, by names as those of a model's part: with its folder before them."""
    return {f"{part}/{name}": content for name, content in files.items()}


def _require_none(problems: Iterable[Problem]) -> None:
    """Raise ValueError for the first problem, if there is one."""
    for problem in problems:
        raise ValueError(f"{problem.what}; {problem.fix}")


def scorer_sha256(folder: Path) -> str:
    """Return one hash over the files of a scorer: equal files, equal hash, wherever they lie."""
    return files_sha256(folder, clip_files(folder))
