"""From a spec to the CreateTrainingJob request, the same for every target."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import BASE_MODEL_CHANNEL, DEFAULT_ROOT
from orchestrator.contract.recipe import Recipe, to_hyperparameters
from orchestrator.planning.metric_definitions import metric_definitions
from orchestrator.planning.placement import Placement
from orchestrator.requests import BUNDLE_CHANNEL, IDENTITY_TAG, OWNER_TAG, RECIPE_TAG, Request
from orchestrator.settings import ADAPTERS_PREFIX, AwsSettings
from orchestrator.specs.base_model import Folder
from orchestrator.specs.job import JobSpec
from orchestrator.storage.uris import s3_uri

_NO_TAG_CHARACTER = re.compile(r"[^\w .:/=+@-]")
_TAG_CHARACTERS = 256


class JobInputs(BaseModel):
    """Where the things a job reads were stored, as URIs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    identity: str
    """Hash of the whole job; the name is made of its beginning."""
    data: Mapping[str, str]
    """Channel to what the recipe learns from: the prepared pictures."""
    base_model: str | None
    """The base model, a mirrored one too, or None when the job fetches it from the Hub itself."""
    commit: str | None = None
    """Commit of a mirrored base model: the channel itself does not say what it is."""
    bundle: str
    """The code."""
    output: str
    """Where the adapter goes."""


class Place(BaseModel):
    """What the service needs to know beside the job: whose account, which machines, who asks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    account: AwsSettings
    """The account it runs in."""
    placement: Placement
    """The instance and its limits."""
    owner: str
    """Who submits; becomes a tag."""


def job_name(spec: JobSpec, identity: str) -> str:
    """Return the same name for the same job: the adapter's or the recipe's, and ten digits of the identity."""
    return f"{spec.name or spec.recipe.recipe_name()}-{identity[:10]}"


def training_job(spec: JobSpec, inputs: JobInputs, place: Place | None = None) -> Request:
    """Return the CreateTrainingJob request for a job: on this machine, or with a `place` for the service."""
    request = _training_job(spec, inputs)
    return request if place is None else _in_the_cloud(request, spec, inputs, place)


def adapter_uri(account: AwsSettings, spec: JobSpec, identity: str) -> str:
    """Return the prefix below which all versions of a job's adapter lie; the service adds `JOB/output/model/`."""
    return s3_uri(account.bucket, f"{ADAPTERS_PREFIX}{spec.name or job_name(spec, identity)}")


def checkpoint_uri(account: AwsSettings, identity: str) -> str:
    """Return where a job's checkpoints lie: it goes on from them on whatever instance."""
    return s3_uri(account.bucket, f"checkpoints/{identity}/")


def _training_job(spec: JobSpec, inputs: JobInputs) -> Request:
    channels = {**inputs.data, BUNDLE_CHANNEL: inputs.bundle}
    if inputs.base_model is not None:
        channels[BASE_MODEL_CHANNEL] = inputs.base_model
    return {
        "TrainingJobName": job_name(spec, inputs.identity),
        "AlgorithmSpecification": {
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", "entrypoints.launch"],
        },
        "HyperParameters": to_hyperparameters(_sent_recipe(spec, inputs)),
        "InputDataConfig": [_channel(name, uri) for name, uri in channels.items()],
        "OutputDataConfig": {"S3OutputPath": inputs.output, "CompressionType": "NONE"},
        "Tags": [_tag(IDENTITY_TAG, inputs.identity)],
    }


def _sent_recipe(spec: JobSpec, inputs: JobInputs) -> Recipe:
    """Return the recipe as the job gets it: with the name of a base model's folder, not the place it lies in.

    That place tells of this machine, and an adapter would hold it; equal work elsewhere is now equal to the byte.
    A mirrored model is named by its commit.
    """
    source = spec.base_model
    if isinstance(source, Folder):
        return spec.recipe.model_copy(update={"base_model": f"./{source.folder.name}"})
    if inputs.commit is not None:
        return spec.recipe.model_copy(update={"base_revision": inputs.commit})
    return spec.recipe


def _in_the_cloud(request: Request, spec: JobSpec, inputs: JobInputs, place: Place) -> Request:
    compute, account = spec.compute, place.account
    isolated = compute.network_isolation
    if isolated is None:
        isolated = inputs.base_model is not None  # else the job has to reach the Hub
    whole = {
        **request,
        "AlgorithmSpecification": {
            "TrainingImage": account.training_image,
            **request["AlgorithmSpecification"],
            "MetricDefinitions": metric_definitions(),
        },
        "RoleArn": account.role_arn,
        "OutputDataConfig": {**request["OutputDataConfig"], **_key("KmsKeyId", account)},
        "ResourceConfig": _resources(spec, place),
        "StoppingCondition": _limits(place.placement),
        "EnableManagedSpotTraining": compute.spot,
        "CheckpointConfig": {
            "S3Uri": checkpoint_uri(account, inputs.identity),
            "LocalPath": str(DEFAULT_ROOT / "checkpoints"),
        },
        "Environment": _environment(isolated=isolated),
        "EnableNetworkIsolation": isolated,
        "EnableInterContainerTrafficEncryption": compute.instance_count > 1,
        "InfraCheckConfig": {"EnableInfraCheck": False},  # minutes of a paid GPU, for clusters
        "Tags": [*request["Tags"], _tag(RECIPE_TAG, spec.recipe.recipe_name()), _tag(OWNER_TAG, place.owner)],
    }
    if account.subnets:
        whole["VpcConfig"] = {"Subnets": [*account.subnets], "SecurityGroupIds": [*account.security_groups]}
    if compute.retry_attempts:
        whole["RetryStrategy"] = {"MaximumRetryAttempts": compute.retry_attempts}
    return whole


def _resources(spec: JobSpec, place: Place) -> Request:
    compute, chosen = spec.compute, place.placement.instance
    resources: Request = {
        "InstanceType": chosen.name,
        "InstanceCount": compute.instance_count,
        "VolumeSizeInGB": compute.volume_gb,
    }
    if chosen.disk_gb is None:  # a disk built in has a key of its own, and the service refuses another
        resources |= _key("VolumeKmsKeyId", place.account)
    return resources


def _limits(placement: Placement) -> Request:
    limits = {"MaxRuntimeInSeconds": placement.cost.runtime_seconds}
    return limits if placement.wait_seconds is None else {**limits, "MaxWaitTimeInSeconds": placement.wait_seconds}


def _environment(*, isolated: bool) -> dict[str, str]:
    variables = {
        "PYTHONPATH": str(DEFAULT_ROOT / "input" / "data" / BUNDLE_CHANNEL),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {**variables, "HF_HUB_OFFLINE": "1"} if isolated else variables


def _key(field: str, account: AwsSettings) -> Request:
    return {field: account.kms_key_arn} if account.kms_key_arn else {}


def _tag(key: str, value: str) -> Request:
    return {"Key": key, "Value": _NO_TAG_CHARACTER.sub("-", value)[:_TAG_CHARACTERS]}


def _channel(name: str, uri: str) -> Request:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}
