"""The request of a job with checkpoints, as the tests of this folder submit it."""

from typing import Any

from account import BUCKET, training_request

from orchestrator.requests import IDENTITY_TAG

JOB = "mine-0123456789"


def request(script: str = "pass", *, identity: str = "a" * 64, **fields: Any) -> Any:
    """Return a request whose container runs a script; fields replace the request's own."""
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/{identity}/", "LocalPath": "/opt/ml/checkpoints"}
    tags = [{"Key": IDENTITY_TAG, "Value": identity}]
    return training_request(script, name=JOB, CheckpointConfig=checkpoints, Tags=tags, **fields)
