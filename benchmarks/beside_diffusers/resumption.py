"""Whether a training that is killed ends with the same file as one that is not."""

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from benchmarks.beside_diffusers.sides import OUTPUT, VARIABLES, Side, Task, run, train

KILLED_AFTER = 0.75
"""Share of the steps; the checkpoint is at half of them."""
EQUAL = "equal"
_POLL_SECONDS = 0.02


class Resumption(NamedTuple):
    """What came of a kill."""

    twice: str
    """How the file of the same command run once more, without a kill, differs: what a kill is not to blame for."""
    killed_at: int
    """Last step that was told of before the kill."""
    resumed_from: int | None
    """Step that the second command went on from; None when it began anew."""
    ended: str
    """How the file differs from that of the uninterrupted training."""

    @property
    def done_again(self) -> int:
        """Steps that were done twice."""
        return self.killed_at - (self.resumed_from or 0)

    @property
    def verdict(self) -> str:
        """How it ended, in words."""
        if self.resumed_from is None:
            return f"starts over; {self.ended}"
        return self.ended


def resumption(side: Side, task: Task, uninterrupted: Path) -> Resumption:
    """Train again twice, the second time with a kill; `uninterrupted` is the file of an earlier training."""
    once_more = task._replace(folder=task.folder / "once-more")
    train(side, once_more)
    twice = difference(uninterrupted, side.weights(once_more))
    killed = task._replace(folder=task.folder / "killed")
    killed_at = kill_on_the_way(side, killed)
    usage = run(side, killed, again=True)
    resumed_from = side.resumed_from(killed, usage)
    if usage.exit_code != 0:
        lines = usage.output.decode(errors="replace").strip().splitlines()
        return Resumption(twice, killed_at, resumed_from, f"fails: {lines[-1]}")
    return Resumption(twice, killed_at, resumed_from, difference(uninterrupted, side.weights(killed)))


def kill_on_the_way(side: Side, task: Task) -> int:
    """Start a training, kill it with SIGKILL at three quarters of its steps, and return the last step it told of."""
    task.folder.mkdir(parents=True)
    last = int(task.steps * KILLED_AFTER)
    path = task.folder / OUTPUT
    with path.open("wb") as output:
        process = subprocess.Popen(
            side.words(task),
            env={**os.environ, **VARIABLES, **side.variables(task)},
            cwd=task.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        while side.steps_done(task) < last:
            if process.poll() is not None:
                text = path.read_text(encoding="utf-8", errors="replace")
                raise SystemExit(f"It ended before it could be killed.\n{text}")
            time.sleep(_POLL_SECONDS)
        side.kill(task, process)
        process.wait()
    done = side.steps_done(task)
    if done >= task.steps:
        raise SystemExit(f"It had taken all {done} steps before it was killed; try again with more.")
    return done


def difference(one: Path, other: Path) -> str:
    """Return in words how a file of weights differs from another."""
    if one.read_bytes() == other.read_bytes():
        return EQUAL
    tensors = load_file(one)
    others = load_file(other)
    if tensors.keys() != others.keys():
        return "differs in the names of its tensors"
    largest = 0.0
    scale = 0.0
    for name, values in tensors.items():
        if values.shape != others[name].shape:
            return f"differs in the shape of {name}"
        largest = max(largest, float(np.abs(values - others[name]).max()))
        scale = max(scale, float(np.abs(values).max()))
    if largest == 0:
        return "equal but for its header"
    return f"differs, largest difference {largest:.2g} of weights up to {scale:.2g}"
