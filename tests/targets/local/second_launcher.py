"""A launcher that is not ours, as a future target has one: it runs a shell, and knows its attempts by a file."""

import os
import signal
import subprocess
from pathlib import Path

from orchestrator.errors import MachineError
from orchestrator.targets.local.launcher import Launch, Launched

TOOL = "SECOND_LAUNCHER_TOOL"
"""Environment variable: the shell that runs the attempts."""


class ShellLauncher:
    """Runs the request's entry point as a shell command; its handle is a file that holds the process id."""

    def require_machine(self) -> None:
        if TOOL not in os.environ:
            raise MachineError("There is no shell to run jobs with.", next_step=f"export {TOOL}=/bin/sh")

    def start(self, launch: Launch) -> Launched:
        script = " ".join(launch.request["AlgorithmSpecification"]["ContainerEntrypoint"])
        process = subprocess.Popen(
            [os.environ[TOOL], "-c", script],
            cwd=launch.environment.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=launch.held,
            text=True,
        )
        handle = launch.environment.root / "running"
        handle.write_text(str(process.pid))
        return Launched(handle=str(handle), lines=process.stdout or (), wait=process.wait)

    def stop(self, handle: str) -> None:
        os.kill(int(Path(handle).read_text()), signal.SIGTERM)

    def kill(self, handle: str) -> None:
        os.kill(int(Path(handle).read_text()), signal.SIGKILL)
