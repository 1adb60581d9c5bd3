"""The report that every run leaves, however it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from entrypoints.evaluation.report import write_report
from entrypoints.evaluation.report_words import COMPLETED, FAILED, STOPPED, Ending
from entrypoints.runtime.failures import failure_of
from entrypoints.runtime.stop import Stopped
from entrypoints.training.run import Run
from orchestrator.contract.events import Warned, emit


@contextmanager
def leaving_report(run: Run) -> Iterator[None]:
    """Write the report of the run when the block ends, and raise its error, if it raises one."""
    began = time.monotonic()
    try:
        yield
    except Stopped:
        _leave(run, Ending(STOPPED, time.monotonic() - began, "It was asked to stop, and saved a checkpoint."))
        raise
    except Exception as error:
        _leave(run, _failed(error, time.monotonic() - began))
        raise
    _leave(run, Ending(COMPLETED, time.monotonic() - began))


def _failed(error: Exception, seconds: float) -> Ending:
    """Return the ending in the words of the failure file."""
    known = failure_of(error)
    if known is None:
        return Ending(FAILED, seconds, f"Unexpected {type(error).__name__}: {error}")
    return Ending(FAILED, seconds, known.message, known.next_step)


def _leave(run: Run, ending: Ending) -> None:
    """Write the report on the first rank. A run that is paid for does not fail by it."""
    if not run.ranks.is_first:
        return
    try:
        write_report(run.environment, run.recipe, run.machine, ending)
    except Exception as error:  # noqa: BLE001 - whatever a damaged image or a full disk raises
        message = f"The report was not written: {type(error).__name__}: {error}. Everything else is as it would be."
        emit(Warned(message=message))
