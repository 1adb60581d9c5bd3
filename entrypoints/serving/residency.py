"""Which adapters lie in slots: the least recently used one makes room, unless a request that is drawn holds it."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.low_rank_file import LowRankWeights
from entrypoints.serving.slots import Slot, SlotNetwork, rank_of


@dataclass
class Resident:
    """An adapter in a slot."""

    sha256: str
    """Of its files."""
    slot: Slot
    generation: int
    """Counts what was written into any slot, so that two answers of one generation had the same weights."""
    holders: int = 0
    """Requests that are drawn with it."""


class SlotTable:
    """The slots of all networks of a base model; it is used by the thread that draws."""

    def __init__(
        self,
        networks: Mapping[str, SlotNetwork],
        slots: int,
        memory_bytes: int = 2**33,
    ) -> None:
        self.networks = networks
        """By part of the base model."""
        self.slots = slots
        """Of each rank, where memory suffices."""
        self.memory_bytes = memory_bytes
        """Of the slots of all ranks."""
        self.bytes = 0
        """That the slots take, full or empty."""
        self.hits = 0
        self.reads = 0
        self.evictions = 0
        self._slots: dict[int, int] = {}  # of each rank that has some
        self._residents: OrderedDict[str, Resident] = OrderedDict()  # the least recently used first
        self._generation = 0

    def could_hold(self, adapters: Mapping[str, LowRankWeights | None]) -> bool:
        """Whether all of some adapters lie in slots, or could be put there now; those without weights need none.

        Adapters that would not fit into an empty table are said to fit: `hold` refuses them with a reason.
        """
        wanted: dict[int, int] = {}
        for weights in adapters.values():
            if weights is not None:
                rank = slot_rank(weights)
                wanted[rank] = wanted.get(rank, 0) + 1
        for rank, count in wanted.items():
            held = 0
            for resident in self._residents.values():
                is_of_rank = resident.slot.rank == rank
                is_other = resident.sha256 not in adapters
                if is_of_rank and is_other and resident.holders:
                    held += 1
            if held and held + count > self._slots.get(rank, self.slots):
                return False
        return True

    def hold(self, sha256: str, weights: LowRankWeights) -> Resident:
        """Put an adapter into a slot, unless it is in one, and hold it there.

        Raises TrainingError("memory") when all slots of its rank are held, or take more memory than they may.
        """
        resident = self._residents.get(sha256)
        if resident is None:
            resident = self._place(sha256, weights)
            self.reads += 1
        else:
            self.hits += 1
        self._residents.move_to_end(sha256)
        resident.holders += 1
        return resident

    def release(self, resident: Resident) -> None:
        """Hold an adapter once less."""
        resident.holders -= 1

    def holds(self, sha256: str) -> bool:
        """Whether an adapter lies in a slot."""
        return sha256 in self._residents

    def __len__(self) -> int:
        return len(self._residents)

    def _place(self, sha256: str, weights: LowRankWeights) -> Resident:
        rank = slot_rank(weights)
        slots, growth = self._planned(rank, weights)
        index = self._free_index(rank, slots)
        if index is None:
            message = f"All {slots} slots for adapters of rank {rank} are in use by this request alone."
            raise TrainingError(
                "memory",
                message,
                "draw with fewer adapters at once",
            )
        slot = Slot(rank, index)
        for part, network in self.networks.items():
            network.put(slot, slots, weights.parts.get(part, {}))
        self._slots[rank] = slots
        self.bytes += growth
        self._generation += 1
        resident = Resident(sha256, slot, self._generation)
        self._residents[sha256] = resident
        return resident

    def _planned(self, rank: int, weights: LowRankWeights) -> tuple[int, int]:
        """Return how many slots a rank has, and the bytes by which they grow for an adapter.

        The first adapter of a rank decides how many: they take half of the memory that is left, so that other ranks
        have some too. Raises TrainingError("memory") when there is too little for them.
        """
        of_one = 0
        for part, network in self.networks.items():
            of_one += network.growth(rank, weights.parts.get(part, {}))
        left = self.memory_bytes - self.bytes
        slots = self._slots.get(rank)
        if slots is None:
            slots = max(1, min(self.slots, left // 2 // max(1, of_one)))
        growth = slots * of_one
        if growth > left:
            message = f"Slots for its layers at rank {rank} take {growth:,} bytes, and {left:,} are left."
            raise TrainingError(
                "memory",
                message,
                "start the server with more memory for slots, or use a lower rank",
            )
        return slots, growth

    def _free_index(self, rank: int, slots: int) -> int | None:
        """Return a free slot of a rank, emptied if need be; None when all are held."""
        of_rank = [one for one in self._residents.values() if one.slot.rank == rank]
        taken = {one.slot.index for one in of_rank}
        for index in range(slots):
            if index not in taken:
                return index
        for resident in of_rank:
            if not resident.holders:
                del self._residents[resident.sha256]
                self.evictions += 1
                return resident.slot.index
        return None


def slot_rank(weights: LowRankWeights) -> int:
    """Return the rank of the slots that hold an adapter; raises ValueError when it is larger than there are."""
    return max(rank_of(pairs) for pairs in weights.parts.values())
