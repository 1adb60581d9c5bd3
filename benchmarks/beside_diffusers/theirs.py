"""Their side: an example script of diffusers, which is fetched and run as it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

from benchmarks.beside_diffusers.cases import RESOLUTION, UNTRAINED, Settings
from benchmarks.beside_diffusers.sides import OUTPUT, Task
from benchmarks.process_tree import Usage
from orchestrator.resources import BUILTIN_MODEL

SAVED = "saved"
"""Folder of the checkpoints and of the result, in that of the training."""
_RESUMED = re.compile(r"Resuming from checkpoint checkpoint-(\d+)")


class Theirs:
    """A script."""

    name = "diffusers' script"

    def __init__(self, python: str, scripts: Path) -> None:
        self.python = python
        self.scripts = scripts

    def words(self, task: Task, *, again: bool = False) -> list[str]:
        """Return the command, the second time with the option that looks for a checkpoint."""
        words = [self.python, str(self.scripts / task.comparison.script_name)]
        options = dict(options_of(task))
        if again:
            options["resume_from_checkpoint"] = "latest"
        for name, value in options.items():
            words.append(f"--{name}")
            if value is not True:
                words.append(str(value))
        return words

    def variables(self, task: Task) -> Mapping[str, str]:
        """Return what keeps its libraries from the network, and what they keep in the training's folder."""
        return {"HF_HOME": str(task.folder / "hub"), "HF_HUB_OFFLINE": "1"}

    def mark(self, task: Task) -> bytes:
        """Return what its progress bar shows after the first step."""
        return f" 1/{task.steps} [".encode()  # the bars of class pictures count batches, which are fewer

    def first_step(self, task: Task, usage: Usage) -> float:  # noqa: ARG002 - as the other side has it
        """Return when the progress bar was there."""
        if usage.marked is None:
            raise SystemExit("The script printed no progress.")
        return usage.marked

    def weights(self, task: Task) -> Path:
        """Return the file in the script's output folder."""
        return task.folder / SAVED / task.comparison.weights

    def steps_done(self, task: Task) -> int:
        """Return the last step of the progress bar."""
        output = task.folder / OUTPUT
        if not output.is_file():
            return 0
        text = output.read_text(encoding="utf-8", errors="replace")
        steps = re.findall(rf"Steps: [^\r\n]* (\d+)/{task.steps} \[", text)
        return int(steps[-1]) if steps else 0

    def resumed_from(self, task: Task, usage: Usage) -> int | None:  # noqa: ARG002 - as the other side has it
        """Return what the script says."""
        found = _RESUMED.search(usage.output.decode(errors="replace"))
        return int(found[1]) if found else None

    def kill(self, task: Task, process: "Popen[bytes]") -> None:  # noqa: ARG002 - as the other side has it
        """Kill the only process."""
        process.kill()


def options_of(task: Task) -> Settings:
    """Return the script's options."""
    comparison = task.comparison
    budget = comparison.budget
    options: dict[str, object] = {
        "pretrained_model_name_or_path": BUILTIN_MODEL,
        comparison.pictures_option: task.pictures,
        "output_dir": SAVED,
        "seed": task.seed,
        "resolution": RESOLUTION,
        "max_train_steps": budget.steps,
        "train_batch_size": budget.batch,
        "learning_rate": budget.rate,
        "lr_scheduler": budget.schedule,
        "lr_warmup_steps": 0,
        "checkpointing_steps": budget.checkpoint_steps,
    }
    if comparison.start_option:
        options[comparison.start_option] = task.pictures.parent / UNTRAINED
    return {**options, **comparison.theirs, **task.case.theirs}
