"""The CLIP that measures the figures of a job whose base model brings none: a folder of transformers' `CLIPModel`.

Figures by different scorers have different scales, so the adapter's manifest records the hash of the one that was used.
"""

import json
from pathlib import Path
from typing import Any

from orchestrator.contract.families import files_sha256, part_files, weights_in

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of a tokenizer: one of these sets."""
_LENGTH_BYTES = 8


def require_scorer(folder: Path) -> None:
    """Raise ValueError, with the reason, unless `folder` holds a whole CLIP: configurations, tokenizer and weights.

    Only JSON and the headers of weight files are read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for name in (CONFIG_FILE, PREPROCESSOR_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; a CLIP that transformers has saved has one")
    kind = _read_object(folder / CONFIG_FILE).get("model_type")
    if kind != "clip":
        raise ValueError(f'{folder} holds a model of the type "{kind}"; figures are measured by one of the type "clip"')
    _read_object(folder / PREPROCESSOR_FILE)
    if not any(all((folder / file).is_file() for file in files) for files in TOKENIZERS):
        raise ValueError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    _require_weights(folder)


def scorer_sha256(folder: Path) -> str:
    """Return one hash over the files of a scorer: equal files, equal hash, wherever they lie."""
    return files_sha256(folder, part_files(folder))


def _require_weights(folder: Path) -> None:
    weights = weights_in(folder)
    if not weights:
        raise ValueError(f"{folder} has no weights in the safetensors format")
    index = folder / INDEX_FILE
    if index.is_file():
        shards = set(_read_object(index).get("weight_map", {}).values())
        missing = sorted(shards - {path.name for path in weights})
        if missing:
            raise ValueError(f"{folder} lacks weights that its index names: {', '.join(missing)}")
    for path in weights:
        _require_whole(path)


def _require_whole(path: Path) -> None:
    """Raise ValueError for a file that is cut off, or whose content is elsewhere (a git-LFS pointer)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = file.read(length) if length < size else b""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        expected = _LENGTH_BYTES + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is no safetensors file; was its download finished (git lfs pull)?") from error
    if size != expected:
        raise ValueError(f"{path} is damaged: {size} bytes instead of {expected}; fetch it again")


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; raises ValueError for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object")  # noqa: TRY004 - what a file holds, not what was passed
    return content
