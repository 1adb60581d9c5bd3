"""Draw with a finished adapter in a process of this machine, without a job."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from orchestrator.contract.command_line import command
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.environment import ROOT_VARIABLE
from orchestrator.contract.events import Event, Failed, parse
from orchestrator.errors import JobError
from orchestrator.targets.local.process import ProcessLauncher

_NEXT_STEPS = {
    "base-model": "name a model in the diffusers layout that is on this machine: --base-model FOLDER",
    "out-of-memory": "draw fewer or smaller images: -n 1 --size 512",
    "gated-model": "accept its terms on its page of the Hugging Face Hub, and sign in with: hf auth login",
    "hub": "check the name and the network, or name a model that is on this machine: --base-model FOLDER",
    "disk-full": "free space, then draw again",
}
"""What to do after a failure of a kind, where a job's next step does not fit: there is no job to submit or to retry."""
_BUG = "bug"
_LAST_LINES = 20


def draw(
    order: DrawOrder,
    bundle: Path,
    folder: Path,
    report: Callable[[Event], None],
) -> None:
    """Draw an order with the code of a bundle and write its files into `folder`, which exists.

    Raises MachineError without torch, and JobError with what happened and the next step when nothing could be drawn.
    """
    ProcessLauncher().require_machine()
    with TemporaryFile() as stderr, _started(bundle, folder, stderr) as process:
        try:
            failed = _followed(process, order, report)
        except BaseException:  # Ctrl-C too
            process.terminate()
            raise
        code = process.wait()
        if failed is not None and failed.kind != _BUG:
            next_step = _NEXT_STEPS.get(failed.kind, failed.next_step)
            raise JobError(failed.message, next_step=next_step)
        if code != 0:
            raise _crashed(code, failed, stderr)


def _started(bundle: Path, folder: Path, stderr: IO[bytes]) -> "subprocess.Popen[str]":
    """Start the process that draws."""
    return subprocess.Popen(
        [sys.executable, "-m", "entrypoints.draw"],
        env={**os.environ, **variables_of(bundle, folder)},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a Ctrl-C reaches the client alone, which then ends this one
    )


def _followed(process: "subprocess.Popen[str]", order: DrawOrder, report: Callable[[Event], None]) -> Failed | None:
    """Hand over the order, report each event until the process ends, and return the failure it reported."""
    failed = None
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:  # it may end before it reads, and says why
            stdin.write(order.model_dump_json())
    for line in process.stdout or ():
        event = parse(line)
        if isinstance(event, Failed):
            failed = event
        elif event is not None:
            report(event)
    return failed


def _crashed(code: int, failed: Failed | None, stderr: IO[bytes]) -> JobError:
    """Return the error for a process that ended without a failure of a known kind."""
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").splitlines()
    text = "\n".join(lines[-_LAST_LINES:])
    why = f"the process ended with exit code {code}"
    if code < 0:
        why = f"the process was ended by signal {-code}; the system does that when memory runs out"
    if failed is not None:
        why = failed.message
    next_step = _NEXT_STEPS["out-of-memory"]
    if code > 0:
        next_step = command("adapters", "draw", "--help")
    return JobError(f"Nothing could be drawn: {why}.\n{text}".rstrip(), next_step=next_step)


def variables_of(bundle: Path, folder: Path) -> dict[str, str]:
    """Return the environment variables of a process that runs the code of a bundle and whose root is `folder`."""
    import_path = [str(bundle)]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        import_path.append(inherited)
    return {
        "PYTHONPATH": os.pathsep.join(import_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        ROOT_VARIABLE: str(folder),
    }
