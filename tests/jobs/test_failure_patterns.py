"""Failures as people meet them, word for word in kind, and what is made of them."""

import json
from datetime import UTC, datetime

import pytest

from orchestrator.aws.errors import Failure, error_for
from orchestrator.aws.instances import instance, instances
from orchestrator.contract.events import NOTE, Step, Warned
from orchestrator.errors import CapacityError, NoSuchInstanceError, OrchestratorError, QuotaError
from orchestrator.jobs.explanation import explain
from orchestrator.jobs.failure_patterns import TABLE, diagnose
from orchestrator.targets.base import JobDescription, JobStatus
from orchestrator.targets.names import TargetName

MET = [
    ("capacity", "CapacityError: Unable to provision requested ML compute capacity. Please retry."),
    (
        "capacity",
        "Instance type 'ml.g5.48xlarge' is temporarily unavailable in supported availability zones [euw1-az1].",
    ),
    ("capacity", "InsufficientInstanceCapacity: We currently do not have sufficient p5.48xlarge capacity in the zone."),
    ("capacity", "Insufficient capacity error from EC2 while launching instances, retrying!"),
    ("no-such-instance", "The requested resource training-job/ml.p2.xlarge is not available in this region"),
    ("capacity", "There is not enough capacity of ml.g5.xlarge in the zone."),
    ("capacity", "no spot capacity of this type; lack of EC2 capacity"),
    ("capacity", "The requested instance type ml.p5.48xlarge is not available in availability zone us-east-1a"),
    ("capacity", "We do not have enough ml.g5.xlarge instance capacity to fulfill your request."),
    ("capacity", "AWS does not currently have sufficient instances of ml.g5.xlarge"),
    ("capacity", "We do not have enough available ml.p4d.24xlarge instances in us-east-1."),
    ("capacity", "There are not enough free GPU instances of type g5.xlarge."),
    ("capacity", "ml.p4d.24xlarge is temporarily unavailable in us-east-1"),
    ("no-such-instance", "Your requested instance type (g6) is not supported in your requested Availability Zone (a)."),
    (
        "changed-input",
        "AlgorithmError: The input code is not what was submitted: files in the bucket were changed, added",
    ),
    ("nan-loss", "The loss is not a number at step 40; no capacity left"),
    ("quota", "ResourceLimitExceeded: The service limit 'ml.g5.xlarge for training job usage' is 0"),
    ("gated-model", "Cannot access gated repo for url https://huggingface.co/org/m."),
    ("platform", "exec /usr/local/bin/python: exec format error"),
    ("image-pull", "ClientError: Cannot pull algorithm container. Either the image does not exist or ..."),
    ("image-pull", "manifest unknown: Requested image not found"),
    ("container-start", "AlgorithmError: CannotStartContainerError. Please make sure the container can be run"),
    ("container-start", 'exec: "python": executable file not found in $PATH: unknown'),
    ("image-too-old", "ModuleNotFoundError: No module named 'peft'"),
    ("driver", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
    ("driver", "CUDA driver version is insufficient for CUDA runtime version"),
    ("driver", "RuntimeError: No CUDA GPUs are available"),
    ("driver", "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0"),
    ("driver", "OCI runtime create failed: hook #0: nvidia-container-cli: initialization error: driver not loaded"),
    ("driver", "CUDA error: no kernel image is available for execution on the device"),
    ("disk-full", "ClientError: Artifact upload failed:Insufficient disk space"),
    ("disk-full", "OSError: [Errno 28] No space left on device"),
    ("disk-full", "ClientError: Data download failed:Could not download s3://b/k: insufficient disk space"),
    ("shared-memory", "ERROR: Unexpected bus error encountered in worker."),
    ("host-memory", "ClientError: Please use an instance type with more memory, or reduce the size of job data"),
    ("host-memory", "ClientError: Artifact upload failed:ClientError: Out of Memory. Please use a larger instance"),
    ("host-memory", "AlgorithmError: , exit code: 137"),
    ("host-memory", "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ("out-of-memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    ("nan-loss", "AlgorithmError: The loss is not a finite number at step 12., exit code: 1"),
    ("network", "ClientError: InsufficientFreeAddressesInSubnet: not enough addresses in subnet-1"),
    ("network", "ClientError: The subnet ID 'subnet-1' does not exist"),
    ("network", "Connect timeout on endpoint URL: https://bucket.s3.eu-west-1.amazonaws.com/data"),
    ("network", "Please check your VPC configuration and the S3 VPC endpoint"),
    ("key", "ClientError: Data download failed:AccessDenied: not authorized to perform: kms:Decrypt on resource"),
    ("key", "KMS.DisabledException: arn:aws:kms:eu-west-1:1:key/2 is disabled."),
    ("wrong-region", "ClientError: Data download failed:PermanentRedirect (301): The bucket is in this region: x"),
    ("access-denied", "ClientError: Access denied when calling GetObject on s3://bucket/key"),
    ("access-denied", "ClientError: Data download failed:Forbidden (403)"),
    ("missing-data", "ClientError: Data download failed:No S3 objects found under S3 URL"),
    ("upload", "ClientError: Artifact upload failed:the connection was reset"),
    ("health-check", "InternalServerError: Instance health check failed. Please try again."),
    ("health-check", "Launched instance was unhealthy, replacing it!"),
    ("health-check", "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    ("lost-process", "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp: ncclSystemError"),
    ("lost-process", "Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE)"),
    ("interrupted", "It reached its limit of waiting for spot capacity of 60 minutes."),
    ("interrupted", "The training job was interrupted and stopped: MaxWaitTimeExceeded"),
    ("waited-too-long", "MaxPendingTimeExceeded"),
    ("time-limit", "It reached its time limit of 60 minutes."),
    ("throttled", "ThrottlingException: Rate exceeded"),
    ("service", "InternalServerError: We encountered an internal error. Please try again."),
]
UNKNOWN = [
    "AlgorithmError: , exit code: 3",
    "epoch 403 of 500",
    "piano keys 1 to 40 of the buffer's capacity",
    "no room beyond the cache's capacity",
    "There was not enough data to detect capacity",
    "insufficient buffer capacity",
    "the disk does not have sufficient free blocks",
    "the tokenizer is temporarily unavailable in this process",
    "not enough instances of the class dog in data.v2.json",
    "there are not enough instances of each class",
    "shard1.bin is temporarily unavailable",
    "torchvision.io is temporarily unavailable",
    "loading the spotted dog, 137 of 200",
    "caching latents of 429 pictures",
]


def test_every_pattern_is_met() -> None:
    assert {kind for kind, _ in MET} == {pattern.kind for pattern in TABLE}


@pytest.mark.parametrize(("kind", "words"), MET)
def test_a_reason_is_recognised(kind: str, words: str) -> None:
    diagnosis = diagnose(words)
    assert diagnosis is not None
    assert diagnosis.pattern.kind == kind


def test_a_reason_that_says_nothing_is_told_from_the_log() -> None:
    log = ["loading", "torch.OutOfMemoryError: CUDA out of memory.", "the end"]
    diagnosis = diagnose("AlgorithmError: , exit code: 1", log)
    assert diagnosis is not None
    assert (diagnosis.pattern.kind, diagnosis.evidence) == ("out-of-memory", log[1])


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_nobody_has_met_is_not_guessed(words: str) -> None:
    assert diagnose("AlgorithmError: , exit code: 3", ["loading", "step 1", words]) is None


def failed(reason: str, instance_type: str) -> JobDescription:
    return JobDescription(
        name="mine-0123456789",
        target=TargetName.SAGEMAKER,
        status=JobStatus.FAILED,
        identity="i",
        created=datetime.now(UTC),
        failure_reason=reason,
        output="s3://b/adapters/mine",
        instance_type=instance_type,
    )


def test_what_a_job_derived_from_its_settings_is_no_evidence_of_its_end() -> None:
    note, heard = f"{NOTE}The class pictures are drawn for 'a photo of dog'.", "the engine fell off"
    ended = failed("The job's process ended without a message.", "")
    ended = ended.model_copy(update={"target": TargetName.LOCAL})
    assert explain(ended, [note], None).evidence == ()
    assert explain(ended, [note, heard], None).evidence == (heard,)


FULL = '{"event": "failed", "kind": "disk-full", "message": "No space is left.", "next_step": "Free space."}'


@pytest.mark.parametrize(
    ("reason", "log"),
    [
        ("ClientError: Artifact upload failed:Insufficient disk space", []),
        ("AlgorithmError: , exit code: 1", ["OSError: [Errno 28] No space left on device"]),
        ("AlgorithmError: No space is left., exit code: 1", [FULL]),
    ],
    ids=["the service says so", "the log says so", "training says so"],
)
def test_a_full_disk_leads_to_a_type_with_a_larger_one(reason: str, log: list[str]) -> None:
    next_step = explain(failed(reason, "ml.g5.xlarge"), log, None).next_step
    named = next_step.partition("--instance-type ")[2].split()[0]
    assert (instance(named).disk_gb or 0) > (instance("ml.g5.xlarge").disk_gb or 0)
    assert "volume_gb" not in next_step


@pytest.mark.parametrize("kind", ["changed-input", "scorer", "gated-model", "resume", "base-model"])
def test_no_retry_is_advised_where_it_would_read_the_same_again(kind: str) -> None:
    reported = json.dumps({"event": "failed", "kind": kind, "message": "It is so.", "next_step": "change it"})
    explanation = explain(failed("AlgorithmError: It is so.", "ml.g5.xlarge"), [reported], 40)
    assert "would end in the same way" in explanation.cause
    assert explanation.next_step == "change it"


@pytest.mark.parametrize("name", ["ml.g4dn.xlarge", "ml.g5.2xlarge", "ml.g6.4xlarge"])
def test_memory_of_the_host_that_ran_out_leads_to_a_type_with_more(name: str) -> None:
    reason = "ClientError: Please use an instance type with more memory, or reduce the size of job data"
    next_step = explain(failed(reason, name), [], None).next_step
    named = next_step.partition("--instance-type ")[2].split()[0]
    assert instance(named).memory_gib > instance(name).memory_gib


@pytest.mark.parametrize("name", [*instances(), "ml.m5.large", "ml.of.tomorrow"])
def test_every_instance_type_gets_an_advice(name: str) -> None:
    for reason in ("no space left on device", "exit code: 137"):
        assert "--instance-type" in explain(failed(reason, name), [], None).next_step


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("ResourceLimitExceeded", "The requested resource x is not available in this region", NoSuchInstanceError),
        ("ResourceLimitExceeded", "The account-level service limit 'x for training job usage' is 0", QuotaError),
        ("EC2InsufficientCapacityError", "Instance type 'x' is temporarily unavailable", CapacityError),
        ("ValidationException", "Unable to provision requested ML compute capacity.", CapacityError),
    ],
)
def test_a_refusal_for_want_of_instances_lets_another_type_stand_in(
    code: str, message: str, expected: type[OrchestratorError]
) -> None:
    error = error_for(Failure((code,), message, status=400, service="sagemaker"), "submit the job")
    assert type(error) is expected


def test_notes_and_warnings_are_no_evidence_of_a_crash() -> None:
    log = ["Note: of photos it learns colours first", Warned(message="odd").model_dump_json(), "bus error"]
    description = failed("AlgorithmError: , exit code: 3", "ml.g5.xlarge")
    here = description.model_copy(update={"target": TargetName.LOCAL})
    assert explain(here, log[:2], None).evidence == ()
    assert explain(here, log, None).evidence == ("bus error",)


def test_one_step_is_counted_as_one() -> None:
    here = failed("It was killed.", "").model_copy(update={"target": TargetName.LOCAL})
    assert "1 step is done." in explain(here, [], 1).cause
    step = Step(step=1, of=4, loss=0.5, learning_rate=1e-4, seconds_per_step=2.0)
    assert "1 of 4 steps is done." in explain(here, [step.model_dump_json()], 1).cause
