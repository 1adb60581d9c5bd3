"""The tokenizers of a base model on this machine, read from its files as training reads them.

Training uses CLIP's tokenizer of transformers, which builds it from the vocabulary and the merges, whatever else the
files say: Unicode's composed form, one space for any white space, small letters, then byte-pair encoding of letters,
single digits, and signs apart.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.contract.families import INDEX_FILE, family_in
from orchestrator.contract.model_file import read_object, read_text
from orchestrator.contract.model_vocabulary import (
    ADDED_BY_NUMBER,
    SPECIAL_TOKENS,
    Merges,
    merges_in_object,
    merges_in_text,
)
from orchestrator.contract.tokens import CLIP_LENGTH, MARKS, Token, length_of

if TYPE_CHECKING:
    import tokenizers

_END = "<|endoftext|>"
_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_OPTIONS = (
    "single_word",
    "lstrip",
    "rstrip",
    "normalized",
    "special",
)
"""Of an added token: what of its neighbours it takes, and whether it is looked for before the case is lowered."""

Values = dict[str, Any]
"""A JSON object of a model's files."""
Stamp = tuple[str, int, int]
"""Name of a file, its size, and when it was changed."""


class FileTokenizer:
    """The tokenizer of one text encoder, as `contract.tokens.Tokenizer` has it."""

    def __init__(
        self,
        tokenizer: "tokenizers.Tokenizer",
        limit: int,
        unknown: str,
    ) -> None:
        self.limit = limit
        self.unknown = tokenizer.token_to_id(unknown)
        self._tokenizer = tokenizer

    def read(self, text: str) -> Sequence[Token]:
        """Return all tokens of a text, without the marks of its beginning and end."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        tokens = []
        for token_id, offsets in zip(encoding.ids, encoding.offsets, strict=True):
            start, end = offsets
            tokens.append(Token(token_id, start, end))
        return tokens

    def knows(self, token: str) -> bool:
        """Return whether the vocabulary has this token."""
        return self._tokenizer.token_to_id(token) is not None


def tokenizers_of(folder: Path) -> tuple[FileTokenizer, ...]:
    """Return the tokenizer of each text encoder of a model; raises ValueError when their files cannot be read."""
    try:
        family = family_in(folder / INDEX_FILE, str(folder))
        found = []
        for part, encoder in zip(family.tokenizers, family.text_encoders, strict=True):
            part_folder = folder / part
            tokenizer, unknown = _built(part_folder, _stamps(part_folder))
            length = _length(part_folder, folder / encoder)
            limit = max(0, length - MARKS)
            found.append(FileTokenizer(tokenizer, limit, unknown))
    except Exception as error:  # the library raises no class of its own
        raise ValueError(f"the tokenizers of {folder} cannot be read: {error}") from error
    return tuple(found)


def _stamps(folder: Path) -> tuple[Stamp, ...]:
    """Return what tells that the files of a tokenizer have changed."""
    found = []
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        stamp = (path.name, stat.st_size, stat.st_mtime_ns)
        found.append(stamp)
    return tuple(found)


def _length(tokenizer: Path, encoder: Path) -> int:
    """Return how many tokens a text encoder takes, by the configurations of its tokenizer and of itself."""
    encoder_config = _json(encoder / "config.json")
    places = encoder_config.get("max_position_embeddings", CLIP_LENGTH)
    config = _json(tokenizer / "tokenizer_config.json")
    return length_of(config.get("model_max_length"), int(places))


@lru_cache(maxsize=8)
def _built(folder: Path, stamps: object) -> tuple["tokenizers.Tokenizer", str]:  # noqa: ARG001 - a key of the cache
    """Return a tokenizer and the token that stands for an unknown text."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    whole = _json(folder / "tokenizer.json")
    vocabulary, merges = _vocabulary(folder, whole)
    config = _json(folder / "tokenizer_config.json")
    special = config
    if ADDED_BY_NUMBER not in config:
        special = config | _json(folder / "special_tokens_map.json")
    unknown = _content(special.get("unk_token", _END))
    pairs = models.BPE(
        vocab=vocabulary,
        merges=merges,
        end_of_word_suffix="</w>",
        unk_token=unknown,
    )
    tokenizer = Tokenizer(pairs)
    white_space = Regex(r"\s+")
    normal_forms = [
        normalizers.NFC(),
        normalizers.Replace(white_space, " "),
        normalizers.Lowercase(),
    ]
    tokenizer.normalizer = normalizers.Sequence(normal_forms)
    pieces = Regex(_PIECES)
    splits = [
        pre_tokenizers.Split(pieces, behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    added = _added(
        folder,
        whole,
        config,
        special,
    )
    _add_tokens(tokenizer, added)
    return tokenizer, unknown


def _vocabulary(folder: Path, whole: Values) -> tuple[Values, Merges]:
    """Return tokens with their ids, and the pairs that are merged, from `tokenizer.json` or else from the two files."""
    if whole:
        vocabulary: Values = whole["model"]["vocab"]
        return vocabulary, merges_in_object(whole)
    text = read_text(folder / "merges.txt")
    return _json(folder / "vocab.json"), merges_in_text(text)


def _added(
    folder: Path,
    whole: Values,
    config: Values,
    special: Values,
) -> dict[str, Values]:
    """Return the tokens that are looked for before a text is split, in the order of their ids, with their options."""
    added: dict[str, Values] = {}
    if ADDED_BY_NUMBER in config:
        numbered = config[ADDED_BY_NUMBER]
        for number in sorted(numbered, key=int):
            entry = numbered[number]
            added[entry["content"]] = entry
    else:
        number_of = _json(folder / "added_tokens.json")
        for content in sorted(number_of, key=number_of.__getitem__):
            added[content] = {"normalized": True}
        for entry in whole.get("added_tokens", []):
            added[entry["content"]] = entry
    for name in SPECIAL_TOKENS:
        token = special.get(name, _END)
        options = {"normalized": False, "special": True}
        if isinstance(token, dict):
            options = token | {"special": True}
        added.setdefault(_content(token), options)
    return added


def _add_tokens(tokenizer: "tokenizers.Tokenizer", added: Mapping[str, Values]) -> None:
    from tokenizers import AddedToken

    for content, entry in added.items():
        options = {}
        for option in _OPTIONS:
            if option in entry:
                options[option] = bool(entry[option])
        token = AddedToken(content, **options)
        if options.get("special"):
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])


def _content(token: Any) -> str:  # a text, or an object that holds one
    if isinstance(token, dict):
        token = token["content"]
    return str(token)


def _json(path: Path) -> Values:
    """Return a JSON object, empty when there is no such file."""
    if not path.is_file():
        return {}
    return read_object(path)
