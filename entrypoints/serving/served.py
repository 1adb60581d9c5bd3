"""An adapter as the server draws with it: weights for slots, a learned word, or both, read from a checked folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from safetensors.torch import load_file
from torch import Tensor

from entrypoints.adapters.embedding import embedding_keys
from entrypoints.adapters.loading import require_own_base
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.low_rank_file import KIND, LowRankWeights, read_low_rank
from entrypoints.serving.texts import ServedWord
from orchestrator.contract.adapter import (
    EMBEDDING,
    EMBEDDINGS_FILE,
    LORA,
    LORA_FILE,
    PIVOTAL,
    AdapterManifest,
)


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter in main memory; nothing changes it."""

    sha256: str
    """Of its files."""
    weights: LowRankWeights | None
    """For the slots; None for a word alone."""
    word: ServedWord | None
    """The word that it has learned, if any."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        total = self.weights.size if self.weights is not None else 0
        if self.word is not None:
            total += sum(rows.nbytes for rows in self.word.rows.values())
        return total


def read_adapter(base: BaseModel, folder: Path, manifest: AdapterManifest) -> ServedAdapter:
    """Read an adapter whose manifest is known.

    Raises TrainingError("adapter") when files are missing or changed, when it belongs to another base model, or when it
    is of a kind that cannot be drawn with beside others.
    """
    require_own_base(base, folder, manifest)
    weights = None
    word = None
    if manifest.kind in (LORA, PIVOTAL):
        weights = read_low_rank(base, folder / LORA_FILE)
    if manifest.kind in (EMBEDDING, PIVOTAL):
        word = read_word(base, folder, manifest)
    if weights is None and word is None:
        refuse(manifest)
    return ServedAdapter(manifest.files_sha256, weights, word)


def refuse(manifest: AdapterManifest) -> NoReturn:
    """Raise TrainingError("adapter") for a kind that is no sum of low rank."""
    raise TrainingError(
        KIND,
        f'An adapter of the kind "{manifest.kind}" changes more than slots of low rank can hold.',
        "train it with tuner=lora, or draw with it by adapters draw",
    )


def read_word(base: BaseModel, folder: Path, manifest: AdapterManifest) -> ServedWord:
    """Return the word of an adapter, with its rows in each text encoder.

    Raises TrainingError("adapter") unless the rows are as wide as the encoders' and are numbers.
    """
    word = str(manifest.learned_word)
    tensors = load_file(folder / EMBEDDINGS_FILE)
    rows: dict[str, Tensor] = {}
    for part, key in embedding_keys(base, word).items():
        if key not in tensors:
            raise TrainingError(KIND, f"{EMBEDDINGS_FILE} has no rows for {part}.", "fetch the adapter again")
        rows[part] = tensors[key].float()
    require_rows(base, rows)
    return ServedWord(word, manifest.files_sha256, rows)


def require_rows(base: BaseModel, rows: Mapping[str, Tensor]) -> None:
    """Raise TrainingError("adapter") unless rows fit the text encoders and are numbers."""
    for part, of_part in rows.items():
        width = base.text_encoders[part].get_input_embeddings().weight.shape[1]
        if of_part.ndim != 2 or of_part.shape[1] != width:  # noqa: PLR2004 - vectors and width
            raise TrainingError(KIND, f"Its word has rows of another width than {part}.", "name its own base model")
        if not of_part.isfinite().all():
            raise TrainingError(KIND, "Its word holds NaN or infinity.", "train it again")
