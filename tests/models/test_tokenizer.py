"""The client reads a text as training does, and knows how much of it the text encoder takes."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from orchestrator.models.tokenizer import tokenizers_of
from orchestrator.resources import BUILTIN_MODEL

TEXTS = [
    "",
    "a photo of sks monster",
    "A  Photo\tof\nSKS  Monster's toy, isn't it?",
    "e\u0301te\u0301 and \u00e9t\u00e9, STRASSE stra\u00dfe \u0130stanbul \u039f\u0394\u039f\u03a3",
    "\u4e00\u5f20 sks \u72d7\u7684\u7167\u7247 \U0001f436\U0001f3fd no\u200bspace \u0661\u0662 3d sks2 a_b",
    "<|endoftext|> in <|startoftext|> a text, <my-dog> and [V]!",
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model without its weights."""
    return shutil.copytree(BUILTIN_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))


def same(folder: Path, texts: list[str]) -> None:
    (ours,) = tokenizers_of(folder)
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    for text in texts:
        expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        found = ours.read(text)
        assert [token.id for token in found] == expected.input_ids, text
        assert [(token.start, token.end) for token in found] == expected.offset_mapping, text


def test_a_text_is_the_tokens_that_training_makes_of_it() -> None:
    same(BUILTIN_MODEL, TEXTS)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_text_is_the_tokens_that_training_makes_of_it(texts: list[str]) -> None:
    same(BUILTIN_MODEL, texts)


def test_both_forms_of_a_tokenizers_files_are_read(model: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    tokenizer.add_tokens(["<Kept>"])
    shutil.rmtree(model / "tokenizer")
    tokenizer.save_pretrained(model / "tokenizer")
    (model / "tokenizer" / "vocab.json").unlink(missing_ok=True)
    assert (model / "tokenizer" / "tokenizer.json").is_file()
    same(model, [*TEXTS, "a <kept> word, <KEPT>"])


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("pad", ["!", {"content": "!", "lstrip": True, "normalized": False, "rstrip": False}])
def test_special_tokens_of_ones_own_are_found_as_in_training(model: Path, file: str, pad: object) -> None:
    path = model / "tokenizer" / file
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "pad_token": pad}))
    same(model, [*TEXTS, "hello ! a!! b"])


def test_numbered_tokens_are_found_as_in_training(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer_config.json"
    values = json.loads(path.read_text())
    flags = {"lstrip": False, "rstrip": False, "single_word": True, "special": False, "normalized": True}
    numbered = {"1022": {"content": "<second>", **flags}, "1021": {"content": "first", **flags}}
    path.write_text(json.dumps({**values, "added_tokens_decoder": numbered}))
    same(model, [*TEXTS, "the FIRST of firsts, <second>"])


@pytest.mark.parametrize(
    ("length", "places", "limit"),
    [(32, 77, 30), (1e30, 77, 75), (int(1e30), 16, 14), (None, 24, 22), (77, None, 75)],
)
def test_the_length_is_what_tokenizer_and_text_encoder_both_take(
    model: Path, length: float | None, places: int | None, limit: int
) -> None:
    for path, field, value in (
        (model / "tokenizer" / "tokenizer_config.json", "model_max_length", length),
        (model / "text_encoder" / "config.json", "max_position_embeddings", places),
    ):
        values = json.loads(path.read_text())
        values.pop(field)
        if value is not None:
            values[field] = value
        path.write_text(json.dumps(values))
    (tokenizer,) = tokenizers_of(model)
    assert tokenizer.limit == limit


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": "b"}'])
def test_files_that_are_no_tokenizer_are_a_value_error(model: Path, damage: str) -> None:
    (model / "tokenizer" / "vocab.json").write_text(damage)
    with pytest.raises(ValueError, match="cannot be read"):
        tokenizers_of(model)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"#version", b'"bpe_simple_vocab_16e6.txt#version'),
        (b"#version", b"\xef\xbb\xbf#version"),
        (b"#version: 0.2\n", b"# made by hand\n"),
        (b"\n", b"\n\n"),
        (b"i n\n", b"i  n\n"),
        (b"i n\n", b"i\tn\n"),
        (b"i n\n", b"i n \n"),
    ],
    ids=["another header", "byte order mark", "a remark", "blank line", "two spaces", "tab", "space at the end"],
)
def test_merges_that_training_cannot_read_are_refused(model: Path, old: bytes, new: bytes) -> None:
    path = model / "tokenizer" / "merges.txt"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(Exception, match="Error while initializing BPE"):
        CLIPTokenizer.from_pretrained(model / "tokenizer")
    with pytest.raises(ValueError, match="cannot be read"):
        tokenizers_of(model)


@pytest.mark.parametrize(("old", "new"), [(b"#version: 0.2\n", b""), (b"\n", b"\r\n"), (b"#version: 0.2", b"#version")])
def test_merges_in_other_forms_are_read_as_in_training(model: Path, old: bytes, new: bytes) -> None:
    path = model / "tokenizer" / "merges.txt"
    path.write_bytes(path.read_bytes().replace(old, new))
    same(model, TEXTS)
