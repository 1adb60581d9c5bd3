"""What the words of a failure mean: one table from a pattern to a cause and the next thing to type.

The service's reasons are sentences without codes, and a container that was killed says nothing at all; what people met
is collected here. Patterns are tried from the top, on the service's reason first and then on the lines of the log.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_RETRY = "python -m orchestrator jobs retry {job}"


class Signature(NamedTuple):
    """One kind of failure."""

    kind: str
    """A stable word for it; those of the training side's own failures are the same."""
    pattern: re.Pattern[str]
    """What its words look like."""
    cause: str
    """What it means."""
    next_step: str
    """What to type; `{job}` stands for the job's name."""


class Diagnosis(NamedTuple):
    """A failure that was recognised."""

    signature: Signature
    evidence: str
    """The line that gave it away."""


def _signature(kind: str, words: str, cause: str, next_step: str) -> Signature:
    return Signature(kind, re.compile(words, re.IGNORECASE), cause, next_step)


TABLE = (
    _signature(
        "capacity",
        r"CapacityError|insufficient (instance )?capacity|unable to provision requested",
        "AWS had no such instances free. Nothing was billed.",
        "python -m orchestrator jobs retry {job}  # later; or submit again with --fallback or another --instance-type",
    ),
    _signature(
        "quota",
        r"ResourceLimitExceeded|service limit|account-level service limit",
        "The account's quota does not allow it.",
        "python -m orchestrator infra show",
    ),
    _signature(
        "gated-model",
        r"GatedRepo|gated repo|access to model .+ is restricted|must be authenticated to access"
        r"|40[13] Client Error.+huggingface",
        "The base model is gated: the job has no token that may read it, and none should leave your machine.",
        "python -m orchestrator models mirror MODEL  # on your machine; then submit the same job again",
    ),
    _signature(
        "image-pull",
        r"Cannot ?Pull .{0,20}container|(unable|failed|not able) to (pull|download|access) .{0,40}image"
        r"|repository .+ does not exist|image .{0,200}(not found|does not exist)|no basic auth credentials",
        "The training image could not be pulled.",
        "python -m orchestrator infra image",
    ),
    _signature(
        "disk-full",
        r"insufficient disk space|no space left on device|disk quota exceeded|ENOSPC",
        "The disk was full.",
        "submit again with a larger disk: -s compute.volume_gb=200",
    ),
    _signature(
        "out-of-memory",
        r"out of memory|OutOfMemoryError|cannot allocate memory|exit code:? 137|exitcode.? ?-9|signal 9|SIGKILL",
        "Memory ran out.",
        "submit again with -s gradient_checkpointing=true, a smaller batch_size, or a larger instance",
    ),
    _signature(
        "nan-loss",
        r"loss is not a finite number|loss is nan",
        "The loss was no longer a number.",
        "submit again with a lower learning_rate",
    ),
    _signature(
        "access-denied",
        r"access ?denied|not authorized to perform|could(n't| not) assume|unable to assume|forbidden|\b403\b",
        "The job's role may not do what the job does.",
        "python -m orchestrator infra up",
    ),
    _signature(
        "missing-data",
        r"no s3 objects found|NoSuchKey|NoSuchBucket|data download failed",
        "What the job reads was not in the bucket.",
        "submit it again with --restart",
    ),
    _signature(
        "health-check",
        r"health check",
        "The instance was not healthy; that is AWS's to mend.",
        _RETRY,
    ),
    _signature(
        "interrupted",
        r"spot|interrupted|MaxWaitTime|limit of waiting for spot",
        "AWS took the spot instance back, or had none within the limit of waiting.",
        _RETRY,
    ),
    _signature(
        "time-limit",
        r"reached its time limit|MaxRuntime",
        "Each retry may run as long, and cost as much, again.",
        _RETRY,
    ),
    _signature("service", r"InternalServerError|internal error", "The service itself failed.", _RETRY),
)


def diagnose(reason: str | None, log: Iterable[str] = ()) -> Diagnosis | None:
    """Recognise a failure by the service's reason, else by the last line of the log that says something known."""
    for line in (reason or "", *reversed(list(log))):
        for signature in TABLE:
            if signature.pattern.search(line):
                return Diagnosis(signature, line)
    return None
