"""Many low-rank adapters in one model: each row of a batch is changed by the slots that it names.

The adapters of a rank lie behind one another in two tensors of a layer, A of (slots, rank, inputs) and B of (slots,
outputs, rank). A row with slot s and weight w gets W x + w B[s] A[s] x (LoRA, arXiv 2106.09685, eq. 3; batches of
different adapters: Punica, arXiv 2310.18547, sec. 3). The weights W of the model are never written.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

RANKS = (8, 16, 32, 64, 128, 256)
"""Adapters of a rank in between are filled up with zeros."""
_MATRIX = 2
"""Dimensions of the weights of a linear layer."""


class Slot(NamedTuple):
    """A place for one adapter in every layer."""

    rank: int
    """One of RANKS."""
    index: int
    """Among the slots of that rank."""


class SlotUse(NamedTuple):
    """A slot that acts on a row, and how strong."""

    slot: Slot
    weight: float


class LowRankPair(NamedTuple):
    """What an adapter adds to one layer, B A, with its own scale in B."""

    a: Tensor
    """(rank, inputs), or (rank, channels, height, width) of a convolution."""
    b: Tensor
    """(outputs, rank)."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Rows of a batch, on each of which one slot of a rank acts."""

    rank: int
    rows: Tensor | None
    """Their places in the batch, (rows,); None for all of them in their order."""
    slots: Tensor
    """(rows,); or (1,), one for all of them."""
    weights: Tensor
    """Of the slots, (rows, 1, 1) or (1, 1, 1)."""


@dataclass
class Routing:
    """Which slots act on the batch that is computed: shared by all layers of one network."""

    passes: Sequence[Pass] = ()

    def set(self, uses: Sequence[Sequence[SlotUse]], device: torch.device) -> None:
        """Name the slots of each row of the next batches; a row may have none, or several, which add up."""
        self.passes = passes_of(uses, device)

    def set_all(self, uses: Sequence[SlotUse], device: torch.device) -> None:
        """Name the slots of all rows of the next batches, however many there are."""
        self.passes = passes_of([uses], device)

    def clear(self) -> None:
        """Let no slot act."""
        self.passes = ()


def passes_of(uses: Sequence[Sequence[SlotUse]], device: torch.device) -> list[Pass]:
    """Return passes that together apply all uses of all rows; in each of them a row stands once at most.

    Args:
        uses: What acts on each row of the batch: slots with their weights.
        device: Where the numbers of rows and slots are needed.
    """
    entries: dict[tuple[int, int], list[tuple[int, SlotUse]]] = {}
    for row, of_row in enumerate(uses):
        counts: dict[int, int] = {}
        for use in of_row:
            rank = use.slot.rank
            number = counts.get(rank, 0)
            counts[rank] = number + 1
            of_pass = entries.setdefault((rank, number), [])
            of_pass.append((row, use))
    passes = []
    for (rank, _), found in entries.items():
        places = []
        indices = []
        strengths = []
        for row, use in found:
            places.append(row)
            indices.append(use.slot.index)
            strengths.append(use.weight)
        rows = None
        if len(found) < len(uses):
            rows = torch.tensor(places, device=device)
        acting = {use for _, use in found}
        if len(acting) == 1:  # one for all rows
            del indices[1:]
            del strengths[1:]
        slots = torch.tensor(indices, device=device)
        weights = torch.tensor(strengths, device=device)
        one = Pass(rank, rows, slots, weights.view(-1, 1, 1))
        passes.append(one)
    return passes


@dataclass
class Stack:
    """The adapters of one rank in one layer."""

    a: Tensor
    """(slots, rank, inputs), or (slots, rank, channels, height, width) of a convolution."""
    b: Tensor
    """(slots, outputs, rank)."""
    gathered: tuple[Pass, Tensor, Tensor] | None = None
    """A and B of the rows of the pass that was computed last: between two steps they are mostly the same."""

    def of_rows(self, one: Pass) -> tuple[Tensor, Tensor]:
        """Return A and w B of each slot of a pass."""
        if self.gathered is None or self.gathered[0] is not one:
            a = self.a.index_select(0, one.slots)
            b = self.b.index_select(0, one.slots)
            weights = one.weights.to(b.dtype)
            self.gathered = (one, a, b * weights)
        _, a, b = self.gathered
        return a, b


class SlotLayer(nn.Module):
    """A linear layer or a convolution of the model, and what the slots add to it."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, routing: Routing) -> None:
        super().__init__()
        self.layer = layer
        self.routing = routing
        self.stacks: dict[int, Stack] = {}

    @property
    def weight(self) -> Tensor:
        """Of the model's own layer: libraries read types and devices from here."""
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:
        """Of the model's own layer."""
        return self.layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the layer for each row with its slots: (rows, ..., inputs), or (rows, channels, height, width)."""
        outputs: Tensor = self.layer(inputs)
        for one in self.routing.passes:
            stack = self.stacks.get(one.rank)
            if stack is None:  # none of them changes this layer
                continue
            a, b = stack.of_rows(one)
            if one.rows is None:
                self._add(outputs, inputs, a, b)
                continue
            picked = inputs.index_select(0, one.rows)
            change = outputs.new_zeros(len(one.rows), *outputs.shape[1:])
            self._add(change, picked, a, b)
            outputs.index_add_(0, one.rows, change)
        return outputs

    def put(
        self,
        slot: Slot,
        slots: int,
        pair: LowRankPair | None,
    ) -> None:
        """Write an adapter's weights into a slot, of which there are `slots` of its rank; None where it has none."""
        stack = self.stacks.get(slot.rank)
        if stack is None:
            if pair is None:
                return
            stack = self._empty_stack(slot.rank, slots)
            self.stacks[slot.rank] = stack
        stack.gathered = None
        a = stack.a[slot.index]
        b = stack.b[slot.index]
        rank = 0
        if pair is not None:
            rank = len(pair.a)
            a[:rank].copy_(pair.a)
            b[:, :rank].copy_(pair.b)
        if rank < slot.rank:  # what the last adapter left there
            a[rank:].zero_()
            b[:, rank:].zero_()

    def _empty_stack(self, rank: int, slots: int) -> Stack:
        weight = self.layer.weight
        outputs, *inputs = weight.shape
        a = weight.new_zeros(slots, rank, *inputs)
        b = weight.new_zeros(slots, outputs, rank)
        return Stack(a, b)

    def _add(
        self,
        outputs: Tensor,
        inputs: Tensor,
        a: Tensor,
        b: Tensor,
    ) -> None:
        """Add B A of each row to the layer's outputs, in place: another tensor of their size would cost time."""
        if isinstance(self.layer, nn.Conv2d):
            narrow = self._narrowed(inputs, a)
            flat = outputs.view(len(outputs), outputs.shape[1], -1)
            flat.baddbmm_(b.expand(len(outputs), -1, -1), narrow.flatten(2))
        else:
            add_projected(outputs, inputs, a, b)

    def _narrowed(self, inputs: Tensor, a: Tensor) -> Tensor:
        """Return A convolved with each row, (rows, rank, height, width): one group of channels for each slot."""
        layer = self.layer
        rows, channels, height, width = inputs.shape
        slots, rank = a.shape[:2]
        grouped = inputs.reshape(rows // slots, slots * channels, height, width)
        kernels = a.reshape(slots * rank, *a.shape[2:])
        narrow = nn.functional.conv2d(
            grouped,
            kernels,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=slots,
        )
        return narrow.view(rows, rank, *narrow.shape[2:])


def add_projected(
    outputs: Tensor,
    inputs: Tensor,
    a: Tensor,
    b: Tensor,
) -> None:
    """Add B A x of each row to what the layer has computed, in place.

    There are as many slots as rows, or one for all of them.

    Args:
        outputs: Of the layer, (rows, ..., outputs), contiguous.
        inputs: x, (rows, ..., inputs).
        a: A of each slot, (slots, rank, inputs).
        b: B of each slot times its weight, (slots, outputs, rank).
    """
    slots = len(a)
    rows = inputs.reshape(slots, -1, inputs.shape[-1])
    narrow = torch.bmm(rows, a.transpose(1, 2))
    flat = outputs.view(slots, -1, outputs.shape[-1])
    flat.baddbmm_(narrow, b.transpose(1, 2))


_PLAIN_LAYERS: MutableMapping[nn.Module, Mapping[str, nn.Linear | nn.Conv2d]] = WeakKeyDictionary()


def plain_layers(network: nn.Module) -> Mapping[str, nn.Linear | nn.Conv2d]:
    """Return a network's own linear layers and convolutions by name, those that have slots by now included.

    They are looked for once in a network: slots change neither their names nor themselves, and a walk through all
    modules takes a tenth of the time in which an adapter is read.
    """
    known = _PLAIN_LAYERS.get(network)
    if known is not None:
        return known
    found: dict[str, nn.Linear | nn.Conv2d] = {}
    wrapped: set[int] = set()
    for name, module in network.named_modules():
        if isinstance(module, SlotLayer):
            found[name] = module.layer
            wrapped.add(id(module.layer))
        elif isinstance(module, nn.Linear | nn.Conv2d) and id(module) not in wrapped:
            found[name] = module
    _PLAIN_LAYERS[network] = found
    return found


@dataclass
class SlotNetwork:
    """A network whose layers have slots, put there when the first adapter that changes them arrives."""

    network: nn.Module
    routing: Routing = field(default_factory=Routing)
    layers: dict[str, SlotLayer] = field(default_factory=dict)

    def put(
        self,
        slot: Slot,
        slots: int,
        pairs: Mapping[str, LowRankPair],
    ) -> None:
        """Write an adapter into a slot of every layer, by the layers' names; raises KeyError for one there is not."""
        for name in pairs:
            if name not in self.layers:
                self.layers[name] = self._with_slots(name)
        for name, layer in self.layers.items():
            layer.put(slot, slots, pairs.get(name))

    def growth(self, rank: int, pairs: Mapping[str, LowRankPair]) -> int:
        """Return the bytes by which each slot of a rank grows for an adapter, whose layers may be new to it."""
        growth = 0
        for name, pair in pairs.items():
            layer = self.layers.get(name)
            if layer is not None and rank in layer.stacks:
                continue
            inputs = pair.a[0].numel()
            outputs = len(pair.b)
            weight = self.network.get_submodule(name).weight
            growth += rank * (inputs + outputs) * weight.element_size()
        return growth

    def _with_slots(self, name: str) -> SlotLayer:
        parent_name, _, child = name.rpartition(".")
        parent = self.network.get_submodule(parent_name)
        layer = SlotLayer(getattr(parent, child), self.routing)
        setattr(parent, child, layer)
        return layer


def rank_of(pairs: Mapping[str, LowRankPair]) -> int:
    """Return the rank of the slots that hold an adapter; raises ValueError when it is larger than there are."""
    largest = max((len(pair.a) for pair in pairs.values()), default=RANKS[0])
    for rank in RANKS:
        if largest <= rank:
            return rank
    raise ValueError(f"has rank {largest}; at most {RANKS[-1]} is served")
