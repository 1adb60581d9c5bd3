"""The processes that train together, each on a device of its own, and what they tell one another.

A process learns its rank from the variables that torchrun sets. A process on its own sends nothing, so that a run on
one device needs no process group at all.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=30)
"""Of a collective operation: the first rank may draw class images, or evaluate, while the others wait."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    """Its number, from 0."""
    ranks: int = 1
    """How many there are, on all hosts together."""
    local_rank: int = 0
    """Its number among those of this host; also the number of its GPU."""

    @classmethod
    def from_variables(cls) -> "Ranks":
        """Return what torchrun told this process; a process that was started alone is the only one."""
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            ranks=int(os.environ.get("WORLD_SIZE", "1")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        )

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reports, saves and publishes."""
        return self.rank == 0

    @property
    def is_first_of_host(self) -> bool:
        """Whether this is the process that fills caches which its host's others read."""
        return self.local_rank == 0

    def connect(self, device: torch.device) -> None:
        """Join the others: over NCCL between GPUs, over gloo between CPUs."""
        if self.ranks == 1 or dist.is_initialized():
            return
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "nccl"
        dist.init_process_group(backend, timeout=TIMEOUT)

    def disconnect(self) -> None:
        """Leave the others."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks, the same bits on each."""
        if self.ranks == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.ranks

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over all ranks.

        All gradients travel in one message: an adapter has hundreds of small ones, and each message has its latency.
        """
        if self.ranks == 1:
            return
        gradients = []
        pieces = []
        for parameter in parameters:
            if parameter.grad is not None:
                gradients.append(parameter.grad)
                pieces.append(parameter.grad.reshape(-1))
        flat = torch.cat(pieces)
        dist.all_reduce(flat)
        flat /= self.ranks
        begin = 0
        for gradient in gradients:
            end = begin + gradient.numel()
            mean = flat[begin:end].view_as(gradient)
            gradient.copy_(mean)
            begin = end

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all ranks, which have one shape, in their order: (ranks, ...)."""
        if self.ranks == 1:
            return tensor.unsqueeze(0)
        parts = [torch.empty_like(tensor) for _ in range(self.ranks)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)

    def any(self, value: bool, device: torch.device) -> bool:
        """Return whether `value` is true on at least one rank."""
        if self.ranks == 1:
            return value
        flag = torch.tensor(float(value), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def agree(self, number: int, device: torch.device) -> bool:
        """Return whether all ranks hold the same number.

        The greatest of the numbers and of their negatives are found in one message; the second is minus the least.
        """
        if self.ranks == 1:
            return True
        pair = torch.tensor([number, -number], device=device)
        dist.all_reduce(pair, op=dist.ReduceOp.MAX)
        greatest, minus_least = pair.tolist()
        return bool(greatest == -minus_least)

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.ranks > 1:
            dist.barrier()
