"""Our side: `submit` to a new home, with a client, a worker and the training as processes."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

from benchmarks.beside_diffusers.cases import RESOLUTION, Settings
from benchmarks.beside_diffusers.sides import ROOT, Task
from benchmarks.process_tree import Usage
from orchestrator.contract.events import Resumed, Step, parse
from orchestrator.targets.local.job_folder import JobFolder

_WHAT = {"instance_prompt", "placeholder_token", "initializer_token", "conditions", "given_map"}
"""Settings that say what is learned."""


class Ours:
    """A recipe of this repository."""

    name = "orchestrator"

    def words(self, task: Task, *, again: bool = False) -> list[str]:
        """Return the submit, with --resume the second time."""
        words = [sys.executable, "-m", "orchestrator", "submit", task.comparison.recipe, "--name", "trained"]
        words += ["--images", str(task.pictures)]
        for name, value in settings_of(task).items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["-s", f"{name}={text}"]
        if again:
            words.append("--resume")
        return words

    def variables(self, task: Task) -> Mapping[str, str]:
        """Return the home, which is the training's folder."""
        return {"ORCHESTRATOR_HOME": str(task.folder), "PYTHONPATH": str(ROOT)}

    def mark(self, task: Task) -> bytes:  # noqa: ARG002 - as the other side has it
        """Return nothing: the log has the time of each step."""
        return b""

    def first_step(self, task: Task, usage: Usage) -> float:
        """Return the time of the first step in the log, after the start of the command."""
        for event in _events(task):
            if isinstance(event, Step) and event.at is not None:
                return event.at.timestamp() - usage.began
        raise SystemExit("The log of the job tells of no step.")

    def weights(self, task: Task) -> Path:
        """Return the adapter's file."""
        (path,) = task.folder.glob(f"adapters/*/{task.comparison.weights}")
        return path

    def steps_done(self, task: Task) -> int:
        """Return the last step in the log."""
        done = 0
        for event in _events(task):
            if isinstance(event, Step):
                done = event.step
        return done

    def resumed_from(self, task: Task, usage: Usage) -> int | None:  # noqa: ARG002 - as the other side has it
        """Return what the log says."""
        for event in _events(task):
            if isinstance(event, Resumed):
                return event.step
        return None

    def kill(self, task: Task, process: "Popen[bytes]") -> None:
        """Kill the client, the worker and the training, the last one to start first."""
        state = JobFolder(_log(task).parent).state()
        if state is None or state.handle is None or state.worker_pid is None:
            raise SystemExit("The job has no process that can be killed.")
        for pid in (int(state.handle), state.worker_pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()


def settings_of(task: Task) -> Settings:
    """Return what is set with `-s`."""
    comparison = task.comparison
    budget = comparison.budget
    settings: dict[str, object] = {"seed": task.seed, "steps": budget.steps}
    if task.case.by_default:
        return settings | _task_of(comparison.ours)
    settings |= {
        "batch_size": budget.batch,
        "learning_rate": budget.rate,
        "lr_schedule": budget.schedule,
        "resolution": RESOLUTION,
        "checkpoint_steps": budget.checkpoint_steps,
        "evaluation_prompts": 0,
    }
    return {**settings, **comparison.ours, **task.case.ours}


def _task_of(settings: Settings) -> dict[str, object]:
    """Return those that say what is learned, and not how."""
    return {name: value for name, value in settings.items() if name in _WHAT}


def _log(task: Task) -> Path:
    """Return the log of the only job in the home, which may not be there yet."""
    found = sorted(task.folder.glob("jobs/*/log.txt"))
    return found[0] if found else task.folder / "jobs" / "none" / "log.txt"


def _events(task: Task) -> Iterator[object]:
    """Yield what the job has told so far."""
    log = _log(task)
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        event = parse(line)
        if event is not None:
            yield event
