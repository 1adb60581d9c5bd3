"""Failures a person can act on, and what foreign errors are in those terms.

Code raises `TrainingError` with a stable kind; `failure_of` is the one table that turns errors of torch, safetensors,
pydantic and the system into the same three parts: what happened, why, and what to do.
"""

import errno

import torch
import torch.distributed
from pydantic import ValidationError
from safetensors import SafetensorError

from orchestrator.contract.problem import problems_of


class TrainingError(Exception):
    """The job cannot go on; `kind` is a stable word for the cause."""

    def __init__(self, kind: str, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.next_step = next_step


def failure_of(error: BaseException) -> TrainingError | None:
    """Return the failure an error stands for, or None for one that nobody foresaw."""
    if isinstance(error, TrainingError):
        return error
    if isinstance(error, ValidationError):
        findings = "; ".join(problem.render() for problem in problems_of(error))
        return TrainingError(
            "recipe", f"The hyperparameters are not a recipe: {findings}", "Mend the job and submit again."
        )
    if _is_disk_full(error):
        return TrainingError("disk-full", f"No space is left on the disk: {error}", "Free space, then resume the job.")
    if _is_out_of_memory(error):
        return TrainingError(
            "out-of-memory",
            f"The {'GPU' if torch.cuda.is_available() else 'machine'} has too little memory: {_first_line(error)}",
            "Lower batch_size (raise gradient_accumulation by the same factor), lower resolution, or set "
            "gradient_checkpointing=true or mixed_precision=bf16.",
        )
    if _is_lost_process(error):
        return TrainingError(
            "lost-process",
            f"Another process of this job ended without a word: {_first_line(error)}",
            "Look for its own message in the log, then resume the job with: python -m orchestrator jobs retry JOB",
        )
    return None


def _is_lost_process(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistBackendError):
        return True
    # gloo raises plain errors of its own
    signs = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, SafetensorError) and "no space left" in str(error).lower()


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch has no class of its own for these
    signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
