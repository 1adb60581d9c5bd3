"""Pure functions from a spec to the requests of the SageMaker API, the same for every target.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from typing import Any

Request = dict[str, Any]
"""The keyword arguments of a boto3 call."""

IDENTITY_TAG = "orchestrator:identity"
RECIPE_TAG = "orchestrator:recipe"
OWNER_TAG = "orchestrator:owner"
BUNDLE_CHANNEL = "code"

_MACHINE_FIELDS = {
    "ResourceConfig",
    "StoppingCondition",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "EnableInterContainerTrafficEncryption",  # follows from the number of instances
}


def renamed(request: Request, name: str) -> Request:
    """Return the request of another attempt of the same job."""
    return {**request, "TrainingJobName": name}


def with_checkpoints(request: Request, uri: str) -> Request:
    """Return a request whose checkpoints lie elsewhere."""
    return {**request, "CheckpointConfig": {**request["CheckpointConfig"], "S3Uri": uri}}


def moved(request: Request, machines: Request) -> Request:
    """Return a request with the machines, limits and retries of another one, and with nothing else of it."""
    kept = {field: value for field, value in request.items() if field not in _MACHINE_FIELDS}
    return kept | {field: value for field, value in machines.items() if field in _MACHINE_FIELDS}


def identity_of(request: Request) -> str:
    """Return the hash of the whole job, from its tag."""
    return next(str(tag["Value"]) for tag in request["Tags"] if tag["Key"] == IDENTITY_TAG)


def channel_uris(request: Request) -> dict[str, str]:
    """Return the URI of each input channel of a request."""
    return {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in request["InputDataConfig"]
    }
