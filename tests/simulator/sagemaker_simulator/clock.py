"""Time, and what is to happen at which time: on a clock that a test owns, or on the one on the wall.

What is scheduled is called an action. Actions run one at a time, in the order in which they are due, and never wait
for a thread: threads hand their news over with `post`.
"""

import heapq
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

Action = Callable[[], None]


@dataclass(order=True)
class Timer:
    """An action that waits for its time."""

    due: datetime
    order: int
    action: Action = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Clock(ABC):
    """What the two clocks have in common: the timers."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._running = threading.RLock()

    @abstractmethod
    def now(self) -> datetime:
        """Return the time, in UTC."""

    @abstractmethod
    def post(self, action: Action) -> None:
        """Run an action now, after the one that may be running."""

    def after(self, seconds: float, action: Action) -> Timer:
        """Run an action when so many seconds have passed."""
        with self._changed:
            timer = Timer(self.now() + timedelta(seconds=seconds), next(self._order), action)
            heapq.heappush(self._timers, timer)
            self._changed.notify_all()
        return timer

    def run_now(self, action: Action) -> None:
        """Run an action on this thread, between the others."""
        with self._running:
            action()

    def close(self) -> None:
        """Run nothing any more."""
        with self._changed:
            self._timers.clear()

    def _pop_due(self, until: datetime) -> Timer | None:
        with self._changed:
            while self._timers and (self._timers[0].cancelled or self._timers[0].due <= until):
                timer = heapq.heappop(self._timers)
                if not timer.cancelled:
                    return timer
        return None


class ManualClock(Clock):
    """Stands still until the test moves it; everything that falls due on the way happens before `advance` returns."""

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__()
        # CloudWatch takes no events from more than two hours ahead: a day of room for tests that move the clock.
        self._now = start or datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        with self._running:
            self.advance_to(self._now + timedelta(seconds=seconds))

    def advance_to(self, moment: datetime) -> None:
        """Let time pass until a moment; nothing happens when it has passed."""
        with self._running:
            while timer := self._pop_due(moment):
                self._now = max(self._now, timer.due)
                timer.action()
            self._now = max(self._now, moment)

    def post(self, action: Action) -> None:
        self.run_now(action)


class WallClock(Clock):
    """Runs by itself, for tests whose subject is a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sagemaker-simulator-clock", daemon=True)
        self._thread.start()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def post(self, action: Action) -> None:
        self.after(0, action)

    def close(self) -> None:
        super().close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            timer = self._pop_due(self.now())
            if timer is not None:
                with self._running:
                    timer.action()
                continue
            with self._changed:
                if not self._closed and not (self._timers and self._timers[0].due <= self.now()):
                    self._changed.wait(self._seconds_to_next())

    def _seconds_to_next(self) -> float | None:
        if not self._timers:
            return None
        return max((self._timers[0].due - self.now()).total_seconds(), 0.001)
