"""The SageMaker SDK, in an environment of its own: its requirements contradict ours, and most people never need it.

It is made when it is first needed, in the cache, exactly as `containers/local_mode/requirements.txt` says.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.contract.digest import hash_file
from orchestrator.errors import MachineError
from orchestrator.resources import CONTAINERS
from orchestrator.settings import free_bytes
from orchestrator.storage import scratch_folder
from orchestrator.terminal import size_text

REQUIREMENTS = CONTAINERS / "local_mode" / "requirements.txt"
_NEEDED_BYTES = 800_000_000
"""While it is installed; 450 MB afterwards."""
_EVIDENCE_LINES = 3
_AGAIN = "then type this command again"
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
"""Variables that would have pip install elsewhere."""


def environment_of(cache: Path) -> Path:
    """Return the folder of the environment; another version of Python or of a requirement is another folder."""
    digits = hash_file(REQUIREMENTS).sha256[:10]
    return cache / "sdk" / f"{sys.version_info.major}.{sys.version_info.minor}-{digits}"


def is_in_use(cache: Path) -> bool:
    """Return whether containers were ever started here: the SDK is installed for the first of them."""
    return environment_of(cache).parent.is_dir()


def python_of(cache: Path) -> Path:
    """Return the interpreter that has the SDK."""
    return environment_of(cache) / "bin" / "python"


def require_sdk(cache: Path) -> None:
    """Install the SDK unless it is; raises MachineError when it cannot be."""
    folder = environment_of(cache)
    if python_of(cache).exists():
        return
    free = free_bytes(cache)
    if free < _NEEDED_BYTES:
        raise MachineError(
            f"The SageMaker SDK, which starts containers, needs {size_text(_NEEDED_BYTES)} in {cache}; "
            f"{size_text(free)} are free.",
            next_step=f"free some space or set ORCHESTRATOR_HOME to a folder on another disk, {_AGAIN}",
        )
    sys.stderr.write("Installing the SageMaker SDK for containers: once, about a minute.\n")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent) as scratch:
        made = scratch / folder.name
        _run([sys.executable, "-m", "venv", str(made)])
        pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)])
        _put(made, folder)


def _put(made: Path, folder: Path) -> None:
    """Move the environment to its place; another process may have been faster."""
    try:
        made.rename(folder)
    except OSError:
        if not (folder / "bin" / "python").exists():
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)


def _run(words: list[str]) -> None:
    """Run a step of the installation; raises MachineError with its last lines."""
    variables = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    finished = subprocess.run(
        words,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if finished.returncode == 0:
        return
    lines = [line.strip() for line in finished.stdout.splitlines() if line.strip()]
    shown = "\n  ".join(lines[-_EVIDENCE_LINES:])
    next_step = f"check the network, {_AGAIN}"
    if "ensurepip" in finished.stdout:  # Debian packs it apart from Python
        next_step = f"sudo apt-get install python3-venv, {_AGAIN}"
    elif "space left" in finished.stdout:
        next_step = f"free some space, {_AGAIN}"
    raise MachineError(
        f"The SageMaker SDK, which starts containers, could not be installed:\n  {shown}",
        next_step=next_step,
    )
