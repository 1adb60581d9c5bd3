"""Drawing without a job, as a process of its own that a client talks to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoints.draw import draw_order
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import ROOT_VARIABLE
from orchestrator.contract.events import Failed, parse
from orchestrator.contract.generation import Generation

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
