"""Textual inversion's adapter: the embedding rows of one new word in each text encoder (arXiv 2208.01618)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import EMBEDDINGS_FILE, AdapterManifest

KIND = "embedding"


class NewRows(nn.Module):
    """A token embedding whose last rows are parameters of their own, so that nothing can change the others."""

    def __init__(self, known: nn.Embedding, first_id: int, rows: Tensor) -> None:
        super().__init__()
        self.known = known
        self.first_id = first_id
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        """The known rows: what the model's code asks about device and width."""
        return self.known.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids: (batch, tokens) to (batch, tokens, width)."""
        fresh = ids >= self.first_id
        vectors = self.known(ids.masked_fill(fresh, 0))
        added = nn.functional.embedding((ids - self.first_id).clamp(min=0), self.rows)
        return torch.where(fresh.unsqueeze(-1), added, vectors)


class Embedding:
    """The embedding rows of one new word."""

    kind = KIND
    trains_text_encoder = True  # its input; its weights stay

    def __init__(self, base: BaseModel, *, placeholder: str, initializer: str, vectors: int) -> None:
        self.keys = embedding_keys(base, placeholder)
        self.parts = base.family.text_encoders
        self.rows: dict[str, nn.Parameter] = {}
        for (part, encoder), tokenizer in zip(base.text_encoders.items(), base.tokenizers, strict=True):
            known = encoder.get_input_embeddings()
            start = known.weight[single_token(tokenizer, initializer)].detach().clone().repeat(vectors, 1)
            first_id = add_word(base, tokenizer, placeholder, vectors)
            embedding = NewRows(known, first_id, start)
            encoder.set_input_embeddings(embedding)
            self.rows[part] = embedding.rows
        self.parameters = {f"{part}.rows": rows for part, rows in self.rows.items()}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `learned_embeds.safetensors`: the word's rows in each text encoder, (vectors, width)."""
        tensors = {self.keys[part]: rows for part, rows in self.rows.items()}
        save_weights(tensors, folder / EMBEDDINGS_FILE, header)


def embedding_keys(base: BaseModel, placeholder: str) -> dict[str, str]:
    """Return the key of each text encoder's rows in the file: the family's, or the word itself."""
    keys = {}
    for part in base.family.text_encoders:
        keys[part] = base.family.embedding_keys.get(part, placeholder)
    return keys


def load(base: BaseModel, folder: Path, manifest: AdapterManifest, weight: float) -> None:
    """Add the word to the tokenizers and its rows to the text encoders; raises ValueError for a weight but 1."""
    if weight != 1:
        raise ValueError(f"a learned word has no weight; it was given {weight:g}")
    placeholder = str(manifest.trigger)
    rows = load_file(folder / EMBEDDINGS_FILE)
    keys = embedding_keys(base, placeholder)
    for (part, encoder), tokenizer in zip(base.text_encoders.items(), base.tokenizers, strict=True):
        base.pipeline.load_textual_inversion(
            rows[keys[part]], token=placeholder, text_encoder=encoder, tokenizer=tokenizer
        )


def single_token(tokenizer: CLIPTokenizer, word: str) -> int:
    """Return the id of a word that is one token; raises TrainingError("token")."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        pieces = " ".join(tokenizer.convert_ids_to_tokens(ids))
        raise TrainingError(
            "token",
            f'The initializer "{word}" is {len(ids)} tokens of this model ({pieces}); it must be one.',
            "Choose a plain word near to the subject, for example initializer_token=toy.",
        )
    return int(ids[0])


def add_word(base: BaseModel, tokenizer: CLIPTokenizer, placeholder: str, vectors: int) -> int:
    """Add the tokens "<x>", "<x>_1", ... to a tokenizer, as diffusers does, and return the first id."""
    words = [placeholder, *(f"{placeholder}_{number}" for number in range(1, vectors))]
    vocabulary = tokenizer.get_vocab()
    taken = [word for word in words if {word, word.lower(), f"{word.lower()}</w>"} & vocabulary.keys()]
    if taken:
        raise TrainingError(
            "token",
            f'The placeholder "{taken[0]}" is in the vocabulary of this model already.',
            f'Choose a new word, for example placeholder_token="<my-{taken[0].strip("<>")}>".',
        )
    tokenizer.add_tokens(words)
    _require_reading(base, tokenizer, placeholder, words)
    return int(tokenizer.convert_tokens_to_ids(placeholder))


def _require_reading(base: BaseModel, tokenizer: CLIPTokenizer, placeholder: str, words: list[str]) -> None:
    """Raise TrainingError("token") unless a prompt with the placeholder is read as exactly the new tokens."""
    prompt = base.pipeline.maybe_convert_prompt(placeholder, tokenizer)
    read = tokenizer(prompt, add_special_tokens=False).input_ids
    if read != tokenizer.convert_tokens_to_ids(words):
        raise TrainingError(
            "token",
            f'This model does not read "{placeholder}" as a word of its own.',
            f'Write it in lower case and angle brackets: placeholder_token="<{placeholder.strip("<>").lower()}>".',
        )
