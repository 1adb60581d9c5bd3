"""An adapter as the server draws with it: weights for slots, a learned word, or both, read from a checked folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from safetensors.torch import load_file
from torch import Tensor, nn

from entrypoints.adapters.controls import load_network
from entrypoints.adapters.embedding import embedding_keys
from entrypoints.adapters.loading import require_own_base, require_whole
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.converted import read_lora, read_peft
from entrypoints.serving.low_rank_file import KIND, LowRankWeights
from entrypoints.serving.texts import ServedWord
from orchestrator.contract.adapter import (
    CONTROLNET,
    EMBEDDING,
    EMBEDDINGS_FILE,
    LORA,
    LORA_FILE,
    PEFT,
    PIVOTAL,
    AdapterManifest,
)
from orchestrator.contract.control_fit import control_misfit
from orchestrator.contract.model_file import ModelFileError


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter in main memory; nothing changes it."""

    key: str
    """Of all that it was made of: adapters of one key draw the same."""
    sha256: str
    """Of its files."""
    weights: LowRankWeights | None
    """For the slots; None for a word alone."""
    word: ServedWord | None
    """The word that it has learned, if any."""
    network: nn.Module | None = None
    """A ControlNet, on the device of the base model."""
    has_strength: bool = True
    """Whether it can act more or less than it was trained to."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        total = self.weights.size if self.weights is not None else 0
        if self.word is not None:
            total += sum(rows.nbytes for rows in self.word.rows.values())
        if self.network is not None:
            total += sum(parameter.nbytes for parameter in self.network.parameters())
        return total


def read_adapter(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
) -> ServedAdapter:
    """Read an adapter whose manifest is known.

    Raises TrainingError("adapter") when files are missing or changed, when it belongs to another base model, or when it
    is of a kind that cannot be drawn with beside others.
    """
    if manifest.kind == CONTROLNET:  # works beside relatives of its base model, too
        require_whole(folder, manifest)
    else:
        require_own_base(base, folder, manifest)
    key = key_of(manifest)
    sha256 = manifest.files_sha256
    if manifest.kind == CONTROLNET:
        network = read_network(base, folder, manifest)
        return ServedAdapter(key, sha256, None, None, network)
    weights = None
    word = None
    has_strength = False  # of a word alone
    if manifest.kind in (LORA, PIVOTAL):
        weights, has_strength = read_lora(base, folder / LORA_FILE)
    if manifest.kind == PEFT:
        weights, has_strength = read_peft(base, folder, manifest)
    if manifest.kind in (EMBEDDING, PIVOTAL):
        word = read_word(base, folder, manifest)
    if weights is None and word is None:
        refuse(manifest)
    return ServedAdapter(key, sha256, weights, word, None, has_strength)


def key_of(manifest: AdapterManifest) -> str:
    """Return the key of an adapter: its files, and what its manifest says of how they are read."""
    read_as = [
        manifest.files_sha256,
        manifest.kind,
        manifest.learned_word,
        manifest.base_model.fingerprint,
        *manifest.parts,
    ]
    text = json.dumps(read_as)
    return hashlib.sha256(text.encode()).hexdigest()


def read_network(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
) -> nn.Module:
    """Return a ControlNet; raises TrainingError("adapter") for one that does not fit the base model."""
    try:
        misfit = control_misfit(folder, base.folder)
    except ModelFileError as error:
        misfit = f"cannot be read: its config.json {error.what}"
    if misfit is not None:
        message = f"The ControlNet {misfit}."
        raise TrainingError(
            KIND,
            message,
            "name a ControlNet that was made for this base model",
        )
    return load_network(base, manifest.title, folder)


def refuse(manifest: AdapterManifest) -> NoReturn:
    """Raise TrainingError("adapter") for a kind that is no sum of low rank."""
    raise TrainingError(
        KIND,
        f'An adapter of the kind "{manifest.kind}" changes more than slots of low rank can hold.',
        "train it with tuner=lora, or draw with it by adapters draw",
    )


def read_word(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
) -> ServedWord:
    """Return the word of an adapter, with its rows in each text encoder.

    Raises TrainingError("adapter") unless the rows are as wide as the encoders' and are numbers.
    """
    word = str(manifest.learned_word)
    tensors = load_file(folder / EMBEDDINGS_FILE)
    rows: dict[str, Tensor] = {}
    for part, key in embedding_keys(base, word).items():
        if key not in tensors:
            raise TrainingError(
                KIND,
                f"{EMBEDDINGS_FILE} has no rows for {part}.",
                "fetch the adapter again",
            )
        rows[part] = tensors[key].float()
    require_rows(base, rows)
    return ServedWord(word, manifest.files_sha256, rows)


def require_rows(base: BaseModel, rows: Mapping[str, Tensor]) -> None:
    """Raise TrainingError("adapter") unless rows fit the text encoders and are numbers, as many in each of them."""
    counts = {len(of_part) for of_part in rows.values() if of_part.ndim}
    most = min(encoder.config.max_position_embeddings for encoder in base.text_encoders.values())
    if len(counts) > 1 or not 0 < max(counts, default=0) <= most:
        raise TrainingError(
            KIND,
            f"Its word has {sorted(counts)} vectors; text encoders read from 1 to {most}, as many in each.",
            "train it with fewer vectors",
        )
    for part, of_part in rows.items():
        width = base.text_encoders[part].get_input_embeddings().weight.shape[1]
        if of_part.ndim != 2 or of_part.shape[1] != width:  # noqa: PLR2004 - vectors and width
            raise TrainingError(
                KIND,
                f"Its word has rows of another width than {part}.",
                "name its own base model",
            )
        if not of_part.isfinite().all():
            raise TrainingError(
                KIND,
                "Its word holds NaN or infinity.",
                "train it again",
            )
