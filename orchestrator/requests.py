"""CreateTrainingJob requests, the same for every target, and functions that read or change one.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from orchestrator.contract.batch_result import DRAW_BATCH
from orchestrator.contract.environment import PRICE_VARIABLE, SCORER_CHANNEL, WAIT_VARIABLE
from orchestrator.contract.evaluation_result import EVALUATE

Request = dict[str, Any]
"""The keyword arguments of a boto3 call."""

IDENTITY_TAG = "orchestrator:identity"
RECIPE_TAG = "orchestrator:recipe"
OWNER_TAG = "orchestrator:owner"
ENDPOINT_TAG = "orchestrator:endpoint"
"""Name of an endpoint: on everything that is created for it."""
BUNDLE_CHANNEL = "code"
NO_PROFILER = {"ProfilerConfig": {"DisableProfiler": True}}
"""Of every request: the profiler is on by default, samples the machine and writes to the bucket."""

_COMPUTE_FIELDS = {
    "ResourceConfig",
    "StoppingCondition",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "EnableInterContainerTrafficEncryption",  # follows from the number of instances
}

LOCAL_INSTANCE = "local"
LOCAL_GPU_INSTANCE = "local_gpu"
"""Instance types of SageMaker local mode: containers on this machine, without and with its GPUs."""


class LocalContainer(NamedTuple):
    """How a job runs in containers on this machine."""

    image: str
    """Image of the containers."""
    instance_type: str
    """LOCAL_INSTANCE or LOCAL_GPU_INSTANCE."""


_Members = Mapping[str, "_Members"]
_WHOLE: _Members = {}  # a value, or a map whose keys are ours
_SENT: _Members = {
    "TrainingJobName": _WHOLE,
    "AlgorithmSpecification": {
        "TrainingImage": _WHOLE,
        "TrainingInputMode": _WHOLE,
        "ContainerEntrypoint": _WHOLE,
        "ContainerArguments": _WHOLE,
        "MetricDefinitions": {"Name": _WHOLE, "Regex": _WHOLE},
    },
    "RoleArn": _WHOLE,
    "HyperParameters": _WHOLE,
    "InputDataConfig": {
        "ChannelName": _WHOLE,
        "DataSource": {"S3DataSource": {"S3DataType": _WHOLE, "S3Uri": _WHOLE, "S3DataDistributionType": _WHOLE}},
        "InputMode": _WHOLE,
    },
    "OutputDataConfig": {"S3OutputPath": _WHOLE, "CompressionType": _WHOLE, "KmsKeyId": _WHOLE},
    "ResourceConfig": {
        "InstanceType": _WHOLE,
        "InstanceCount": _WHOLE,
        "VolumeSizeInGB": _WHOLE,
        "VolumeKmsKeyId": _WHOLE,
    },
    "StoppingCondition": {"MaxRuntimeInSeconds": _WHOLE, "MaxWaitTimeInSeconds": _WHOLE},
    "EnableManagedSpotTraining": _WHOLE,
    "CheckpointConfig": {"S3Uri": _WHOLE, "LocalPath": _WHOLE},
    "TensorBoardOutputConfig": {"S3OutputPath": _WHOLE, "LocalPath": _WHOLE},
    "Environment": _WHOLE,
    "EnableNetworkIsolation": _WHOLE,
    "EnableInterContainerTrafficEncryption": _WHOLE,
    "InfraCheckConfig": {"EnableInfraCheck": _WHOLE},
    "VpcConfig": {"Subnets": _WHOLE, "SecurityGroupIds": _WHOLE},
    "RetryStrategy": {"MaximumRetryAttempts": _WHOLE},
}
"""The members that we send, in their structures; tags, which a description lacks, are not among them."""
_RESERVED_TAG = "aws:"
_NO_TAG_CHARACTER = re.compile(r"[^\w .:/=+@-]")
_TAG_CHARACTERS = 256


def sent_members(described: Any) -> Request:
    """Return what we sent of a training job's description, without its tags.

    The service adds its defaults, and what it adds one day may be refused, or cost money, in a new request.
    """
    request: Request = _only(described, _SENT)
    return request


def tag(key: str, value: str) -> dict[str, str]:
    """Return a tag as requests carry it, with the characters that the service allows."""
    allowed = _NO_TAG_CHARACTER.sub("-", value)
    return {"Key": key, "Value": allowed[:_TAG_CHARACTERS]}


def own_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the tags that a request may carry: not those of AWS itself, which the service refuses."""
    kept = []
    for key, value in tags.items():
        if not key.lower().startswith(_RESERVED_TAG):
            kept.append({"Key": key, "Value": value})
    return kept


def _only(value: Any, members: _Members) -> Any:
    """Return a structure, or each of a list of structures, with the named members alone."""
    if not members:
        return value
    if isinstance(value, list):
        return [_only(one, members) for one in value]
    kept = {}
    for name, inner in members.items():
        if name in value:
            kept[name] = _only(value[name], inner)
    return kept


def renamed(request: Request, name: str) -> Request:
    """Return the request of another attempt of the same job."""
    return {**request, "TrainingJobName": name}


def in_image(request: Request, image: str) -> Request:
    """Return the same job in an image of another name."""
    algorithm = {**request["AlgorithmSpecification"], "TrainingImage": image}
    return {**request, "AlgorithmSpecification": algorithm}


def with_checkpoints(request: Request, uri: str) -> Request:
    """Return a request with another location for checkpoints."""
    checkpoints = {**request["CheckpointConfig"], "S3Uri": uri}
    return {**request, "CheckpointConfig": checkpoints}


_OF_MACHINES = (PRICE_VARIABLE, WAIT_VARIABLE)
"""Variables that follow from where and how a job runs, and not from what it does."""


def moved(request: Request, machines: Request) -> Request:
    """Return `request` with the instances, limits and retries of the request `machines`."""
    kept = {field: value for field, value in request.items() if field not in _COMPUTE_FIELDS}
    replaced = {field: value for field, value in machines.items() if field in _COMPUTE_FIELDS}
    return _with_variables({**kept, **replaced}, machines)


def _with_variables(request: Request, machines: Request) -> Request:
    """Return a request with the price of the instances of another, and what that does while people label.

    What is not known of its price is not said.
    """
    if "Environment" not in request:  # a local job, which is not billed and asks nobody
        return request
    variables = {name: value for name, value in request["Environment"].items() if name not in _OF_MACHINES}
    others = machines.get("Environment", {})
    for name in _OF_MACHINES:
        if name in others:
            variables[name] = others[name]
    return {**request, "Environment": variables}


def runs_in_container(request: Request) -> bool:
    """Return whether a request is for containers on this machine."""
    resources = request.get("ResourceConfig", {})
    return resources.get("InstanceType") in {LOCAL_INSTANCE, LOCAL_GPU_INSTANCE}


def identity_of(request: Request) -> str:
    """Return the hash that identifies the job, from its tag; raises KeyError without one."""
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    return str(tags[IDENTITY_TAG])


def channel_uris(request: Request) -> dict[str, str]:
    """Return the URI of each input channel of a request that lies in S3: those of other programs may lie elsewhere."""
    uris = {}
    for channel in request["InputDataConfig"]:
        source = channel["DataSource"].get("S3DataSource")
        if source is not None:
            uris[channel["ChannelName"]] = source["S3Uri"]
    return uris


def scorer_of(request: Request) -> str | None:
    """Return the URI of the CLIP that measures a job's figures; None for the base model's own."""
    if "InputDataConfig" not in request:
        return None
    return channel_uris(request).get(SCORER_CHANNEL)


class Made(StrEnum):
    """What a job leaves."""

    ADAPTER = "adapter"
    EVALUATION = "evaluation"
    IMAGES = "images"


def made_by(request: Request) -> Made:
    """Return what a job makes, by its hyperparameters."""
    values: Mapping[str, str] = request.get("HyperParameters", {})
    made = {f'"{EVALUATE}"': Made.EVALUATION, f'"{DRAW_BATCH}"': Made.IMAGES}
    return made.get(values.get("recipe", ""), Made.ADAPTER)


class Training(NamedTuple):
    """What a job trains, by its hyperparameters."""

    recipe: str | None = None
    """Its recipe; None for a job of another version, whose hyperparameters cannot be read."""
    settings: Mapping[str, Any] = {}
    """Settings that differ from the defaults."""
    steps: int | None = None
    """Optimizer steps of the whole run."""


def training_of(hyperparameters: Mapping[str, str]) -> Training:
    """Return what a job trains."""
    from orchestrator.contract.recipe import chosen, from_hyperparameters  # the worker of a local job never asks

    try:
        recipe = from_hyperparameters(hyperparameters)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return Training()
    steps = recipe.steps if recipe.trains else None
    return Training(recipe.recipe_name(), chosen(recipe), steps)
