"""Adapters do the same with the oldest libraries that people use as with ours, loaded by the lines that are printed.

`make test-compat` makes the environment of old versions. What an adapter has to do is computed here, from weights
that are merged by hand, W + (alpha / rank) B A.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stack
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.full import Full
from entrypoints.adapters.loading import load_adapter
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel, part_of
from entrypoints.models.loading import load_base_model
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.resources import BUILTIN_MODEL

OLD_PYTHON = Path(__file__).parents[2] / ".venv-compat" / "bin" / "python"
OLD_VERSIONS = {"diffusers": "0.33.1", "transformers": "4.51.3", "peft": "0.15.2"}
WORD = "<my-dog>"
ROWS = ("<first>", "<second>")  # the word's rows as words of their own, where it is put together by hand
RANK, ALPHA = 4, 10
CPU = torch.device("cpu")
FAMILIES = ("sd", "sdxl")
KINDS = ("lora", "lora-text-encoder", "full", "full-text-encoder", "word", "words")
CASES = [f"{family}-{kind}" for family in FAMILIES for kind in KINDS]
PROMPTS = dict.fromkeys(CASES, "a photo of dog") | {name: f"a photo of {WORD}" for name in CASES if "word" in name}


def open_base(folder: Path) -> BaseModel:
    return load_base_model(folder, "tiny", None, CPU)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family, with the names of weights that models on the Hub have."""
    root = tmp_path_factory.mktemp("bases")
    folders = {"sd": tiny.write_base_model(root / "sd"), "sdxl": tiny.write_sdxl(root / "sdxl")}
    for folder in folders.values():
        file = folder / "text_encoder" / "model.safetensors"
        weights = {f"text_model.{name}": weight for name, weight in load_file(file).items()}
        save_file(weights, file, {"format": "pt"})
    return folders


def make_tuner(base: BaseModel, kind: str) -> Tuner:
    if kind.startswith("word"):
        return Embedding(base, placeholder=WORD, initializer="dog", vectors=2 if kind == "words" else 1)
    if kind.startswith("full"):
        return Full(base, text_encoder="text-encoder" in kind)
    return Lora(base, rank=RANK, alpha=ALPHA, text_encoder="text-encoder" in kind, seed=0)


@torch.no_grad()
def shake(tuner: Tuner) -> dict[str, Tensor]:
    """Give every trained parameter another value, and return them."""
    random = torch.Generator().manual_seed(1)
    values = {}
    for name, parameter in tuner.parameters.items():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
        values[name] = parameter.detach().clone()
    return values


@torch.no_grad()
def merge(base: BaseModel, values: dict[str, Tensor]) -> None:
    """Put trained values into a base model by hand: no PEFT, no loader of diffusers."""
    for name, value in values.items():
        part, _, rest = name.partition(".")
        if rest == "rows":
            append_rows(base, part, value)
            continue
        module = part_of(base, part)
        if rest.endswith("lora_A.default.weight"):
            layer, b = rest.removesuffix(".lora_A.default.weight"), values[name.replace("lora_A", "lora_B")]
            module.get_parameter(f"{layer}.weight").add_((ALPHA / RANK) * b @ value)
        elif "lora_" not in rest:
            module.get_parameter(rest).copy_(value)


def append_rows(base: BaseModel, part: str, rows: Tensor) -> None:
    """Append the rows of the word's tokens to the table of a text encoder, and the tokens to its tokenizer."""
    tokenizer = base.tokenizers[list(base.text_encoders).index(part)]
    tokenizer.add_tokens(list(ROWS[: len(rows)]))
    table = base.text_encoders[part].get_input_embeddings()
    table.weight = torch.nn.Parameter(torch.cat([table.weight, rows]))


def write_manifest(base: BaseModel, tuner: Tuner, folder: Path) -> AdapterManifest:
    manifest = AdapterManifest(
        kind=tuner.kind,
        parts=tuner.parts,
        recipe="dreambooth",
        config={},
        base_model=base.reference,
        dataset_sha256="d",
        bundle_sha256="b",
        trigger=WORD,
        libraries={},
    )
    tuner.save(folder, manifest.header())
    return manifest.write(folder)


class Adapters:
    """An adapter of each kind for each family, and what it has to do."""

    def __init__(self, root: Path, bases: dict[str, Path]) -> None:
        self.bases = bases
        self.folders: dict[str, Path] = {}
        self.lines: dict[str, list[str]] = {}
        self.expected: dict[str, dict[str, Tensor]] = {}
        for name in CASES:
            family, _, kind = name.partition("-")
            base = open_base(bases[family])
            tuner = make_tuner(base, kind)
            values = shake(tuner)
            folder = root / name
            folder.mkdir()
            self.folders[name] = folder
            self.lines[name] = write_manifest(base, tuner, folder).loading(str(folder))
            merged = open_base(bases[family])
            merge(merged, values)
            rows = ROWS if kind == "words" else ROWS[:1]
            spelled_out = PROMPTS[name].replace(WORD, " ".join(rows))
            self.expected[name] = stack.outputs(merged.pipeline, spelled_out)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]) -> Iterator[Adapters]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Adapters(tmp_path_factory.mktemp("adapters"), bases)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def old(adapters: Adapters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the old libraries compute, in one process."""
    if not OLD_PYTHON.is_file():
        pytest.skip("there is no environment of old libraries: `make test-compat` makes it")
    folder = tmp_path_factory.mktemp("old")
    cases: dict[str, Any] = {"builtin": {"base": str(BUILTIN_MODEL), "lines": [], "prompt": "a red circle"}}
    for name in CASES:
        base = adapters.bases[name.partition("-")[0]]
        cases[name] = {"base": str(base), "lines": adapters.lines[name], "prompt": PROMPTS[name]}
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    subprocess.run([str(OLD_PYTHON), stack.__file__, str(file)], check=True, capture_output=True, cwd=folder)
    assert json.loads((folder / "versions.json").read_text()) == OLD_VERSIONS
    return folder


def require_equal(folder: Path, name: str, expected: dict[str, Tensor]) -> None:
    error = folder / f"{name}.error"
    assert not error.exists(), error.read_text()
    found = load_file(folder / f"{name}.safetensors")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_does_with_old_libraries_what_it_was_trained_to_do(name: str, adapters: Adapters, old: Path) -> None:
    require_equal(old, name, adapters.expected[name])


def test_the_built_in_model_is_the_same_model_with_old_libraries(old: Path) -> None:
    expected = stack.outputs(open_base(BUILTIN_MODEL).pipeline, "a red circle")
    require_equal(old, "builtin", expected)


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_does_with_our_libraries_what_it_was_trained_to_do(name: str, adapters: Adapters) -> None:
    base = open_base(adapters.bases[name.partition("-")[0]])
    plain = stack.outputs(base.pipeline, "a photo of dog")
    load_adapter(base, adapters.folders[name])
    found = stack.outputs(base.pipeline, PROMPTS[name])
    torch.testing.assert_close(found, adapters.expected[name], rtol=0, atol=1e-5)
    assert (found["predicted"] - plain["predicted"]).abs().max() > 1e-3  # it does something
