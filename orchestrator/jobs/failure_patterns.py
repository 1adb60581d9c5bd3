"""What a failure message means: one table from a pattern to a cause and the next command.

The service gives its reasons as sentences without codes, and a container that was killed gives none; the messages that
people have met are collected here. Patterns are tried from the top, first on the service's reason, then on the log.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.contract.command_line import PROGRAM, command

_RETRY = f"{PROGRAM} jobs retry {{job}}"


class FailurePattern(NamedTuple):
    """One kind of failure."""

    kind: str
    """A stable identifier, the same that training uses in the failures it reports."""
    words: re.Pattern[str]
    """Pattern of its message."""
    cause: str
    """What it means."""
    next_step: str
    """The next command; `{job}` stands for the job's name."""


class Diagnosis(NamedTuple):
    """A failure that was recognised."""

    pattern: FailurePattern
    evidence: str
    """The line that matched."""


def _pattern(kind: str, words: str, cause: str, next_step: str) -> FailurePattern:
    return FailurePattern(kind, re.compile(words, re.IGNORECASE), cause, next_step)


TABLE = (
    _pattern(
        "capacity",
        r"CapacityError|insufficient (instance )?capacity|unable to provision requested",
        "AWS had no such instances free. Nothing was billed.",
        f"{_RETRY}  # later; or submit again with --fallback or another --instance-type",
    ),
    _pattern(
        "quota",
        r"ResourceLimitExceeded|service limit|account-level service limit",
        "The account's quota does not allow it.",
        command("infra", "show"),
    ),
    _pattern(
        "gated-model",
        r"GatedRepo|gated repo|access to model .+ is restricted|must be authenticated to access"
        r"|40[13] Client Error.+huggingface",
        "The base model is gated: the job has no token to read it, and yours should not leave your machine.",
        f"{PROGRAM} models mirror MODEL  # on your machine; then submit the same job again",
    ),
    _pattern(
        "image-pull",
        r"Cannot ?Pull .{0,20}container|(unable|failed|not able) to (pull|download|access) .{0,40}image"
        r"|repository .+ does not exist|image .{0,200}(not found|does not exist)|no basic auth credentials",
        "The training image could not be pulled.",
        command("infra", "image"),
    ),
    _pattern(
        "disk-full",
        r"insufficient disk space|no space left on device|disk quota exceeded|ENOSPC",
        "The disk was full.",
        "submit again with a larger disk: -s compute.volume_gb=200",
    ),
    _pattern(
        "out-of-memory",
        r"out of memory|OutOfMemoryError|cannot allocate memory|exit code:? 137|exitcode.? ?-9|signal 9|SIGKILL",
        "Memory ran out.",
        "submit again with a larger instance, a smaller batch_size, or -s gradient_checkpointing=true unless it is set",
    ),
    _pattern(
        "nan-loss",
        r"loss is not a finite number|loss is nan",
        "The loss was no longer a number.",
        "submit again with a lower learning_rate",
    ),
    _pattern(
        "access-denied",
        r"access ?denied|not authorized to perform|could(n't| not) assume|unable to assume|forbidden|\b403\b",
        "The job's role lacks a permission that the job needs.",
        command("infra", "up"),
    ),
    _pattern(
        "missing-data",
        r"no s3 objects found|NoSuchKey|NoSuchBucket|data download failed",
        "What the job reads was not in the bucket.",
        "submit it again with --restart",
    ),
    _pattern(
        "health-check",
        r"health check",
        "The instance was not healthy; only AWS can fix that.",
        _RETRY,
    ),
    _pattern(
        "interrupted",
        r"spot|interrupted|MaxWaitTime|limit of waiting for spot",
        "AWS took the spot instance back, or had none within the maximum waiting time.",
        _RETRY,
    ),
    _pattern(
        "time-limit",
        r"reached its time limit|MaxRuntime",
        "Each retry can run as long and cost as much again.",
        _RETRY,
    ),
    _pattern("service", r"InternalServerError|internal error", "The service itself failed.", _RETRY),
)


def diagnose(reason: str | None, log: Iterable[str] = ()) -> Diagnosis | None:
    """Recognise a failure by the service's reason, else by the last line of the log that matches a pattern."""
    newest_first = list(log)[::-1]
    for line in [reason or "", *newest_first]:
        for pattern in TABLE:
            if pattern.words.search(line):
                return Diagnosis(pattern, line)
    return None
