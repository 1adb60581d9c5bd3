"""One process of a training job: environment -> recipe -> adapter, or the failure file.

`launch.py` starts it. Progress goes to stdout as events (`orchestrator.contract.events`), everything else to stderr.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from entrypoints.runtime import libraries, process
from entrypoints.runtime.stop import StopFlag, Stopped, WaitsForLabels
from orchestrator.contract.environment import DEFAULT_ROOT, EXIT_FAILED, EXIT_STOPPED, EXIT_WAITING, Environment
from orchestrator.contract.events import NOTE, Failed, Phase, emit, forget_warnings, mute
from orchestrator.contract.labels import WAITS_FOR_LABELS
from orchestrator.contract.recipe import from_hyperparameters

if TYPE_CHECKING:
    from entrypoints.runtime.failures import TrainingError

LAUNCHER_VARIABLE = "ORCHESTRATOR_LAUNCHER_PID"
"""Process id of the launcher, for the processes that it starts."""
PR_SET_PDEATHSIG = 1
"""Number of the request in Linux's prctl.h."""


def main() -> int:
    """Run this process's part of the job in the folder `ORCHESTRATOR_ML_ROOT` and return its exit status."""
    libraries.apply_settings()
    end_with_launcher()
    environment = Environment.from_variables()
    stop = StopFlag()
    stop.listen()
    return exit_status(environment, lambda: run_recipe(environment, stop))


def end_with_launcher() -> None:
    """Ask Linux to kill this process when the launcher that started it, if one did, is gone.

    The launcher may be killed, and is what holds the job: a process that outlived it would train on in secret, beside
    the next attempt. Elsewhere than on Linux there is no such request, and GPUs of several ranks are not either.
    https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    """
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it was gone already
        sys.exit(EXIT_FAILED)


def exit_status(environment: Environment, work: Callable[[], None]) -> int:
    """Do the work of a process and return its exit status; report the error that ends it."""
    try:
        return _reported(environment, work)
    except BrokenPipeError:
        # The reader of stdout is gone. End; the checkpoints stay. Without the null device, Python would fail once more
        # when it flushes stdout at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        return EXIT_FAILED


def _reported(environment: Environment, work: Callable[[], None]) -> int:
    try:
        work()
    except WaitsForLabels as waiting:
        failed = Failed(kind=WAITS_FOR_LABELS, message=waiting.message, next_step=waiting.next_step)
        tell(environment, failed)
        return EXIT_WAITING
    except Stopped:
        return EXIT_STOPPED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into messages
        report(environment, error)
        return EXIT_FAILED
    return 0


def run_recipe(environment: Environment, stop: StopFlag) -> None:
    """Decode the recipe and run the module of its name in `entrypoints.recipes`."""
    # Only the first rank reports events.
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        mute()
    forget_warnings()
    emit(Phase(name="loading"))
    # Imported here because they import torch: it takes seconds, and must come after the settings.
    from entrypoints.runtime.failures import advising_on_memory
    from entrypoints.runtime.machine import require_gpu
    from entrypoints.runtime.ranks import Ranks
    from entrypoints.training.checkpoint import drop_before
    from entrypoints.training.reporting import leaving_report
    from entrypoints.training.run import Run
    from entrypoints.training.trackers import require_trackers

    libraries.quieten()
    # Only in a SageMaker container: on a person's own machine training on the CPU may be intended.
    hosts = environment.hosts()
    if environment.root == DEFAULT_ROOT and hosts.has_gpu:
        require_gpu(hosts.instance_type)
    recipe = from_hyperparameters(environment.hyperparameters())
    if is_first:
        for note in recipe.notes:
            sys.stderr.write(f"{NOTE}{note}\n")
    module_name = recipe.recipe_name().replace("-", "_")
    module = import_module(f"entrypoints.recipes.{module_name}")
    process.resume_collector()
    ranks = Ranks.from_variables()
    run = Run(environment, recipe, stop, ranks)
    run.check_scorer()
    require_trackers(recipe)
    with leaving_report(run), advising_on_memory(recipe.memory_advice):
        module.train(recipe, run)
    ranks.disconnect()
    if ranks.is_first_of_host and environment.resource_config_file.is_file():
        # SageMaker keeps what lies here: the last checkpoint is what a retry resumes from when the upload of the
        # adapter fails, which begins after this process has ended. On a person's own machine the worker deletes all,
        # once the ending is recorded.
        drop_before(environment.checkpoints, recipe.steps)


def report(environment: Environment, error: Exception) -> None:
    """Report what happened, why, and what to do, as an event and in the failure file; print a traceback for a bug.

    Only the first process of a host that fails is heard.
    """
    known = known_failure(error)
    if known is None:
        traceback.print_exc()
        failed = Failed(
            kind="bug",
            message=f"Unexpected {type(error).__name__}: {error}",
            next_step="Report this with the log of the job.",
        )
    else:
        failed = Failed(
            kind=known.kind,
            message=known.message,
            next_step=known.next_step,
        )
    tell(environment, failed)


def tell(environment: Environment, failed: Failed) -> None:
    """Say why a job ends early, as an event and in the failure file, unless another process was faster."""
    text = failed.message
    if failed.next_step:
        text = f"{failed.message}\nNext: {failed.next_step}"
    try:
        is_first = environment.write_failure(text)
    except OSError:  # on a full disk there is only the event
        is_first = True
    if is_first:
        emit(failed)


def known_failure(error: Exception) -> "TrainingError | None":
    """Return what an error means to a person, or None for a bug."""
    try:
        from entrypoints.runtime.failures import failure_of
    except (ImportError, OSError):  # torch itself cannot be imported, and that is the error
        return None
    return failure_of(error)


if __name__ == "__main__":
    process.run(main)
