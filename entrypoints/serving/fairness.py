"""Deficit round robin (Shreedhar and Varghese, 1996): many requests for one adapter do not keep others waiting.

Each flow, here an adapter or a set of them, waits in a line of its own. In its turn a flow may spend a fixed amount of
work and what it has saved; what its first request costs more than that, it saves for its next turn.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Line(Generic[Item]):
    items: deque[tuple[Item, float]] = field(default_factory=deque)
    """Each with its cost."""
    saved: float = 0.0


class FairQueue(Generic[Item]):
    """Requests in the order in which they are to be served."""

    def __init__(self, quantum: float) -> None:
        self.quantum = quantum
        """Work of a flow in its turn, in the unit of the costs."""
        self._lines: OrderedDict[Hashable, _Line[Item]] = OrderedDict()  # the flow whose turn it is comes first

    def __len__(self) -> int:
        return sum(len(line.items) for line in self._lines.values())

    def add(
        self,
        flow: Hashable,
        item: Item,
        cost: float,
    ) -> None:
        """Put a request at the end of its flow's line."""
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = _Line()
        line.items.append((item, cost))

    def take(self, fits: Callable[[Item], bool]) -> Item | None:
        """Return the next request, out of its line; None when no flow's first one fits where it would go.

        A flow whose first request does not fit is passed over, and saves nothing.
        """
        passed_over = 0
        while self._lines and passed_over < len(self._lines):
            flow = next(iter(self._lines))
            line = self._lines[flow]
            item, cost = line.items[0]
            if not fits(item):
                self._lines.move_to_end(flow)
                passed_over += 1
                continue
            passed_over = 0
            if line.saved < cost:
                line.saved += self.quantum
            if line.saved < cost:
                self._lines.move_to_end(flow)
                continue
            line.items.popleft()
            line.saved -= cost
            if not line.items:
                del self._lines[flow]  # who has nothing to do saves nothing
                return item
            _, next_cost = line.items[0]
            if line.saved < next_cost:
                self._lines.move_to_end(flow)
            return item
        return None

    def remove(self, is_gone: Callable[[Item], bool]) -> list[Item]:
        """Take out every request that is gone and return them."""
        removed: list[Item] = []
        for flow, line in list(self._lines.items()):
            kept: deque[tuple[Item, float]] = deque()
            for item, cost in line.items:
                if is_gone(item):
                    removed.append(item)
                else:
                    kept.append((item, cost))
            line.items = kept
            if not kept:
                del self._lines[flow]
        return removed
