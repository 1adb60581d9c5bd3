"""The tokenizer: words of our captions are whole, every other text survives."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from pretraining.captions import caption
from pretraining.examples import drawn_scenes
from pretraining.scenes import COLOURS, KINDS, generator
from pretraining.tokenizer import MAX_LENGTH, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("word", [*COLOURS, *KINDS, "background", "photo", "dog"])
def test_words_of_captions_are_single_tokens(tokenizer: CLIPTokenizer, word: str) -> None:
    assert len(tokenizer(word).input_ids) == 3  # start, word, end


@pytest.mark.parametrize(
    "text", ["a photo of sks monster on a red background", "zwxq über 日本語 ☃", "a dog at the eiffel tower"]
)
def test_any_text_survives(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.eos_token_id not in ids[:-1]


def test_captions_fit(tokenizer: CLIPTokenizer) -> None:
    texts = [caption(scene, generator(index)) for index, scene in enumerate(drawn_scenes(2, "fit", 500))]
    lengths = [len(tokenizer(text).input_ids) for text in texts]
    assert sum(length <= MAX_LENGTH for length in lengths) > 0.99 * len(lengths)


def test_writing_twice_gives_the_same_files(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    again = write_tokenizer(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
