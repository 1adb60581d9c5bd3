"""`python -m benchmarks.beside_trl --python PYTHON`: train both, judge both, and write the section of the page.

PYTHON is an interpreter with trl 0.23.1, diffusers 0.35, transformers 4 and torch. Both train a LoRA of the same rank
on the same layers of the built-in model, on the same prompts, with the same number of images, steps and updates, one
after the other on one thread.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from entrypoints.runtime import libraries  # noqa: E402

libraries.apply_settings()

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from benchmarks.kill import TRAININGS, Tally, adapter_hashes, kill_through  # noqa: E402
from benchmarks.process_tree import Usage, measure  # noqa: E402
from benchmarks.reinforcement.experiments import COMPRESSIBILITY, INCOMPRESSIBILITY  # noqa: E402
from benchmarks.reinforcement.judging import HELD_OUT, Judged, judge  # noqa: E402
from benchmarks.reinforcement.page import mean, raised  # noqa: E402
from benchmarks.report import write_section  # noqa: E402
from benchmarks.results.runs import run_command  # noqa: E402
from orchestrator.contract.prompt_file import parse_prompts  # noqa: E402
from orchestrator.resources import BUILTIN_MODEL, sample_prompts  # noqa: E402
from orchestrator.settings import Settings  # noqa: E402
from orchestrator.storage import folder_of  # noqa: E402

THEIRS = Path(__file__).with_name("theirs.py")
RANK = 4
"""Of trl's LoRA, which it does not let one choose; on the projections of attention."""
BATCH_SIZE = 16
WEIGHTS = "pytorch_lora_weights.safetensors"
TITLE = "Beside trl: ddpo"
KILLS = 3


class Budget(NamedTuple):
    """What both are given."""

    rounds: int
    batches: int = 4
    updates: int = 2
    steps: int = 8
    """At some numbers, as 10, 20 and 25, diffusers' DDIM, which trl copies, takes the root of a rounding error below 0
    on a model that was trained down to pure noise, and draws nothing but NaN."""
    guidance: float = 2.0
    learning_rate: float = 2e-3
    clip_range: float = 1e-3
    weight_decay: float = 1e-4
    advantage_clip: float = 5.0
    memory: int = 16


class Trained(NamedTuple):
    """What one of them did."""

    usage: Usage
    judged: Judged


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, judge, and write the section."""
    grammar = argparse.ArgumentParser(prog="python -m benchmarks.beside_trl", description=__doc__)
    grammar.add_argument("--python", type=Path, required=True, help="an interpreter with trl 0.23.1")
    grammar.add_argument("--rounds", type=int, default=12)
    grammar.add_argument("--learning-rate", type=float, default=Budget(1).learning_rate)
    chosen = grammar.parse_args(arguments)
    budget = Budget(chosen.rounds, learning_rate=chosen.learning_rate)
    torch.set_num_threads(1)
    libraries.quieten()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = judge(None)
        ours = train_ours(work, budget)
        theirs = train_theirs(work, chosen.python, budget, "whole")
        difference = difference_after_resume(work, chosen.python)
        is_equal = ours_is_equal_after_kills(work)
    write_section(TITLE, body(budget, base, ours, theirs, resumed_row(difference, is_equal=is_equal)))


def train_ours(work: Path, budget: Budget) -> Trained:
    """Train with the product."""
    prompts = budget.batches * BATCH_SIZE // 8
    settings: dict[str, Any] = {
        "algorithm": "ddpo",
        "rewards": json.dumps([COMPRESSIBILITY]),
        "rounds": budget.rounds,
        "prompts_per_round": prompts,
        "group_size": 8,
        "batch_size": BATCH_SIZE,
        "updates": budget.updates,
        "sampler_steps": budget.steps,
        "guidance_scale": budget.guidance,
        "learning_rate": budget.learning_rate,
        "clip_range": budget.clip_range,
        "weight_decay": budget.weight_decay,
        "advantage_clip": budget.advantage_clip,
        "reward_memory": budget.memory,
        "rank": RANK,
        "targets": "attention",
        "held_out_prompts": HELD_OUT,
        "validation_steps": budget.rounds * budget.updates,
        "evaluation_prompts": 0,
    }
    words = ["submit", "rlhf", "--name", "ours", "--json"]
    for name, value in settings.items():
        words += ["-s", f"{name}={value}"]
    usage, described = run_command(words, work / "home", work)
    return Trained(usage, judge(folder_of(described["output"])))


def train_theirs(work: Path, python: Path, budget: Budget, name: str, resume_from: str = "") -> Trained:
    """Train with trl, and judge its adapter."""
    usage = run_theirs(work, python, budget, name, resume_from)
    return Trained(usage, judge(work / name / "adapter"))


def run_theirs(work: Path, python: Path, budget: Budget, name: str, resume_from: str = "") -> Usage:
    """Train with trl into a folder of a name."""
    prompts = work / "prompts.txt"
    text = sample_prompts(builtin=True).read_bytes()
    trained_on = parse_prompts(text).prompts[:-HELD_OUT]
    prompts.write_text("\n".join(trained_on), encoding="utf-8")
    command = [str(python), str(THEIRS), "--base", str(BUILTIN_MODEL), "--prompts", str(prompts)]
    command += ["--output", str(work / name), "--batch-size", str(BATCH_SIZE)]
    for field, value in budget._asdict().items():
        command += [f"--{field.replace('_', '-')}", str(value)]
    if resume_from:
        command += ["--resume-from", resume_from]
    return measured(command, work)


def difference_after_resume(work: Path, python: Path) -> float:
    """Return how far trl's weights differ when a run of two rounds is resumed after the first."""
    short = Budget(rounds=2, batches=2, updates=1, steps=4)
    run_theirs(work, python, short, "uninterrupted")
    first = work / "uninterrupted" / "checkpoints" / "checkpoint_0"
    run_theirs(work, python, short, "resumed", str(first))
    one = load_file(work / "uninterrupted" / "adapter" / WEIGHTS)
    other = load_file(work / "resumed" / "adapter" / WEIGHTS)
    differences = [float((one[name] - other[name]).abs().max()) for name in one]
    return max(differences)


def ours_is_equal_after_kills(work: Path) -> bool:
    """Whether our adapter is the same to the byte when a small run is killed three times and resumed."""
    settings = Settings(home=work / "killed")
    (training,) = [one for one in TRAININGS if one.name == "ddpo"]
    expected = adapter_hashes(settings, "uninterrupted", training)
    dice = random.Random(0)  # noqa: S311  (for faults, not for secrets)
    tally = Tally()
    found = kill_through(settings, "killed", KILLS, dice, tally, training)
    if tally.kills < KILLS:
        raise SystemExit(f"it was killed {tally.kills} times only")
    return found == expected


def measured(command: list[str], work: Path) -> Usage:
    """Run a command on one thread; raises SystemExit with what it said when it fails."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    usage = measure(command, threads, work)
    if usage.exit_code != 0:
        output = usage.output.decode(errors="replace")
        raise SystemExit(f"{' '.join(command)}\n{output}")
    return usage


def resumed_row(difference: float, *, is_equal: bool) -> str:
    """Return the line of the table that says what a resumed run ends in."""
    ours = f"equal after {KILLS} kills" if is_equal else "DIFFERS"
    theirs = "equal" if difference == 0 else f"weights differ by up to {difference:.3g}"
    return f"| resumed | {ours} | {theirs} | |"


def body(budget: Budget, base: Judged, ours: Trained, theirs: Trained, resumed: str) -> str:
    """Return the section; `resumed` is its last line."""
    rounds = budget.rounds
    images = rounds * budget.batches * BATCH_SIZE
    rows = ["| | ours | trl 0.23.1 | ours / theirs |", "| --- | --- | --- | --- |"]
    of_base = mean(base, INCOMPRESSIBILITY)
    raises = []
    for one in (ours, theirs):
        kilobytes = mean(one.judged, INCOMPRESSIBILITY)
        up = raised(base, one.judged, INCOMPRESSIBILITY, -1)
        raises.append(f"{kilobytes:.3f} kB ({kilobytes / of_base - 1:+.0%}), raised by {up.text(2)}")
    rows.append(f"| held-out images, {of_base:.3f} kB before | {raises[0]} | {raises[1]} | |")
    seconds = [one.usage.cpu_seconds for one in (ours, theirs)]
    each = [value / rounds for value in seconds]
    rows.append(f"| CPU seconds a round, all included | {each[0]:.1f} | {each[1]:.1f} | {each[0] / each[1]:.2f}x |")
    peaks = [one.usage.peak_bytes / 1e6 for one in (ours, theirs)]
    rows.append(f"| peak memory, MB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f}x |")
    rows.append(resumed)
    summary = (
        f"The reward {COMPRESSIBILITY} on the built-in model: {rounds} rounds, {images} queries, {budget.steps} steps, "
        f"guidance {budget.guidance:g}, {budget.updates} updates a round, LoRA of rank {RANK} on attention, rate "
        f"{budget.learning_rate:g}, clip range {budget.clip_range:g}. Raised: in standard deviations among the images "
        "of the base model, with a 95 % interval over 16 prompts that neither has trained on."
    )
    return "\n".join([summary, "", *rows])


if __name__ == "__main__":
    main()
