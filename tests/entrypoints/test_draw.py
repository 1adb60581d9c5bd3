"""Drawing without a job, as a process of its own that a client talks to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from entrypoints.adapters.embedding import Embedding
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.draw import draw_order
from entrypoints.models.loading import load_base_model
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import ROOT_VARIABLE
from orchestrator.contract.events import Failed, parse
from orchestrator.contract.generation import AdapterUse, Generation
from orchestrator.contract.words import NewWord

NAME = "mod\u00e8le-\u65e5\u672c"


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "ascii"],
)
def test_orders_and_events_are_utf8_in_every_locale(tmp_path: Path, locale: dict[str, str]) -> None:
    order = DrawOrder(
        generation=Generation(prompts=("a dog",), seeds=(0,), steps=1, guidance=1.0, size=32),
        folders={},
        base_model=NAME,
        base_folder=tmp_path / "nowhere",
    )
    process = subprocess.run(
        [sys.executable, "-m", "entrypoints.draw"],
        env={**os.environ, **locale, ROOT_VARIABLE: str(tmp_path)},
        input=order.model_dump_json().encode(),
        capture_output=True,
        check=False,
    )
    events = [parse(line) for line in process.stdout.decode().splitlines()]
    failed = events[-1]
    assert isinstance(failed, Failed)
    assert failed.kind == "base-model"
    assert f'"{NAME}"' in failed.message


def test_steps_in_which_a_model_cannot_draw_are_named_as_they_were_given(base_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "model")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_train_timesteps": 20}))
    order = DrawOrder(
        generation=Generation(prompts=("a dog",), seeds=(0,), steps=25, guidance=1.0, size=32),
        folders={},
        base_model=NAME,
        base_folder=folder,
    )
    with pytest.raises(TrainingError, match="cannot draw in 25 steps with its DDIMScheduler") as caught:
        draw_order(order, tmp_path)
    assert caught.value.next_step == "draw in another number of steps: --steps 10"


def test_learned_words_are_used_beside_an_adapter_and_nothing_else_is(base_folder: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("dog", "toy", "ball")}
    for folder in folders.values():
        folder.mkdir()
        base = load_base_model(base_folder, "tiny", None, torch.device("cpu"))
        tuner: Tuner = Embedding(base, placeholder=f"<{folder.name}>", initializer="dog", vectors=2)
        if folder.name == "dog":
            tuner = Lora(base, rank=2, alpha=2, text_encoder=False, seed=0)
        for parameter in tuner.parameters.values():
            parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        tuner.save(folder, {"format": "pt"})
        AdapterManifest(
            kind=tuner.kind,
            parts=tuner.parts,
            recipe="dreambooth",
            config={},
            base_model=base.reference,
            dataset_sha256="",
            bundle_sha256="",
            trigger=f"<{folder.name}>",
            libraries={},
        ).write(folder)

    def drawn(*embeddings: str) -> bytes:
        order = DrawOrder(
            generation=Generation(
                prompts=("a <toy> on a <ball>",),
                seeds=(0,),
                steps=2,
                guidance=2.0,
                size=32,
                adapters=(AdapterUse(name="dog"),),
                embeddings=embeddings,
            ),
            folders=folders,
            words=tuple(NewWord(f"<{name}>", 2) for name in embeddings),
            base_model="tiny",
            base_folder=base_folder,
        )
        draw_order(order, tmp_path)
        return (tmp_path / order.file(0)).read_bytes()

    assert len({drawn(), drawn("toy"), drawn("ball"), drawn("toy", "ball")}) == 4
    with pytest.raises(TrainingError, match='of the kind "lora", and no learned word'):
        drawn("dog")
