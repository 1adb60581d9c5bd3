"""What a failure message means: one table from a pattern to a cause and the next command.

The service gives its reasons as sentences without codes, and a container that was killed gives none; the messages that
people have met are collected here. Patterns are tried from the top, first on the service's reason, then on the log.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.aws.errors import CAPACITY_WORDS, NOT_IN_REGION_WORDS
from orchestrator.contract.command_line import PROGRAM, command

_NEW_IMAGE = f"{command('infra', 'up')} && {command('infra', 'image')}"
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
    """The next command. `{job}` stands for the job's name; `{more_disk}` and `{more_memory}` for the option that names
    an instance type with more of it."""


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
        CAPACITY_WORDS,
        "AWS had no such instances free. Nothing was billed.",
        f"{_RETRY}  # later; or submit again with --fallback or another --instance-type",
    ),
    _pattern(
        "no-such-instance",
        NOT_IN_REGION_WORDS,
        "This region, or the zone of the job, has no such instance type.",
        "submit again with another --instance-type, or in another region: infra up --region REGION",
    ),
    _pattern(
        "quota",
        r"ResourceLimitExceeded|service limit|account-level service limit|LimitExceededException",
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
        "platform",
        r"exec format error|no matching manifest for linux|image platform .+ does not match",
        "The training image was built for another kind of processor.",
        f"delete the image in the registry, whose tag is never replaced, then: {command('infra', 'image')}",
    ),
    _pattern(
        "image-pull",
        r"Cannot ?Pull .{0,20}container|(unable|failed|not able) to (pull|download|access) .{0,40}image"
        r"|repository .+ does not exist|image .{0,200}(not found|does not exist)|no basic auth credentials"
        r"|manifest unknown|ImagePull|repository policy|ecr image .{0,80}(invalid|not available)",
        "The training image could not be pulled.",
        command("infra", "image"),
    ),
    _pattern(
        "driver",
        r"driver version is insufficient|driver on your system is too old|no CUDA GPUs are available"
        r"|found no NVIDIA driver|no kernel image is available|forward compatibility was attempted"
        r"|libcuda\.so.{0,80}cannot open|CUDA initialization|has a GPU, .{0,300}cannot use it"
        r"|nvidia-container-cli",  # before the runtime's own words, which stand around it
        "The GPU could not be used: the driver of the host does not fit the image, or the container does not see it.",
        f"{_NEW_IMAGE}  # then submit with --restart and another --instance-type",
    ),
    _pattern(
        "container-start",
        r"CannotStartContainer|executable file not found|OCI runtime create failed|failed to create shim task",
        "The container could not be started: the image is not the one that this version builds.",
        command("infra", "image"),
    ),
    _pattern(
        "image-too-old",
        r"ModuleNotFoundError|ImportError: cannot import name|No module named",
        "The training image lacks a library that the job's code needs: it is older than the code, or another one.",
        f"{_NEW_IMAGE}  # then submit again with --restart",
    ),
    _pattern(
        "disk-full",
        r"insufficient disk space|no space (is )?left on (the )?(device|disk)|disk quota exceeded|ENOSPC"
        r"|not enough (disk|free) space",
        "The disk was full.",
        "submit again with --resume and {more_disk}",
    ),
    _pattern(
        "shared-memory",
        r"bus error|insufficient shared memory|unable to open shared memory object",
        "The shared memory between the processes of the job was used up.",
        "submit again with --resume and {more_memory}",
    ),
    _pattern(
        "host-memory",
        r"instance type with more memory|Out of Memory\. Please use a larger instance|cannot allocate memory"
        r"|exit code:? (137|-9)|exitcode.? ?-9|signal 9|SIGKILL|killed by signal: killed|oom-?kill"
        r"|DefaultCPUAllocator|too little main memory",
        "The main memory of the instance ran out.",
        "submit again with --resume and {more_memory}",
    ),
    _pattern(
        "out-of-memory",
        r"out of memory|OutOfMemoryError|has too little memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
        "Memory ran out.",
        "submit again with a larger instance, a smaller batch_size, or -s gradient_checkpointing=true unless it is set",
    ),
    _pattern(
        "nan-loss",
        r"(loss|gradient)s? (is|are) not (a )?(finite )?numbers?|loss is nan",
        "The loss was no longer a number.",
        "submit again with a lower learning_rate",
    ),
    _pattern(
        "network",
        r"InsufficientFreeAddresses|(not enough|insufficient|no) (free )?(ip )?addresses"
        r"|network interface .{0,80}(fail|could not)|InvalidSubnet|InvalidSecurityGroup"
        r"|(subnet|security group|VPC).{0,120}(not found|does not exist|invalid|not valid)"
        r"|(connect|connection|read|request).{0,40}(timed? ?out|timeout).{0,120}(s3|ecr|amazonaws)"
        r"|S3.{0,60}(timed? ?out|timeout|VPC endpoint)|VPC.{0,60}endpoint",
        "The job's subnets do not reach S3, ECR or CloudWatch, or have no free addresses.",
        f"{command('infra', 'show')}  # names the subnets: they need endpoints of S3, ECR and CloudWatch",
    ),
    _pattern(
        "key",
        r"KMSAccessDenied|KMS\.(AccessDenied|Disabled|NotFound|KMSInvalidState)|KMSInvalidState|kms:\w+"
        r"|ciphertext refers to",
        "The bucket's key may not be used, is disabled, or is waiting to be deleted.",
        f"{command('infra', 'up')}  # puts the key's policy back; a key that was deleted has to be restored first",
    ),
    _pattern(
        "wrong-region",
        r"PermanentRedirect|the bucket is in this region|must be addressed using the specified endpoint",
        "The bucket is in another region than the job.",
        command("infra", "show"),
    ),
    _pattern(
        "access-denied",
        r"access ?denied|not authorized to perform|could(n't| not) assume|unable to assume|forbidden"
        r"|\(403\)|(status|error|http)[ a-z]*:? ?403\b",
        "The job's role lacks a permission that the job needs.",
        command("infra", "up"),
    ),
    _pattern(
        "missing-data",
        r"no s3 objects found|NoSuchKey|NoSuchBucket|data download failed|not a valid s3 uri",
        "What the job reads was not in the bucket.",
        "submit it again with --restart",
    ),
    _pattern(
        "changed-input",
        r"is not what was submitted: files in the bucket",
        "What the job reads lies in the bucket under its hash, and somebody changed it there.",
        f"{PROGRAM} jobs logs {{job}}  # names what the bucket's owner has to delete first",
    ),
    _pattern(
        "upload",
        r"(artifact|checkpoint|model) upload failed",
        "What the job made could not be written to the bucket.",
        _RETRY,
    ),
    _pattern(
        "health-check",
        r"health ?check|instance was unhealthy|uncorrectable ECC|ECC error|fallen off the bus"
        r"|\bXid\b|hardware (error|failure)",
        "The instance was not healthy; only AWS can fix that.",
        _RETRY,
    ),
    _pattern(
        "lost-process",
        r"\bNCCL\b|ncclSystemError|ncclInternalError|ncclUnhandledCudaError|collective operation timeout|gloo/transport"
        r"|connection (closed|reset) by peer|another process of this job ended|RendezvousError|RendezvousTimeout",
        "The processes of the job lost one another: one of them, or the network between the instances, failed.",
        _RETRY,
    ),
    _pattern(
        "interrupted",
        r"spot (capacity|instance|interruption|training)|was interrupted|interruption|MaxWaitTime",
        "AWS took the spot instance back, or had none within the maximum waiting time.",
        _RETRY,
    ),
    _pattern(
        "waited-too-long",
        r"MaxPendingTime",
        "It found no instance within the time that it may wait for one. Nothing was billed.",
        f"{_RETRY}  # later; or submit again with --fallback or another --instance-type",
    ),
    _pattern(
        "time-limit",
        r"reached its time limit|MaxRuntime|max runtime",
        "Each retry can run as long and cost as much again.",
        _RETRY,
    ),
    _pattern(
        "throttled",
        r"Throttling|rate exceeded|too many requests|SlowDown|reduce your request rate",
        "AWS had too many requests from this account at once.",
        _RETRY,
    ),
    _pattern(
        "service",
        r"InternalServerError|InternalError|internal (service )?error|service (is )?unavailable|ServiceUnavailable",
        "The service itself failed.",
        _RETRY,
    ),
)


def diagnose(reason: str | None, log: Iterable[str] = ()) -> Diagnosis | None:
    """Recognise a failure by the service's reason, else by the last line of the log that matches a pattern."""
    newest_first = list(log)[::-1]
    for line in [reason or "", *newest_first]:
        for pattern in TABLE:
            if pattern.words.search(line):
                return Diagnosis(pattern, line)
    return None
