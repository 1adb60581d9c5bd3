"""Waiting for what jobs do, without sleeping: every change wakes whoever waits."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .clock import Clock, ManualClock

if TYPE_CHECKING:
    from .hosting.hosting import Hosting
    from .training.driver import JobDriver
    from .training.job import TrainingJob

_PATIENCE = 300.0  # seconds of real time, for a container that trains on a busy machine; what takes longer is broken


_LONGEST_SLEEP = 2.0  # seconds of real time, while a container of an endpoint begins or ends


class Waiting:
    """The part of the simulator that waits."""

    clock: Clock
    errors: list[Exception]
    job: Callable[[str], "TrainingJob"]
    driver: Callable[["TrainingJob"], "JobDriver"]
    log_lines: Callable[[str], list[str]]
    hosting: "Hosting"
    is_any_working: Callable[[], bool]

    def __init__(self) -> None:
        self._news = threading.Condition()

    def changed(self) -> None:
        """Wake everybody who waits for something."""
        with self._news:
            self._news.notify_all()

    def wait_for(self, happened: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Wait in real time until something is true; raises TimeoutError, or AssertionError if the simulator broke."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not happened():
                if self.errors:
                    raise AssertionError(f"The simulator broke: {self.errors!r}")
                if (left := deadline - time.monotonic()) <= 0:
                    raise TimeoutError(f"It did not happen within {seconds:g} s.")
                self._news.wait(min(left, 0.2))  # what happens outside, in S3 say, wakes nobody

    def wait_for_status(self, name: str, *statuses: str, seconds: float = _PATIENCE) -> None:
        """Wait until a job is in one of these primary or secondary statuses."""
        self.wait_for(lambda: self._is_in(name, statuses), seconds)

    def wait_for_line(self, name: str, text: str, seconds: float = _PATIENCE) -> None:
        """Wait until a job's container has printed a line that contains a text."""
        self.wait_for(lambda: any(text in line for line in self.log_lines(name)), seconds)

    def run_until(self, name: str, *statuses: str, seconds: float = _PATIENCE) -> None:
        """Move the clock through a job's stages, and wait for its container, until it is in one of the statuses.

        Limits do not befall a container that works meanwhile: the clock stands still for it.
        """
        deadline = time.monotonic() + seconds
        while not self._is_in(name, statuses):
            if self.job(name).is_final:
                raise AssertionError(f"{name} is {self.job(name).secondary}, and was never {' or '.join(statuses)}.")
            self._next_change(name, deadline - time.monotonic())

    def run_to_end(self, name: str, seconds: float = _PATIENCE) -> "TrainingJob":
        """Move the clock, and wait for the container, until a job has ended."""
        self.run_until(name, "Completed", "Failed", "Stopped", seconds=seconds)
        return self.job(name)

    def pass_time(self, seconds: float) -> None:
        """Stand in for a command's sleep: the clock moves on, and while a container works, real time passes too.

        A command that polls without a pause would move the clock by hours while a container does the work of a moment.
        A server that loads its model takes seconds, which such a command has to spend too.
        """
        if self.hosting.is_busy:
            deadline = time.monotonic() + min(seconds, _LONGEST_SLEEP)
            with self._news:
                while self.hosting.is_busy and (left := deadline - time.monotonic()) > 0:
                    self._news.wait(min(left, 0.05))
        elif self.is_any_working():
            with self._news:
                self._news.wait(0.02)  # seconds
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)

    def _next_change(self, name: str, seconds: float) -> None:
        driver = self.driver(self.job(name))
        if isinstance(self.clock, ManualClock) and not driver.is_working and driver.next is not None:
            if (timer := driver.next).due >= self.clock.now() and not driver.job.is_final:
                self.clock.advance_to(timer.due)
            return
        before = (driver.job.secondary, driver.is_working, driver.next)
        self.wait_for(lambda: (driver.job.secondary, driver.is_working, driver.next) != before, seconds)

    def _is_in(self, name: str, statuses: tuple[str, ...]) -> bool:
        job = self.job(name)
        return job.status in statuses or job.secondary in statuses
