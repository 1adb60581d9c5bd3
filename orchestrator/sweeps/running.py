"""Running the jobs of a sweep: so many at once, each to its end, whatever becomes of the others."""

import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from orchestrator.contract.events import Event
from orchestrator.errors import OrchestratorError, QuotaError
from orchestrator.jobs.job import Job, submit
from orchestrator.planning.plan import Plan
from orchestrator.sweeps.budget import require_share
from orchestrator.sweeps.grid import Variant
from orchestrator.targets.base import JobStatus, Target


class Entry(NamedTuple):
    """A job of the sweep, ready to be started."""

    variant: Variant
    plan: Plan

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.plan.request["TrainingJobName"])


class Watcher(Protocol):
    """Is told how the jobs stand, by their number, from several threads."""

    def says(self, number: int, event: Event) -> None:
        """Hear what a job says of its progress."""

    def stands(self, number: int, words: str) -> None:
        """Hear where a job stands."""


class Ending(NamedTuple):
    """What became of a job."""

    job: Job | None
    """None when it could not be started."""
    error: OrchestratorError | None = None
    """Why it was not started, or lost sight of."""


def check(entries: Sequence[Entry], target: Target) -> None:
    """Raise SpecError when a job that runs already may cost more than its share; starts nothing."""
    known = set(target.names())
    for entry in entries:
        if entry.name not in known:
            continue
        found = target.describe(entry.name)
        if not found.status.is_final:
            require_share(entry.variant.spec, found)


class SweepRun:
    """Starts jobs in the caller's thread, `parallel` at a time, and follows each in a thread of its own.

    A Ctrl-C leaves with the caller: the threads end with the process, and the jobs go on.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        target: Target,
        *,
        parallel: int,
        resume: bool,
    ) -> None:
        self.entries = entries
        self.target = target
        self.resume = resume
        self.endings: dict[int, Ending] = {}
        """What became of each job that has ended."""
        self.running: dict[int, Job] = {}
        """Jobs that were started or attached to, and have not ended."""
        self._at_once = parallel
        self._ended: SimpleQueue[tuple[int, JobStatus | BaseException]] = SimpleQueue()

    def run(self, watcher: Watcher) -> list[Ending]:
        """Run all jobs to their ends and return what became of each, in their order."""
        self._watcher = watcher
        known = set(self.target.names())
        waiting = deque(range(len(self.entries)))
        while waiting or self.running:
            while waiting and len(self.running) < self._at_once:
                first = waiting[0]
                try:
                    self._start(first, known)
                except QuotaError:
                    self._watcher.stands(first, "waits for one of the others: the quota allows no more")
                    self._at_once = len(self.running)
                    break
                waiting.popleft()
            if self.running:
                self._wait_for_one()
        return [self.endings[number] for number in range(len(self.entries))]

    def _start(self, number: int, known: set[str]) -> None:
        """Start a job, or find that it cannot be started; raises QuotaError when one of the others has to end first."""
        entry = self.entries[number]
        resume = self.resume and entry.name in known
        try:
            job, started = submit(entry.plan, self.target, resume=resume)
            was_done = not started and job.describe().status.is_final
        except OrchestratorError as error:
            if isinstance(error, QuotaError) and self.running:
                raise
            ending = Ending(None, error)
            self._end(number, ending, "could not be started")
            return
        if was_done:
            self._end(number, Ending(job), "was done before")
        elif started:
            self._follow(number, job, "is started")
        else:
            self._follow(number, job, "runs already")

    def _follow(self, number: int, job: Job, words: str) -> None:
        self.running[number] = job
        self._watcher.stands(number, words)
        watch = threading.Thread(
            target=self._watch,
            args=(number, job),
            name=job.name,
            daemon=True,
        )
        watch.start()

    def _watch(self, number: int, job: Job) -> None:
        try:
            for event in job.events(follow=True, latest_attempt=True):
                self._watcher.says(number, event)
            described = job.wait()
        except BaseException as error:  # noqa: BLE001  (raised again by _wait_for_one, in the thread that can say it)
            self._ended.put((number, error))
        else:
            self._ended.put((number, described.status))

    def _wait_for_one(self) -> None:
        number, outcome = self._ended.get()
        job = self.running.pop(number)
        if isinstance(outcome, JobStatus):
            self._end(number, Ending(job), outcome.value)
            return
        if not isinstance(outcome, OrchestratorError):
            raise outcome
        ending = Ending(job, outcome)
        self._end(number, ending, "was lost sight of")

    def _end(self, number: int, ending: Ending, words: str) -> None:
        self.endings[number] = ending
        self._watcher.stands(number, words)
