"""Prompts to conditions, with the words and the text encoders' adapters of one request, and of no other.

Learned words (textual inversion, arXiv 2208.01618) have rows of their own, which the token embedding reads while a
request's prompts are encoded. Each set of words has copies of the tokenizers, so that no word is known to a request
that did not name it. The text encoders' weights are never written: their adapters lie in slots.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from entrypoints.adapters.embedding import add_word
from entrypoints.models.base import BaseModel, Conditions
from entrypoints.models.tokens import tokenizers_of
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.slots import SlotNetwork, SlotUse
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.words import NewWord, with_word

MOST_KEPT = 256
"""Encoded prompts."""
MOST_READERS = 64
"""Sets of words whose tokenizers are kept."""


class ServedWord(NamedTuple):
    """A learned word."""

    word: str
    sha256: str
    """Of its adapter's files."""
    rows: Mapping[str, Tensor]
    """(vectors, width) for each text encoder."""

    @property
    def vectors(self) -> int:
        """Tokens that it is."""
        first, *_ = self.rows.values()
        return len(first)


@dataclass(frozen=True)
class TextRequest:
    """A prompt, and what it is read with."""

    prompt: str
    negative: str | None
    guided: bool
    words: tuple[ServedWord, ...] = ()
    slots: tuple[SlotUse, ...] = ()
    adapters: tuple[tuple[str, float], ...] = ()
    """Hash and weight of each adapter in those slots: a slot may hold another one later."""

    @property
    def key(self) -> tuple[Any, ...]:
        """All that its conditions depend on."""
        words = tuple((word.word, word.sha256) for word in self.words)
        return (self.prompt, self.negative, self.guided, words, self.adapters)


class WordRows(nn.Module):
    """A token embedding that reads the rows behind its last one from the words of the request that is encoded."""

    def __init__(self, known: nn.Embedding, first: int) -> None:
        super().__init__()
        self.known = known
        self.first = first
        """Id of the first row of a request: the tokenizer knows none from there on."""
        self.rows: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The known rows: libraries read type and device from here."""
        return self.known.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids: (batch, tokens) to (batch, tokens, width)."""
        if self.rows is None:
            return self.known(ids)
        is_new = ids >= self.first
        known_ids = ids.masked_fill(is_new, 0)
        known = self.known(known_ids)
        places = (ids - self.first).clamp(min=0)
        new = nn.functional.embedding(places, self.rows.to(known))
        return torch.where(is_new.unsqueeze(-1), new, known)


class TextReader:
    """Encodes prompts by the text encoders of a base model; it is used by one thread."""

    def __init__(self, base: BaseModel, encoders: Mapping[str, SlotNetwork]) -> None:
        self.base = base
        self.encoders = encoders
        self.embeddings: dict[str, WordRows] = {}
        for part, tokenizer in zip(base.text_encoders, base.tokenizers, strict=True):
            encoder = base.text_encoders[part]
            own = encoder.get_input_embeddings()
            embedding = WordRows(own, len(tokenizer))
            encoder.set_input_embeddings(embedding)
            self.embeddings[part] = embedding
        self._kept: OrderedDict[tuple[Any, ...], Conditions] = OrderedDict()
        self._readers: OrderedDict[tuple[tuple[str, int], ...], BaseModel] = OrderedDict()

    @torch.no_grad()
    def conditions(self, request: TextRequest) -> Conditions:
        """Return the conditions of a prompt, first dimension 1; with guidance those of the negative one before it."""
        key = request.key
        if key not in self._kept:
            self._kept[key] = self._encode(request)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def warnings(self, request: TextRequest) -> list[str]:
        """Return what of a request's texts the text encoders do not read, because it is too long.

        Raises TrainingError("prompt") when a learned word is among it.
        """
        texts = [("inputs", request.prompt)]
        if request.negative is not None and request.guided:
            texts.append(("negative_prompt", request.negative))
        words: list[NewWord | None] = []
        for word in request.words:
            words.append(NewWord(word.word, word.vectors))
        tokenizers = tokenizers_of(self.base)
        warnings = set()
        for new_word in words or [None]:
            found = length_problems(tokenizers, texts, new_word)
            for problem in found.refused:
                message = f"{problem.where} {problem.what}"
                raise TrainingError("prompt", message, problem.fix)
            for problem in found.warnings:
                warnings.add(problem.render())
        return sorted(warnings)

    def _encode(self, request: TextRequest) -> Conditions:
        reader = self._reader(request.words)
        prompt = request.prompt
        negative = request.negative
        for word in request.words:  # in any other spelling it would not be read as the word
            new_word = NewWord(word.word, word.vectors)
            prompt = with_word(prompt, new_word)
            if negative is not None:
                negative = with_word(negative, new_word)
        for network in self.encoders.values():
            network.routing.set_all(request.slots, self.base.device)
        for part, embedding in self.embeddings.items():
            rows = [word.rows[part] for word in request.words]
            embedding.rows = torch.cat(rows) if rows else None
        try:
            if request.guided:
                return reader.encode_guided([prompt], negative)
            return reader.encode_prompts([prompt])
        finally:
            for embedding in self.embeddings.values():
                embedding.rows = None
            for network in self.encoders.values():
                network.routing.clear()

    def _reader(self, words: Sequence[ServedWord]) -> BaseModel:
        """Return the base model with tokenizers that know some words; its networks are those of the base model."""
        if not words:
            return self.base
        key = tuple((word.word, word.vectors) for word in words)
        if key not in self._readers:
            names = self.base.family.tokenizers
            pipeline = copy(self.base.pipeline)
            for name, tokenizer in zip(names, self.base.tokenizers, strict=True):
                own = deepcopy(tokenizer)
                for word, vectors in key:
                    self._teach(own, word, vectors)
                setattr(pipeline, name, own)
            self._readers[key] = replace(self.base, pipeline=pipeline)
            if len(self._readers) > MOST_READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(key)
        return self._readers[key]

    def _teach(
        self,
        tokenizer: CLIPTokenizer,
        word: str,
        vectors: int,
    ) -> None:
        """Add a word to a tokenizer; raises TrainingError("token") when it knows it, or a part of it, already.

        It would be read by the rows that it has, and the words behind it by one another's.
        """
        before = len(tokenizer)
        first = add_word(self.base, tokenizer, word, vectors)
        if first != before or len(tokenizer) != before + vectors:
            message = f'The word "{word}" is one that this model, or another word of the request, has already.'
            raise TrainingError(
                "token",
                message,
                "draw with one of them alone",
            )
