"""Jobs as processes on this machine; requires Python and the `train` extra only."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

from orchestrator.contract.environment import CACHE_VARIABLE, DEFAULT_ROOT, RANKS_VARIABLE, ROOT_VARIABLE
from orchestrator.errors import JobError, MachineError
from orchestrator.requests import BUNDLE_CHANNEL
from orchestrator.settings import Settings
from orchestrator.targets.local.launcher import Launch, Launched
from orchestrator.targets.local.local_jobs import LOCK_SECONDS, LocalJobs
from orchestrator.targets.local.queue import Turn
from orchestrator.targets.names import TargetName
from orchestrator.terminal import printable


class ProcessTarget(LocalJobs):
    """Runs a request as a detached process."""

    def __init__(
        self,
        settings: Settings,
        turn: Turn = Turn.TOGETHER,
        *,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        super().__init__(TargetName.LOCAL, ProcessLauncher(), settings, turn, lock_seconds=lock_seconds)


class ProcessLauncher:
    """Starts the training as a process; its handle is the process id."""

    def require_machine(self) -> None:
        """Raise MachineError unless torch and diffusers are installed."""
        if find_spec("torch") is None or find_spec("diffusers") is None:
            raise MachineError(
                "Training on this machine needs torch and diffusers, which are not installed.",
                next_step="pip install 'orchestrator[train]'",
            )

    def start(self, launch: Launch) -> Launched:
        """Start the request's entry point with the request's environment variables, overridden by ours."""
        process = subprocess.Popen(
            _entry(launch),
            env={**os.environ, **_variables(launch)},
            cwd=launch.environment.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=launch.held,
            encoding="utf-8",
            errors="replace",
        )
        return Launched(
            handle=str(process.pid),
            lines=process.stdout or (),
            wait=process.wait,
        )

    def stop(self, handle: str) -> None:
        """Send SIGTERM."""
        _signal(handle, signal.SIGTERM)

    def kill(self, handle: str) -> None:
        """Send SIGKILL."""
        _signal(handle, signal.SIGKILL)


def _entry(launch: Launch) -> list[str]:
    program, *arguments = launch.request["AlgorithmSpecification"]["ContainerEntrypoint"]
    if program == "python":
        program = sys.executable  # the interpreter that has the `train` extra
    return [program, *arguments]


def _variables(launch: Launch) -> dict[str, str]:
    """Return the request's environment variables, with this machine's path of `/opt/ml`, and our own."""
    root = launch.environment.root
    variables: dict[str, str] = {}
    for name, value in launch.request.get("Environment", {}).items():
        variables[name] = value.replace(str(DEFAULT_ROOT), str(root))
    import_path = [str(root / "input" / "data" / BUNDLE_CHANNEL)]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        import_path.append(inherited)
    variables["PYTHONPATH"] = os.pathsep.join(import_path)
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    resources = launch.request.get("ResourceConfig")
    if resources is not None:  # of a job whose work processes share as instances do
        variables[RANKS_VARIABLE] = str(resources["InstanceCount"])
    variables[ROOT_VARIABLE] = str(root)
    variables[CACHE_VARIABLE] = str(launch.cache)
    return variables


def _signal(handle: str, number: int) -> None:
    """Send a signal to a process; a damaged handle must not reach others ("-1" is every process of this user)."""
    if not (handle.isascii() and handle.isdecimal() and int(handle) > 1):
        raise JobError(f'"{printable(handle)}" is no process of a job: its state.json was changed.')
    try:
        os.kill(int(handle), number)
    except ProcessLookupError:  # it has just ended
        return
