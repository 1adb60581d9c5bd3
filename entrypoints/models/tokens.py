"""The tokenizers of a loaded model, as the contract's rules about texts read them."""

from collections.abc import Sequence

from transformers import CLIPTokenizer

from entrypoints.models.base import BaseModel
from orchestrator.contract.tokens import MARKS, Token


class LoadedTokenizer:
    """The tokenizer of one text encoder of a loaded model, as `contract.tokens.Tokenizer` has it."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self.limit = max(0, tokenizer.model_max_length - MARKS)
        self.unknown = tokenizer.unk_token_id
        self._tokenizer = tokenizer

    def read(self, text: str) -> Sequence[Token]:
        """Return all tokens of a text, without the marks of its beginning and end."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        return [Token(token_id, start, end) for token_id, (start, end) in pairs]

    def knows(self, token: str) -> bool:
        """Return whether the vocabulary has this token."""
        return token in self._tokenizer.get_vocab()


def tokenizers_of(base: BaseModel) -> list[LoadedTokenizer]:
    """Return the tokenizer of each text encoder."""
    return [LoadedTokenizer(tokenizer) for tokenizer in base.tokenizers]
