"""One process of a training job: environment -> recipe -> adapter, or the failure file.

`launch.py` starts it. Progress goes to stdout as events (`orchestrator.contract.events`), everything else to stderr.
"""

import logging
import os
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.environment import DEFAULT_ROOT, EXIT_FAILED, EXIT_STOPPED, Environment
from orchestrator.contract.events import Failed, Phase, emit, mute
from orchestrator.contract.recipe import from_hyperparameters

if TYPE_CHECKING:
    from entrypoints.runtime.failures import TrainingError

# cuBLAS repeats its sums only with a fixed workspace. OpenMP's threads wait for one another by spinning, which is the
# quickest on an idle machine and, where a neighbour has one of the cores, makes a step take twenty times as long; so
# they spin shortly and then sleep. Libraries read these when they are imported.
SETTINGS = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "GOMP_SPINCOUNT": "2000",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def apply_settings() -> None:
    """Set the variables that libraries read when they are imported; what a person has set stands."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def main() -> int:
    """Run this process's part of the job described below `ORCHESTRATOR_ML_ROOT` and return its exit status."""
    environment = Environment.from_variables()
    apply_settings()
    stop = StopFlag()
    stop.listen()
    try:
        run_recipe(environment, stop)
    except Stopped:
        return EXIT_STOPPED
    except BrokenPipeError:  # whoever watched is gone, and a job that nobody watches ends; its checkpoints stand
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into words
        report(environment, error)
        return EXIT_FAILED
    return 0


def run_recipe(environment: Environment, stop: StopFlag) -> None:
    """Decode the recipe and hand it to the module of its name."""
    if os.environ.get("RANK", "0") != "0":
        mute()
    emit(Phase(name="loading"))
    from entrypoints.runtime.machine import require_gpu  # brings torch: seconds, and after the settings
    from entrypoints.runtime.ranks import Ranks
    from entrypoints.training.run import Run

    quieten()
    if environment.root == DEFAULT_ROOT:  # in a container of the service; elsewhere the CPU may be what is meant
        require_gpu()
    recipe = from_hyperparameters(environment.hyperparameters())
    module = import_module(f"entrypoints.recipes.{recipe.recipe_name().replace('-', '_')}")
    ranks = Ranks.from_variables()
    module.train(recipe, Run(environment, recipe, stop, ranks))
    ranks.disconnect()


def report(environment: Environment, error: Exception) -> None:
    """Say what happened, why, and what to do: as an event and in the failure file; a traceback only for a bug."""
    known = _known(error)
    if known is None:
        traceback.print_exc()
        message, next_step = f"Unexpected {type(error).__name__}: {error}", "Report this with the log of the job."
        failed = Failed(kind="bug", message=message, next_step=next_step)
    else:
        failed = Failed(kind=known.kind, message=known.message, next_step=known.next_step)
    emit(failed)
    with suppress(OSError):  # on a full disk the event has to do
        environment.write_failure(f"{failed.message}\nNext: {failed.next_step}" if failed.next_step else failed.message)


def _known(error: Exception) -> "TrainingError | None":
    try:
        from entrypoints.runtime.failures import failure_of
    except (ImportError, OSError):  # torch itself cannot be imported: then that is the error
        return None
    return failure_of(error)


def quieten() -> None:
    """Keep libraries' bars, notices and deprecation warnings out of the log."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
