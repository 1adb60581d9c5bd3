"""Textual inversion's adapter: the embedding rows of one new word in each text encoder (arXiv 2208.01618).

A word may have several rows ("vectors"). Its tokens are then "<x>", "<x>_1", "<x>_2", ..., and a prompt with "<x>" is
read as all of them in this order. This is what diffusers does with a learned word, so our files load there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from entrypoints.adapters.weights import save_weights
from entrypoints.models.base import BaseModel
from entrypoints.models.tokens import LoadedTokenizer
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import EMBEDDING, EMBEDDINGS_FILE, AdapterManifest
from orchestrator.contract.new_words import initializer_fault, placeholder_fault, placeholder_tokens


class NewRows(nn.Module):
    """A token embedding whose last rows are those of a new word: trained ones, and behind them those that are held.

    In a single table, weight decay would move the known rows as well, although their gradients are zero.
    """

    held: Tensor
    """(held, width)."""

    def __init__(self, known: nn.Embedding, first_id: int, rows: Tensor, held: Tensor) -> None:
        super().__init__()
        self.known = known
        self.first_id = first_id
        self.rows = nn.Parameter(rows)
        self.register_buffer("held", held, persistent=False)

    def word(self) -> Tensor:
        """Return all rows of the new word: (vectors, width)."""
        return torch.cat([self.rows, self.held])

    @property
    def weight(self) -> Tensor:
        """The known rows: transformers and diffusers read device, dtype and width from here."""
        return self.known.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids: (batch, tokens) to (batch, tokens, width)."""
        is_new = ids >= self.first_id
        # Both tables are looked up at every place, with an id that is valid in each; `where` keeps the right row.
        known_ids = ids.masked_fill(is_new, 0)
        known = self.known(known_ids)
        new_ids = (ids - self.first_id).clamp(min=0)
        new = nn.functional.embedding(new_ids, self.word())
        return torch.where(is_new.unsqueeze(-1), new, known)


class Embedding:
    """The embedding rows of one new word.

    They start as copies of the row of the initializer, a known word for what is to be learned (sec. 3). With
    `hold_initializer`, the last of them stays that copy.
    """

    kind = EMBEDDING
    trains_text_encoder = True  # its input; its weights stay

    def __init__(
        self,
        base: BaseModel,
        *,
        placeholder: str,
        initializer: str,
        vectors: int,
        hold_initializer: bool = False,
    ) -> None:
        self.base = base
        self.known_tokenizers = [deepcopy(tokenizer) for tokenizer in base.tokenizers]
        self.keys = embedding_keys(base, placeholder)
        self.parts = base.family.text_encoders
        self.embeddings: dict[str, NewRows] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        encoders = base.text_encoders.items()
        for (part, encoder), tokenizer in zip(encoders, base.tokenizers, strict=True):
            known = encoder.get_input_embeddings()
            reader = LoadedTokenizer(tokenizer)
            require_initializer(reader, initializer)
            known_id = reader.read(initializer)[0].id
            known_row = known.weight[known_id].detach().clone()
            held_count = 0
            if hold_initializer:
                held_count = 1
            held = known_row.repeat(held_count, 1)
            rows = known_row.repeat(vectors - held_count, 1)
            require_placeholder(reader, placeholder, vectors)
            first_id = add_word(base, tokenizer, placeholder, vectors)
            embedding = NewRows(known, first_id, rows, held)
            encoder.set_input_embeddings(embedding)
            self.embeddings[part] = embedding
            self.parameters[f"{part}.rows"] = embedding.rows

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `learned_embeds.safetensors`: the word's rows in each text encoder, (vectors, width)."""
        tensors: dict[str, Tensor] = {}
        for part, embedding in self.embeddings.items():
            tensors[self.keys[part]] = embedding.word()
        save_weights(tensors, folder / EMBEDDINGS_FILE, header)

    @contextmanager
    def untuned(self, load: Callable[[], BaseModel]) -> Iterator[BaseModel]:  # noqa: ARG002 - nothing to load
        """Read prompts as before: with the new word, a tokenizer may find it inside other words."""
        taught = self.base.tokenizers
        self._read_by(self.known_tokenizers)
        try:
            yield self.base
        finally:
            self._read_by(taught)

    def fuse(self) -> None:
        """Do nothing: rows of its own cost a text encoder next to nothing."""

    def _read_by(self, tokenizers: Sequence[CLIPTokenizer]) -> None:
        """Have the base model read prompts by these tokenizers."""
        for name, tokenizer in zip(self.base.family.tokenizers, tokenizers, strict=True):
            setattr(self.base.pipeline, name, tokenizer)


def embedding_keys(base: BaseModel, placeholder: str) -> dict[str, str]:
    """Return the key of each text encoder's rows in the file.

    A family with several encoders has a fixed key for each. With one encoder the key is the word itself.
    """
    family = base.family
    keys: dict[str, str] = {}
    for part in family.text_encoders:
        keys[part] = family.embedding_keys.get(part, placeholder)
    return keys


def load(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
    weight: float,
) -> None:
    """Add the word to the tokenizers and its rows to the text encoders.

    Raises TrainingError("adapter") unless `weight` is 1: a word cannot be used in part.
    """
    if weight != 1:
        raise TrainingError(
            "adapter",
            f"A learned word cannot be used in part; it was given the weight {weight:g}.",
            "give it the weight 1, or leave the weight out",
        )
    placeholder = str(manifest.learned_word)
    keys = embedding_keys(base, placeholder)
    rows = load_file(folder / EMBEDDINGS_FILE)
    encoders = base.text_encoders.items()
    for (part, encoder), tokenizer in zip(encoders, base.tokenizers, strict=True):
        base.pipeline.load_textual_inversion(
            rows[keys[part]],
            token=placeholder,
            text_encoder=encoder,
            tokenizer=tokenizer,
        )


def require_initializer(tokenizer: LoadedTokenizer, word: str) -> None:
    """Raise TrainingError("token") unless a word is one token."""
    fault = initializer_fault(tokenizer, word)
    if fault is not None:
        raise TrainingError("token", *fault)


def require_placeholder(tokenizer: LoadedTokenizer, word: str, vectors: int) -> None:
    """Raise TrainingError("token") when a word is in the vocabulary, where it has a meaning already."""
    fault = placeholder_fault(tokenizer, word, vectors)
    if fault is not None:
        raise TrainingError("token", *fault)


def add_word(
    base: BaseModel,
    tokenizer: CLIPTokenizer,
    placeholder: str,
    vectors: int,
) -> int:
    """Add the tokens "<x>", "<x>_1", ... to a tokenizer and return the first id.

    Raises TrainingError("token") when the tokenizer would split the word.
    """
    words = placeholder_tokens(placeholder, vectors)
    tokenizer.add_tokens(words)
    require_readable(base, tokenizer, words)
    return int(tokenizer.convert_tokens_to_ids(placeholder))


def require_readable(base: BaseModel, tokenizer: CLIPTokenizer, words: list[str]) -> None:
    """Raise TrainingError("token") unless a prompt with the first word is read as exactly these tokens."""
    placeholder = words[0]
    prompt = base.pipeline.maybe_convert_prompt(placeholder, tokenizer)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    if ids != tokenizer.convert_tokens_to_ids(words):
        lower = placeholder.strip("<>").lower()
        raise TrainingError(
            "token",
            f'This model does not read "{placeholder}" as a word of its own.',
            f'Write it in lower case and angle brackets: placeholder_token="<{lower}>".',
        )
