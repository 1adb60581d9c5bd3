"""Failures a person can act on, and what errors of libraries are in those terms.

Code raises `TrainingError` with a stable kind; `failure_of` is the one table that turns errors of torch, pydantic and
the system into the same three parts: what happened, why, and what to do.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from pydantic import ValidationError
from torch.distributed.elastic.rendezvous.api import RendezvousError

from orchestrator.contract.problem import problems_of

# Torch and gloo raise a plain RuntimeError for these; only the message tells them apart.
OUT_OF_MAIN_MEMORY_SIGN = "DefaultCPUAllocator"
OUT_OF_MEMORY_SIGNS = (
    OUT_OF_MAIN_MEMORY_SIGN,
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
)
LOST_PROCESS_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "gloo/transport",
)


class TrainingError(Exception):
    """The job cannot continue."""

    def __init__(self, kind: str, message: str, next_step: str = "") -> None:
        """Keep the three parts.

        Args:
            kind: A stable word for the cause, for programs: "dataset", "resume", "out-of-memory".
            message: What happened and why, as whole sentences.
            next_step: What to do, with the command to type where there is one.
        """
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.next_step = next_step


def failure_of(error: BaseException) -> TrainingError | None:
    """Return the failure that an error stands for, or None for an error of unknown cause: a bug."""
    if isinstance(error, TrainingError):
        return error
    if isinstance(error, ValidationError):
        findings = "; ".join(problem.render() for problem in problems_of(error))
        return TrainingError(
            "recipe",
            f"The hyperparameters are not a recipe: {findings}",
            "Correct the job and submit again.",
        )
    if is_disk_full(error):
        return TrainingError(
            "disk-full",
            f"No space is left on the disk: {error}",
            "Free space, then resume the job.",
        )
    if is_out_of_memory(error):
        return out_of_memory(error, "lower batch_size or resolution")
    if is_lost_process(error):
        return TrainingError(
            "lost-process",
            f"Another process of this job ended without an error of its own: {first_line(error)}",
            "Look for its own message in the log, then resume the job with: python -m orchestrator jobs retry JOB",
        )
    return None


def out_of_memory(error: BaseException, advice: str) -> TrainingError:
    """Return the failure that says which memory ran out, with what a person can set to need less."""
    has_gpu = torch.cuda.is_available()
    in_main_memory = isinstance(error, MemoryError) or has_sign(error, (OUT_OF_MAIN_MEMORY_SIGN,))
    if has_gpu and in_main_memory:  # where models are loaded on their way to the GPU; training is not in it
        return TrainingError(
            "out-of-memory",
            f"The machine has too little main memory beside its GPU's: {first_line(error)}",
            "Name an instance type with more main memory (--instance-type), or free memory on this machine.",
        )
    scarce = "GPU" if has_gpu else "machine"
    return TrainingError(
        "out-of-memory",
        f"The {scarce} has too little memory: {first_line(error)}",
        f"Submit again, and {advice}; or use a larger {scarce}.",
    )


@contextmanager
def advising_on_memory(advice: str) -> Iterator[None]:
    """Raise a lack of memory as TrainingError("out-of-memory") with what the job's settings leave to do about it."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, advice) from error
        raise


def is_lost_process(error: BaseException) -> bool:
    """Whether another rank is gone, or did not come."""
    if isinstance(error, torch.distributed.DistError | RendezvousError):
        return True
    return isinstance(error, RuntimeError) and has_sign(error, LOST_PROCESS_SIGNS)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space, or of quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in main memory or on the GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and has_sign(error, OUT_OF_MEMORY_SIGNS)


def has_sign(error: BaseException, signs: tuple[str, ...]) -> bool:
    """Whether an error's message contains one of some texts."""
    message = str(error)
    return any(sign in message for sign in signs)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters, or its class if it has none."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0][:300]
