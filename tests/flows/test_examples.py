"""Every example of `examples/` runs as it is, from any folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COMMAND = re.compile(r"^# .*:  python -m orchestrator (submit examples/.*)$", re.MULTILINE)


def planned(*words: str, home: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_is(example: Path, tmp_path: Path) -> None:
    submit, name, *options = COMMAND.search(example.read_text())[1].split()  # type: ignore[index]
    assert name == f"examples/{example.name}"
    options = [option for option in options if option != "--dry-run"]
    planned_there = planned(submit, str(example), *options, "--dry-run", "--json", home=tmp_path, folder=tmp_path)
    assert planned_there.returncode == 0, planned_there.stderr
    plan = json.loads(planned_there.stdout)
    request = plan.get("request", plan)
    assert request["TrainingJobName"].startswith("my-monster")
    planned_here = planned(submit, name, "--dry-run", home=tmp_path, folder=ROOT)
    assert planned_here.returncode == 0, planned_here.stderr


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
