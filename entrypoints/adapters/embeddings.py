"""Textual inversion's adapter: the embedding rows of one new word (arXiv 2208.01618)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from entrypoints.adapters.weights import save_weights
from entrypoints.models.stable_diffusion import BaseModel
from entrypoints.runtime.failures import TrainingError

EMBEDDINGS_FILE = "learned_embeds.safetensors"


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


class Embeddings:
    """The embedding rows of one new word (textual inversion, arXiv 2208.01618)."""

    trains_text_encoder = True  # its input; its weights stay

    def __init__(self, base: BaseModel, *, placeholder: str, initializer: str, vectors: int) -> None:
        self.placeholder = placeholder
        known = base.text_encoder.get_input_embeddings()
        start = known.weight[single_token(base, initializer)].detach().clone().repeat(vectors, 1)
        first_id = add_word(base, placeholder, vectors)
        self.embedding = NewRows(known, first_id, start)
        base.text_encoder.set_input_embeddings(self.embedding)
        self.parameters = {"rows": self.embedding.rows}

    def save(self, folder: Path, header: Mapping[str, str]) -> None:
        """Write `learned_embeds.safetensors` as diffusers reads it: the placeholder's rows, (vectors, width)."""
        save_weights({self.placeholder: self.embedding.rows}, folder / EMBEDDINGS_FILE, header)


def single_token(base: BaseModel, word: str) -> int:
    """Return the id of a word that is one token; raises TrainingError("token")."""
    ids = base.tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == base.tokenizer.unk_token_id:
        pieces = " ".join(base.tokenizer.convert_ids_to_tokens(ids))
        raise TrainingError(
            "token",
            f'The initializer "{word}" is {len(ids)} tokens of this model ({pieces}); it must be one.',
            "Choose a plain word near to the subject, for example initializer_token=toy.",
        )
    return int(ids[0])


def add_word(base: BaseModel, placeholder: str, vectors: int) -> int:
    """Add the tokens "<x>", "<x>_1", ... to the tokenizer, as diffusers does, and return the first id."""
    words = [placeholder, *(f"{placeholder}_{number}" for number in range(1, vectors))]
    vocabulary = base.tokenizer.get_vocab()
    taken = [word for word in words if {word, word.lower(), f"{word.lower()}</w>"} & vocabulary.keys()]
    if taken:
        raise TrainingError(
            "token",
            f'The placeholder "{taken[0]}" is in the vocabulary of this model already.',
            f'Choose a new word, for example placeholder_token="<my-{taken[0].strip("<>")}>".',
        )
    base.tokenizer.add_tokens(words)
    _insist_on_reading(base, placeholder, words)
    return int(base.tokenizer.convert_tokens_to_ids(placeholder))


def _insist_on_reading(base: BaseModel, placeholder: str, words: list[str]) -> None:
    """Raise TrainingError("token") unless a prompt with the placeholder is read as exactly the new tokens."""
    prompt = base.pipeline.maybe_convert_prompt(placeholder, base.tokenizer)
    read = base.tokenizer(prompt, add_special_tokens=False).input_ids
    if read != base.tokenizer.convert_tokens_to_ids(words):
        raise TrainingError(
            "token",
            f'This model does not read "{placeholder}" as a word of its own.',
            f'Write it in lower case and angle brackets: placeholder_token="<{placeholder.strip("<>").lower()}>".',
        )
