"""Kill reinforcement learning in each of its phases, and compare the adapter with that of an uninterrupted run.

`python -m benchmarks.phases` kills twenty times in each phase of each algorithm: while images are drawn, while they are
scored, while the job waits for people, and while it learns. People are simulated: they label a round when the job asks.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.kill import ROUNDS, VICTIMS, Training, kill_processes, submitted
from benchmarks.report import write_section
from orchestrator.contract.events import TRAINING_PHASE, Phase
from orchestrator.contract.labels import LABELS_PHASE, Label
from orchestrator.jobs.exchanges import exchange_of
from orchestrator.labels.exchange import Exchange
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus

SAMPLING, SCORING = "sampling", "scoring"
WAITING = LABELS_PHASE.strip()
PHASES = (SAMPLING, SCORING, WAITING, TRAINING_PHASE)
"""How the names of the phases begin."""
KILLS = 20
KILLS_OF_A_RUN = 4
MOST_RUNS = 2 * KILLS
"""Of one phase: kills that miss do not go on for ever."""
MOST_ATTEMPTS = 40
"""Of one run."""
LONGEST_PAUSE = 0.15
"""Seconds from the beginning of a phase to the kill: into the middle of it."""
SETTINGS = {**ROUNDS, "rewards": ["human", "jpeg-compressibility:0.1"]}
TRAININGS = (
    Training("ddpo", "rlhf", {"algorithm": "ddpo", **SETTINGS}, {"wait": "hold"}),
    Training("nft", "rlhf", {"algorithm": "nft", **SETTINGS}, {"wait": "hold"}),
)


class Run:
    """One job, which is killed in one phase."""

    def __init__(self, settings: Settings, name: str, training: Training, dice: random.Random) -> None:
        self.settings = settings
        self.job = submitted(settings, name, training)
        self.exchange = exchange_of(self.job.target, self.job.name)
        self.dice = dice

    def to_the_end(self, phase: str | None, kills: int, victims: Counter[str]) -> dict[str, str]:
        """Kill up to `kills` times in a phase, let it end, and return the sha256 of each of its adapter's files."""
        for _ in range(MOST_ATTEMPTS):
            victim = self.dice.choice(VICTIMS) if kills else None
            if self._attempt(phase, victim):
                kills -= 1
                victims[str(victim)] += 1
            if self.job.wait().status is JobStatus.COMPLETED:
                break
            self.job.resume()
        manifest = self.job.finished().manifest
        if manifest is None:
            raise SystemExit(f"no adapter: python -m orchestrator jobs explain {self.job.name}")
        return {file: digest.sha256 for file, digest in manifest.files.items()}

    def _attempt(self, phase: str | None, victim: str | None) -> bool:
        """Follow an attempt, label what it asks about, and kill it in the phase; return whether it was hit.

        One in three of the phases is let pass, so that later rounds are met too.
        """
        for event in self.job.events(follow=True, latest_attempt=True):
            if not isinstance(event, Phase):
                continue
            is_hit = phase is not None and event.name.startswith(phase) and self.dice.random() < 2 / 3
            asks = event.name.startswith(WAITING)
            number = int(event.name.rpartition(" ")[2]) if asks else 0
            if is_hit and victim is not None:
                if asks and self.dice.random() < 1 / 2:
                    label(self.exchange, number, share=self.dice.random())
                time.sleep(self.dice.uniform(0, LONGEST_PAUSE))
                return kill_processes(self.settings, self.job.name, victim)
            if asks:
                label(self.exchange, number)
        return False


def label(exchange: Exchange, number: int, share: float = 1.0) -> None:
    """Rate the first images of a round, as a person would who always says the same of an image."""
    manifest = exchange.manifest(number)
    count = round(share * len(manifest.samples))
    lines = ""
    for place, sample in enumerate(manifest.samples[:count]):
        said = Label(
            id=sample.id[::-1],
            by="ada",
            at="2026-11-01T12:00:00Z",  # type: ignore[arg-type]  # parsed
            sample=sample.id,
            rating=1 + (3 * place + number) % 5,
        )
        lines += said.line()
    exchange.put_labels(number, "ada.jsonl", lines.encode())


class Killed(NamedTuple):
    """What came of the kills of one algorithm."""

    rows: list[str]
    """Of the table, one for each phase."""
    unequal: int
    """Runs whose adapter differed."""


def kill_in_each_phase(settings: Settings, training: Training) -> Killed:
    """Kill a training until there were enough kills in each phase; raises SystemExit when they go on missing."""
    dice = random.Random(training.name)  # noqa: S311  (for faults, not for secrets)
    whole = Run(settings, f"whole-{training.name}", training, dice)
    reference = whole.to_the_end(None, 0, Counter())
    killed = Killed([], 0)
    for phase in PHASES:
        victims: Counter[str] = Counter()
        runs = 0
        differing = 0
        while victims.total() < KILLS:
            if runs == MOST_RUNS:
                raise SystemExit(f"{victims.total()} kills in {runs} runs of {training.name}, {phase}")
            left = min(KILLS_OF_A_RUN, KILLS - victims.total())
            run = Run(settings, f"{training.name}-{phase.split()[0]}-{runs}", training, dice)
            differing += run.to_the_end(phase, left, victims) != reference
            runs += 1
            print(f"{training.name}, {phase}: {victims.total()} kills, {differing} unequal", flush=True)
        hit = ", ".join(f"{victim} {count}" for victim, count in sorted(victims.items()))
        row = f"| {training.name} | {phase} | {victims.total()} | {hit} | {runs} | {differing} |"
        killed = Killed([*killed.rows, row], killed.unequal + differing)
    return killed


def main() -> int:
    """Kill the algorithms side by side, write the table, and return 1 when an adapter differed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        settings = Settings(home=Path(home))
        with ThreadPoolExecutor() as side_by_side:
            found = list(side_by_side.map(partial(kill_in_each_phase, settings), TRAININGS))
    rows: list[str] = []
    unequal = 0
    for killed in found:
        rows += killed.rows
        unequal += killed.unequal
    head = ["| algorithm | phase | kills | of | runs | unequal |", "| --- | --- | --- | --- | --- | --- |"]
    summary = (
        f"Reinforcement learning with the reward of simulated people, killed in each phase; {unequal} adapters differ "
        "from the uninterrupted run's."
    )
    write_section("Kill and resume in each phase of reinforcement learning", "\n".join([summary, "", *head, *rows]))
    return int(unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
