"""Every example of `examples/` runs as it is, after `cd` to the repository."""

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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_is(example: Path, tmp_path: Path) -> None:
    """By the command in its first line, as a dry run."""
    typed = COMMAND.search(example.read_text())
    assert typed is not None
    words = [word for word in typed[1].split() if word != "--dry-run"]
    assert words[:2] == ["submit", f"examples/{example.name}"]
    result = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words, "--dry-run", "--json"],
        cwd=ROOT,
        env={**os.environ, "ORCHESTRATOR_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    request = plan.get("request", plan)
    assert request["TrainingJobName"].startswith("my-monster")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
