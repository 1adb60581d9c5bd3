"""Failures as people meet them, word for word in kind, and what is made of them."""

import pytest

from orchestrator.jobs.failure_patterns import TABLE, diagnose

MET = {
    "capacity": "CapacityError: Unable to provision requested ML compute capacity. Please retry.",
    "quota": "ResourceLimitExceeded: The service limit 'ml.g5.xlarge for training job usage' is 0",
    "gated-model": "Cannot access gated repo for url https://huggingface.co/org/m.",
    "image-pull": "ClientError: Cannot pull algorithm container. Either the image does not exist or ...",
    "disk-full": "ClientError: Artifact upload failed:Insufficient disk space",
    "out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "nan-loss": "AlgorithmError: The loss is not a finite number at step 12., exit code: 1",
    "access-denied": "ClientError: Access denied when calling GetObject on s3://bucket/key",
    "missing-data": "ClientError: Data download failed:No S3 objects found under S3 URL",
    "health-check": "InternalServerError: Instance health check failed. Please try again.",
    "interrupted": "It reached its limit of waiting for spot capacity of 60 minutes.",
    "time-limit": "It reached its time limit of 60 minutes.",
    "service": "InternalServerError: We encountered an internal error. Please try again.",
}


def test_every_pattern_is_met() -> None:
    assert set(MET) == {pattern.kind for pattern in TABLE}


@pytest.mark.parametrize("kind", MET)
def test_a_reason_is_recognised(kind: str) -> None:
    diagnosis = diagnose(MET[kind])
    assert diagnosis is not None
    assert diagnosis.pattern.kind == kind


def test_a_reason_that_says_nothing_is_told_from_the_log() -> None:
    log = ["loading", MET["out-of-memory"], "the end"]
    diagnosis = diagnose("AlgorithmError: , exit code: 1", log)
    assert diagnosis is not None
    assert (diagnosis.pattern.kind, diagnosis.evidence) == ("out-of-memory", log[1])


def test_what_nobody_has_met_is_not_guessed() -> None:
    assert diagnose("AlgorithmError: , exit code: 3", ["loading", "step 1", "step 2"]) is None
