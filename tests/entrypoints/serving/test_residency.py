"""Adapters come into slots and make room for others, and never for one that is being drawn with."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.low_rank_file import LowRankWeights
from entrypoints.serving.residency import Resident, SlotTable
from entrypoints.serving.slots import LowRankPair, SlotNetwork, SlotUse

SLOTS = 3
INPUTS = 4


def weights(value: float, rank: int = 2) -> LowRankWeights:
    pair = LowRankPair(torch.full((rank, INPUTS), value), torch.ones(INPUTS, rank))
    return LowRankWeights({"unet": {"layer": pair}}, 0)


def table() -> SlotTable:
    network = nn.ModuleDict({"layer": nn.Linear(INPUTS, INPUTS, bias=False)})
    nn.init.zeros_(network["layer"].weight)  # so that what comes out is what the slot adds
    return SlotTable({"unet": SlotNetwork(network)}, SLOTS)


def added(slots: SlotTable, resident: Resident) -> float:
    network = slots.networks["unet"]
    network.routing.set([[SlotUse(resident.slot, 1.0)]], torch.device("cpu"))
    with torch.no_grad():
        outputs = network.network["layer"](torch.ones(1, INPUTS))
    return float(outputs[0, 0]) / INPUTS / 2


def test_the_least_recently_used_makes_room_and_those_held_stay() -> None:
    slots = table()
    _first, second, third = (slots.hold(name, weights(number)) for number, name in enumerate("abc"))
    assert not slots.could_hold({"d": weights(4)})  # all three are drawn with
    with pytest.raises(TrainingError, match="All 3 slots"):
        slots.hold("d", weights(4))
    slots.release(third)
    slots.release(second)
    assert slots.hold("b", weights(1)) is second  # used more recently than c now
    slots.release(second)
    assert slots.could_hold({"b": weights(1), "d": weights(4)})
    fourth = slots.hold("d", weights(4))
    assert (slots.holds("a"), slots.holds("b"), slots.holds("c")) == (True, True, False)
    assert fourth.slot == third.slot
    assert fourth.generation > third.generation
    assert added(slots, fourth) == 4


def test_a_rank_has_slots_of_its_own() -> None:
    slots = table()
    for number, name in enumerate("abc"):
        slots.hold(name, weights(number))
    large = slots.hold("large", weights(7, rank=12))
    assert large.slot.rank == 16
    assert slots.evictions == 0


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([2, 12]), st.booleans()), max_size=40),
)
def test_whatever_comes_and_goes_each_holder_sees_its_own_adapter(moves: list[tuple[str, int, bool]]) -> None:
    slots = table()
    held: list[tuple[Resident, float]] = []
    for name, rank, lets_go in moves:
        if lets_go and held:
            resident, _ = held.pop(0)
            slots.release(resident)
        value = float(ord(name) + rank)
        adapter = weights(value, rank)
        if slots.could_hold({f"{name}{rank}": adapter}):
            held.append((slots.hold(f"{name}{rank}", adapter), value))
        places = [resident.slot for resident in {id(one): one for one, _ in held}.values()]
        assert len(set(places)) == len(places)
        for resident, expected in held:
            assert added(slots, resident) == expected * rank_share(resident)


def rank_share(resident: Resident) -> float:
    """`added` divides by two rows of A; adapters of twelve have six times as many."""
    return 1.0 if resident.slot.rank == 8 else 6.0


def test_slots_take_no_more_memory_than_they_may_and_leave_some_for_other_ranks() -> None:
    network = nn.ModuleDict({"layer": nn.Linear(INPUTS, INPUTS, bias=False)})
    nn.init.zeros_(network["layer"].weight)
    of_one = 8 * 2 * INPUTS * 4  # rank, A and B, four bytes each
    slots = SlotTable({"unet": SlotNetwork(network)}, 100, 20 * of_one)
    first = slots.hold("a", weights(1))
    assert slots.bytes == 10 * of_one
    for number in range(9):
        slots.hold(f"other {number}", weights(2))
    with pytest.raises(TrainingError, match="All 10 slots"):
        slots.hold("one more", weights(3))
    slots.hold("wide", weights(4, rank=12))
    assert slots.bytes == (10 + 2 * 2) * of_one
    with pytest.raises(TrainingError, match="bytes, and"):
        slots.hold("widest", weights(5, rank=200))
    assert added(slots, first) == 1
