"""A CLIP tokenizer whose whole words are those of our captions; any other text falls back to pieces and bytes.

Byte-pair encoding as in CLIP: lower case, byte alphabet, `</w>` ends a word. Merges are learned by the `tokenizers`
library until every word of the list is one token; the vocabulary is laid out as CLIP's (bytes, bytes that end a word,
merges, two special tokens), so that `transformers.CLIPTokenizer` reads it.
"""

import json
import re
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from pretraining.captions import caption
from pretraining.scenes import draw_scene, generator

MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CAPTIONS_READ = 20_000

OTHER_WORDS = """
photograph texture nature natural stone grass dog cat person man woman face bird car house tree flower toy
animal creature object thing style sketch watercolor cartoon oil pencil pixel art colorful dark bright light
teal cyan brown gray grey gold silver body head tail belly arm hand wing hair fur hat standing sitting jumping
running flying under over next to by from near behind between beach snow forest jungle city street room table
water sky sun moon night day and or not is at in of it its s very with without four five six new old happy sad
beautiful rubber duck backpack bear plush cup coffee rocket motorcycle brick gravel moon coins stars tissue
"""


def grammar_words(count: int = CAPTIONS_READ) -> list[str]:
    """Return the words that captions use, found by reading many of them; made-up words are rare and left out."""
    seen: dict[str, int] = {}
    for index in range(count):
        rng = generator("tokenizer", index)
        for word in set(re.findall("[a-z]+", caption(draw_scene(rng), rng))):
            seen[word] = seen.get(word, 0) + 1
    return sorted(word for word, times in seen.items() if times > count // 1000)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges until every word is one token; longer and commoner pieces come first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=50_000,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=WORD_END,
    )
    tokenizer.train_from_iterator(sorted(set(words)), trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def write_tokenizer(folder: Path, *, captions_read: int = CAPTIONS_READ) -> CLIPTokenizer:
    """Learn the vocabulary, write it in CLIPTokenizer's layout and return the tokenizer read back from there."""
    merges = learn_merges([*grammar_words(captions_read), *OTHER_WORDS.split()])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet), *dict.fromkeys(a + b for a, b in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH, "do_lower_case": True, **special}
    write_json(folder / "tokenizer_config.json", {**config, "add_prefix_space": False, "errors": "replace"})
    return CLIPTokenizer.from_pretrained(folder)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
