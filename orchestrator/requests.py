"""Pure functions from a spec to the requests of the SageMaker API, the same for every target.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import BASE_MODEL_CHANNEL, TRAINING_CHANNEL
from orchestrator.contract.recipe import to_hyperparameters
from orchestrator.specs import JobSpec

Request = dict[str, Any]
"""The keyword arguments of a boto3 call."""

IDENTITY_TAG = "orchestrator:identity"
BUNDLE_CHANNEL = "code"


class JobInputs(BaseModel):
    """Where the things a job reads were stored, as URIs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    identity: str
    """Hash of the whole job; the name is made of its beginning."""
    training: str
    """The prepared pictures."""
    base_model: str | None
    """The base model, or None when the job fetches it from the Hub itself."""
    bundle: str
    """The code."""
    output: str
    """Where the adapter goes."""


def job_name(spec: JobSpec, identity: str) -> str:
    """Return the same name for the same job: the adapter's or the recipe's, and ten digits of the identity."""
    return f"{spec.name or spec.recipe.recipe_name()}-{identity[:10]}"


def training_job(spec: JobSpec, inputs: JobInputs) -> Request:
    """Return the CreateTrainingJob request for a job."""
    channels = {TRAINING_CHANNEL: inputs.training, BUNDLE_CHANNEL: inputs.bundle}
    if inputs.base_model is not None:
        channels[BASE_MODEL_CHANNEL] = inputs.base_model
    return {
        "TrainingJobName": job_name(spec, inputs.identity),
        "AlgorithmSpecification": {
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", "entrypoints.train"],
        },
        "HyperParameters": to_hyperparameters(spec.recipe),
        "InputDataConfig": [_channel(name, uri) for name, uri in channels.items()],
        "OutputDataConfig": {"S3OutputPath": inputs.output, "CompressionType": "NONE"},
        "Tags": [{"Key": IDENTITY_TAG, "Value": inputs.identity}],
    }


def channel_uris(request: Request) -> dict[str, str]:
    """Return the URI of each input channel of a request."""
    return {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in request["InputDataConfig"]
    }


def folder_of(uri: str) -> Path:
    """Return the folder a `file://` URI names."""
    return Path(unquote(urlsplit(uri).path))


def _channel(name: str, uri: str) -> Request:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}
