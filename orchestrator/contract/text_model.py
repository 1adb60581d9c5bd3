"""A text model in a folder, as transformers saves it: the one that compares a judge's words with a prompt."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.contract.model_file import ModelFileError, read_object
from orchestrator.contract.safetensors_header import read_header

CONFIG_FILE = "config.json"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
"""Files of tokenizers, one of which a model has."""
_SETTINGS = (
    CONFIG_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *_TOKENIZERS,
)
_INDEX = "model.safetensors.index.json"


def text_model_files(folder: Path) -> Sequence[Path]:
    """Return the files that are read of a model: settings, tokenizer, and weights as safetensors."""
    files = []
    for name in (*_SETTINGS, _INDEX):
        path = folder / name
        if path.is_file():
            files.append(path)
    weights = folder.glob("*.safetensors")
    return [*files, *sorted(weights)]


def require_text_model(folder: Path) -> None:
    """Raise ValueError, with the reason, unless a folder holds a model; only JSON and headers are read."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    files = text_model_files(folder)
    names = {path.name for path in files}
    if CONFIG_FILE not in names:
        raise ValueError(f"{folder} has no {CONFIG_FILE}; a model that transformers has saved has one")
    if not names.intersection(_TOKENIZERS):
        raise ValueError(f"{folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}")
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights:
        raise ValueError(f"{folder} has no weights in the safetensors format")
    path = folder / CONFIG_FILE
    try:
        read_object(path)
        for path in weights:
            read_header(path)
    except ModelFileError as error:
        raise ValueError(f"{path} {error.what}") from error
    _require_shards(folder, names)


def _require_shards(folder: Path, names: set[str]) -> None:
    """Raise ValueError unless the shards that an index lists are there."""
    if _INDEX not in names:
        return
    listed = read_object(folder / _INDEX).get("weight_map")
    if not isinstance(listed, dict):
        raise ValueError(f"{folder / _INDEX} lists no weights")  # noqa: TRY004
    missing = sorted({str(file) for file in listed.values()} - names)
    if missing:
        raise ValueError(f"{folder} lacks weights that {_INDEX} lists: {', '.join(missing)}")
