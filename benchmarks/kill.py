"""Kill real jobs at random moments, resume them, and compare the adapter with that of an uninterrupted run.

`python -m benchmarks.kill` does a hundred kills and writes the table; the test suite does a few with the same code.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from benchmarks.checkpoint_copy import LOSSES, run_schedule
from benchmarks.report import write_section
from orchestrator.contract.events import Phase
from orchestrator.jobs import job as jobs
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import plan_here, store_trees
from orchestrator.settings import Settings
from orchestrator.specs.building import build_spec
from orchestrator.storage import FolderStore
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.names import TargetName
from orchestrator.targets.opening import open_target

KILLS = 100
MOST_RUNS = 5 * KILLS
SCHEDULES = 1000
MOST_RESUMES = 20
"""Of one job: a training that fails by itself is not tried for ever."""
VICTIMS = ("training process", "worker", "both")
# Small, but with every phase: accumulation, checkpoints at every step, pictures at the end.
SMALL = {
    "steps": 12,
    "checkpoint_steps": 1,
    "batch_size": 1,
    "gradient_accumulation": 2,
    "evaluation_prompts": 2,
    "evaluation_seeds": 2,
    "inference_steps": 4,
}


class Training(NamedTuple):
    """What is trained, and killed."""

    name: str
    recipe: str
    settings: Mapping[str, object]
    """What differs from SMALL."""
    job: Mapping[str, object] = {}
    """Fields of the job beside its recipe and settings."""


DREAMBOOTH = Training("dreambooth", "dreambooth", {"prior_preservation": True, "class_images": 4})
# In the place of steps: rounds of drawing, scoring and two optimizer steps.
ROUNDS = {
    "rounds": 3,
    "prompts_per_round": 2,
    "group_size": 2,
    "updates": 2,
    "sampler_steps": 4,
    "held_out_prompts": 2,
}
TRAININGS = (
    DREAMBOOTH,
    Training(
        "pivotal",
        "dreambooth",
        {"pivotal": True, "rare_token": "<sks>", "instance_prompt": "a photo of <sks> monster", "ema_decay": 0.9},
    ),
    Training("full", "dreambooth", {"tuner": "full", "optimizer": "adafactor", "checkpoint_steps": 4}),
    Training("lora", "lora", {"tuner": "loha", "optimizer": "prodigy"}),
    Training("textual-inversion", "textual-inversion", {}),
    Training("ddpo", "rlhf", {"algorithm": "ddpo", **ROUNDS}),
    Training("nft", "rlhf", {"algorithm": "nft", **ROUNDS}),
    Training("controlnet", "controlnet", {"conditions": ["canny", "palette"], "obeyed_by": 8, "watched_images": 3}),
)


@dataclass
class Tally:
    """What the kills met."""

    kills: int = 0
    runs: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    trainings: Counter[str] = field(default_factory=Counter)


def adapter_hashes(settings: Settings, name: str, training: Training = DREAMBOOTH) -> dict[str, str]:
    """Run the job to its end, resuming it as often as needed, and return the sha256 of each of its adapter's files."""
    job = submitted(settings, name, training)
    for _ in range(MOST_RESUMES):
        if job.wait().status is JobStatus.COMPLETED:
            break
        job.resume()
    manifest = job.finished().manifest
    if manifest is None:
        raise SystemExit(f"{name} left no adapter: python -m orchestrator jobs explain {job.name}")
    return {file: digest.sha256 for file, digest in manifest.files.items()}


def kill_once(settings: Settings, name: str, training: Training, dice: random.Random, tally: Tally) -> bool:
    """Let the job run to a random moment and kill it there; return whether it still had to be resumed after that."""
    job = submitted(settings, name, training)
    if job.describe().status is not JobStatus.IN_PROGRESS:
        job.resume()
    left, phase = dice.randint(1, 30), "starting"
    for event in job.events(follow=True, latest_attempt=True):
        phase = event.name if isinstance(event, Phase) else phase
        left -= 1
        if left == 0:
            time.sleep(dice.uniform(0, 0.2))  # into the middle of what comes next: a step, a checkpoint, a picture
            victim = dice.choice(VICTIMS)
            if kill_processes(settings, job.name, victim):
                tally.kills += 1
                tally.phases[phase] += 1
                tally.victims[victim] += 1
                tally.trainings[training.name] += 1
            break
    return job.wait().status is not JobStatus.COMPLETED


def kill_through(
    settings: Settings,
    name: str,
    kills: int,
    dice: random.Random,
    tally: Tally,
    training: Training = DREAMBOOTH,
) -> dict[str, str]:
    """Kill one job up to `kills` times, then let it end; return its adapter's hashes."""
    for _ in range(kills):
        if not kill_once(settings, name, training, dice, tally):
            break
    tally.runs += 1
    return adapter_hashes(settings, name, training)


def submitted(settings: Settings, name: str, training: Training) -> jobs.Job:
    """Return the job of a training under a name, started if there was none."""
    # The adapter's name is no part of its bytes: runs of different names can be compared.
    chosen = {**SMALL, **training.settings}
    if "rounds" in chosen:  # which the number of steps and of forward passes follows from
        del chosen["steps"], chosen["gradient_accumulation"]
    spec = build_spec({"recipe": training.recipe, "name": name, "settings": chosen, **training.job})
    with tempfile.TemporaryDirectory() as staging:
        plan = plan_here(spec, settings, prepare_inputs(spec, Path(staging)))
        store_trees(plan, FolderStore(settings.store))
    target = open_target(TargetName.LOCAL, settings)
    if target.has(plan.request["TrainingJobName"]):
        return jobs.find(plan.request["TrainingJobName"], [target])
    return jobs.submit(plan, target).job


def kill_processes(settings: Settings, name: str, victim: str) -> bool:
    """Kill processes of a running job; return whether one was hit."""
    state = JobFolder(settings.jobs / name).state()
    if state is None or state.status.is_final:
        return False
    training_pid = int(state.handle) if state.handle else None
    pids = {"training process": [training_pid], "worker": [state.worker_pid]}
    hits = [_send_kill(pid) for pid in pids.get(victim, [state.worker_pid, training_pid]) if pid]
    return True in hits


def _send_kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended in the same moment
        return False
    return True


def copied_checkpoints(schedules: int) -> Counter[str]:
    """Run schedules of the checkpoint copier and return what they met; raises WrongCheckpointError."""
    met: Counter[str] = Counter()
    for seed in range(schedules):
        with tempfile.TemporaryDirectory() as folder:
            met += run_schedule(Path(folder), seed)
    return met


def report_copies() -> None:
    """Run the schedules and write their section."""
    met = copied_checkpoints(SCHEDULES)
    rows = [f"| {what} | {count} |" for what, count in sorted(met.items())]
    summary = (
        f"{SCHEDULES} schedules of a run that loses its instance {LOSSES} times while SageMaker's copying of "
        "checkpoints\nis at work: every time the newest whole checkpoint was found, and no other."
    )
    write_section("Copied checkpoints", "\n".join([summary, "", "| what | times |", "| --- | --- |", *rows]))


def main() -> int:
    """Kill until there were enough, write the table, and return 1 when an adapter differed."""
    report_copies()
    dice, tally, unequal = random.Random(0), Tally(), 0  # noqa: S311  (dice for faults, not for secrets)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        settings = Settings(home=Path(home))
        references = {}
        for training in TRAININGS:
            references[training.name] = adapter_hashes(settings, f"reference-{training.name}", training)
        for training in cycle(TRAININGS):
            hashes = kill_through(settings, f"killed-{tally.runs}", 10, dice, tally, training)
            unequal += hashes != references[training.name]
            print(f"{tally.kills} kills, {tally.runs} runs, {unequal} unequal", flush=True)
            if tally.kills >= KILLS or tally.runs >= MOST_RUNS:
                break
    spared = [training.name for training in TRAININGS if not tally.trainings[training.name]]
    if spared or tally.kills < KILLS:
        raise SystemExit(f"{tally.kills} kills in {tally.runs} runs; no run was killed of: {', '.join(spared)}.")
    report_kills(tally, unequal)
    return int(unequal > 0)


def report_kills(tally: Tally, unequal: int) -> None:
    """Write the section of the kills."""
    counted = [*tally.trainings.items(), *tally.victims.items(), *tally.phases.items()]
    rows = [f"| {what} | {count} |" for what, count in counted]
    summary = f"{tally.kills} kills in {tally.runs} runs; {unequal} adapters differ from the uninterrupted run's."
    head = ["| trained, killed, or in the phase | times |", "| --- | --- |"]
    write_section("Kill and resume", "\n".join([summary, "", *head, *rows]))


if __name__ == "__main__":
    sys.exit(main())
