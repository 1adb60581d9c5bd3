"""Completion as a shell asks for it, through the script that a person puts into the start-up file."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.local.process import ProcessTarget

ROOT = Path(__file__).parents[2]
BASH = """
eval "$SCRIPT"
compopt() { :; }  # works only while a person presses the tabulator key
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_orchestrator_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The console script, as an installation writes it."""
    path = tmp_path / "bin" / "orchestrator"
    path.parent.mkdir()
    lines = [f"#!{sys.executable}", "import sys", "from orchestrator.__main__ import main", "sys.exit(main())"]
    path.write_text("\n".join(lines))
    path.chmod(0o755)
    return path


@pytest.fixture
def variables(script: Path, settings: Settings) -> dict[str, str]:
    path = os.pathsep.join([str(script.parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def printed(variables: dict[str, str], shell: str) -> str:
    command = ["orchestrator", "completion", shell]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout


def completed(variables: dict[str, str], *words: str) -> list[str]:
    """Return what bash would offer for the last word."""
    command = ["bash", "-c", BASH, "bash", "orchestrator", *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_the_names_of_this_machine(
    variables: dict[str, str], settings: Settings, training_request: Callable[..., Request]
) -> None:
    variables["SCRIPT"] = printed(variables, "bash")
    ProcessTarget(settings).create(training_request("sys.exit(1)", name="my-job"))
    (settings.adapters / "my-adapter").mkdir(parents=True)
    (settings.adapters / "my-adapter" / "adapter.json").touch()
    assert completed(variables, "jobs", "lo") == ["logs"]
    assert completed(variables, "jobs", "show", "my") == ["my-job"]
    assert completed(variables, "adapters", "pull", "my") == ["my-adapter"]
    assert completed(variables, "recipes", "show", "tex") == ["textual-inversion"]
    assert completed(variables, "submit", "dr") == ["dreambooth"]
    assert completed(variables, "submit", "textual-inversion", "-s", "place") == ["placeholder_token="]
    assert completed(variables, "sweep", "dreambooth", "-s", "place") == []


def test_a_home_that_cannot_be_read_puts_no_message_into_the_line(variables: dict[str, str]) -> None:
    variables["SCRIPT"] = printed(variables, "bash")
    variables["ORCHESTRATOR_HOME"] = "/dev/null/x"
    assert completed(variables, "jobs", "show", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_reads(variables: dict[str, str], shell: str) -> None:
    script = printed(variables, shell)
    assert "_ORCHESTRATOR_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, env=variables, text=True, check=True)
