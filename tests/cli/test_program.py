"""The commands that messages name, in the shell of the person who reads them."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.program import as_called
from tests.cli.test_completion import script, variables

__all__ = ["script", "variables"]

STORED = "Resume it with: python -m orchestrator jobs retry JOB, or: .venv/bin/python -m orchestrator.targets"


def next_command(error: str) -> str:
    (line,) = [line for line in error.splitlines() if line.startswith("Next: ")]
    return line.removeprefix("Next: ")


@pytest.mark.parametrize("kind", ["script on PATH", "script elsewhere", "interpreter elsewhere", "interpreter on PATH"])
def test_a_command_that_a_message_names_works_where_it_was_said(
    kind: str, script: Path, variables: dict[str, str]
) -> None:
    folder = script.parent
    interpreter = Path(sys.executable)
    calls = {
        "script on PATH": "orchestrator",
        "script elsewhere": "./orchestrator",
        "interpreter elsewhere": f"{sys.executable} -m orchestrator",
        "interpreter on PATH": f"{interpreter.name} -m orchestrator",
    }
    call = calls[kind]
    if kind == "interpreter on PATH":
        variables = {**variables, "PATH": f"{interpreter.parent}:{variables['PATH']}"}
    if kind == "script elsewhere":
        variables = {**variables, "PATH": "/usr/bin:/bin"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )

    told = next_command(run(f"{call} jobs show no-such-job").stderr)
    assert told == f"{call} jobs list"
    assert run(told).returncode == 0


def test_only_whole_commands_are_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/orchestrator/__main__.py"])
    monkeypatch.setattr(sys, "orig_argv", ["a venv/bin/python", "-m", "orchestrator"])
    rewritten = STORED.replace("with: python", "with: 'a venv/bin/python'")
    assert as_called(STORED) == rewritten
    assert as_called(rewritten) == rewritten


def test_a_process_that_is_not_the_command_line_keeps_the_one_form() -> None:
    assert as_called(STORED) == STORED
