"""Drawing without a job, as a process of its own that a client talks to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import ROOT_VARIABLE
from orchestrator.contract.events import Failed, parse

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
        adapter=tmp_path,
        base_model=NAME,
        base_folder=tmp_path / "nowhere",
        prompt="a dog",
        seed=0,
        steps=1,
        guidance=1.0,
        size=32,
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
