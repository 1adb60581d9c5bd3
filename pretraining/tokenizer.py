"""A CLIP tokenizer whose whole words are those of our captions; any other text falls back to pieces and bytes.

Byte-pair encoding as in CLIP: lower case, byte alphabet, `</w>` ends a word. The vocabulary is laid out as CLIP's
(bytes, bytes that end a word, merges, two special tokens), so that `transformers.CLIPTokenizer` reads it.

The merges lie beside this file. They were learned once, by the `tokenizers` library from the words of 20 000 captions
and some common ones, until every word was one token. That library breaks ties in no fixed order, and weights trained
with one order are wrong under another: so they are kept, not learned again.
"""

import json
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MERGES = Path(__file__).parent / "merges.txt"


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the vocabulary in CLIPTokenizer's layout and return the tokenizer read back from there."""
    merges = [tuple(line.split(" ")) for line in MERGES.read_text(encoding="utf-8").splitlines()[1:]]
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
