"""Build the CreateTrainingJob request of a spec, the same for every target.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

import re
from collections.abc import Mapping
from string import hexdigits
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import (
    BASE_MODEL_CHANNEL,
    DEFAULT_ROOT,
    INPUTS_VARIABLE,
    JOB_VARIABLE,
    PRICE_VARIABLE,
    SCORER_CHANNEL,
    START_PROGRAM,
    WAIT_VARIABLE,
    Environment,
)
from orchestrator.contract.mixins import Rewarded
from orchestrator.contract.recipe import Recipe, to_hyperparameters
from orchestrator.planning.metric_definitions import metric_definitions
from orchestrator.planning.placement import Placement
from orchestrator.requests import (
    BUNDLE_CHANNEL,
    IDENTITY_TAG,
    NO_PROFILER,
    OWNER_TAG,
    RECIPE_TAG,
    LocalContainer,
    Request,
    channel_uris,
    tag,
)
from orchestrator.settings import ADAPTERS_PREFIX, IMAGES_PREFIX, AwsSettings
from orchestrator.specs.base_model import Folder
from orchestrator.specs.job import JobSpec
from orchestrator.storage.uris import s3_uri

_DIGITS = 10
"""How much of the identity a job's name holds."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class JobInputs(BaseModel):
    """URIs of what a job reads and writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    """Hash of the whole job; the job name ends in its first ten digits."""
    data: Mapping[str, str]
    """Channel name to URI of the prepared inputs."""
    base_model: str | None
    """The base model, mirrored or not; None when the job downloads it from the Hub."""
    scorer: str | None = None
    """The CLIP that measures the figures; None for the base model's own."""
    commit: str | None = None
    """Commit of a mirrored base model, which the files in the channel do not name."""
    bundle: str
    """The code bundle."""
    output: str
    """Prefix that the adapter is written below."""


class SageMakerContext(BaseModel):
    """What only a request to SageMaker holds: the account, the instances, and who submits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: AwsSettings
    """The account it runs in."""
    placement: Placement
    """Instance type and limits."""
    owner: str
    """Who submits the job; becomes a tag."""


def job_name(spec: JobSpec, identity: str) -> str:
    """Return the name of the adapter, or else of the recipe, with ten digits of the identity: same job, same name."""
    prefix = spec.name or spec.recipe.recipe_name()
    return f"{prefix}-{identity[:_DIGITS]}"


def is_job_of(adapter: str, job: str) -> bool:
    """Return whether a job's name is that of an adapter, as it was given with --name, with digits of an identity."""
    digits = job.removeprefix(f"{adapter}-")
    return digits != job and len(digits) == _DIGITS and set(digits) <= set(hexdigits)


def training_job(
    spec: JobSpec,
    inputs: JobInputs,
    context: SageMakerContext | LocalContainer | None = None,
) -> Request:
    """Return the CreateTrainingJob request of a job.

    For SageMaker, for containers or, without a `context`, for processes of this machine.
    """
    request = _local_request(spec, inputs)
    if context is None:
        return request
    if isinstance(context, LocalContainer):
        return _container_request(request, spec, context)
    return _sagemaker_request(request, spec, inputs, context)


def output_uri(account: AwsSettings, spec: JobSpec, identity: str) -> str:
    """Return the prefix of all versions of a job's adapter, or of all batches; the service adds `JOB/output/model/`."""
    if spec.recipe.shares_images:
        return s3_uri(account.bucket, IMAGES_PREFIX.rstrip("/"))
    name = spec.name or job_name(spec, identity)
    return s3_uri(account.bucket, f"{ADAPTERS_PREFIX}{name}")


def checkpoint_uri(account: AwsSettings, identity: str) -> str:
    """Return the prefix of a job's checkpoints; it does not depend on the instance, so any instance can resume."""
    return s3_uri(account.bucket, f"checkpoints/{identity}/")


def _local_request(spec: JobSpec, inputs: JobInputs) -> Request:
    uris = {**inputs.data, BUNDLE_CHANNEL: inputs.bundle}
    if inputs.base_model is not None:
        uris[BASE_MODEL_CHANNEL] = inputs.base_model
    if inputs.scorer is not None:
        uris[SCORER_CHANNEL] = inputs.scorer
    channels = [_channel(name, uri) for name, uri in uris.items()]
    machines = {}
    if spec.recipe.shares_images:  # on this machine as many processes
        machines = {"ResourceConfig": {"InstanceCount": spec.compute.instance_count}}
    return {
        "TrainingJobName": job_name(spec, inputs.identity),
        "AlgorithmSpecification": {
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", spec.recipe.entry],
        },
        "HyperParameters": to_hyperparameters(_sent_recipe(spec, inputs)),
        "InputDataConfig": channels,
        "OutputDataConfig": {
            "S3OutputPath": inputs.output,
            "CompressionType": "NONE",
        },
        **machines,
        **_waiting(spec, inputs),
        "Tags": [tag(IDENTITY_TAG, inputs.identity)],
    }


def _sent_recipe(spec: JobSpec, inputs: JobInputs) -> Recipe:
    """Return the recipe as the job gets it: with the name of a base model's folder, or the commit of a mirrored one.

    The path of the folder would end up in the adapter: it says where this machine keeps its files, and it would make
    adapters of equal jobs on two machines differ.
    """
    source = spec.base_model
    changes: dict[str, Any] = {}
    if isinstance(source, Folder):
        changes["base_model"] = f"./{source.folder.name}"
    elif inputs.commit is not None:
        changes["base_revision"] = inputs.commit
    recipe = spec.recipe
    if isinstance(recipe, Rewarded):  # their paths too
        changes["rewards"] = tuple(use.without_place() for use in recipe.rewards)
        changes["evaluation_rewards"] = tuple(use.without_place() for use in recipe.evaluation_rewards)
    return recipe.model_copy(update=changes)


def _waiting(spec: JobSpec, inputs: JobInputs) -> Request:
    """Return the environment of a job that asks people; empty for any other."""
    recipe = spec.recipe
    if not isinstance(recipe, Rewarded) or recipe.by_people is None:
        return {}
    variables = {
        JOB_VARIABLE: job_name(spec, inputs.identity),
        WAIT_VARIABLE: spec.wait.value,
    }
    return {"Environment": variables}


def _asks_a_server(recipe: Recipe) -> bool:
    """Whether a reward is given by a server, which has to be reached."""
    if not isinstance(recipe, Rewarded):
        return False
    return any(use.url is not None for use in recipe.all_rewards)


def _container_request(request: Request, spec: JobSpec, container: LocalContainer) -> Request:
    """Return the request for SageMaker local mode: that for SageMaker without what only an account has.

    Files of this machine without a hash in their URI, as a base model in a folder, are not checked.
    """
    uris = channel_uris(request)
    hashed = {channel: uri for channel, uri in uris.items() if _SHA256.fullmatch(_last_part(uri))}
    return {
        **request,
        "AlgorithmSpecification": _in_image(request["AlgorithmSpecification"], container.image),
        "ResourceConfig": {
            "InstanceType": container.instance_type,
            "InstanceCount": spec.compute.instance_count,
        },
        "Environment": {**request.get("Environment", {}), **_variables(hashed)},
    }


def _sagemaker_request(
    request: Request,
    spec: JobSpec,
    inputs: JobInputs,
    context: SageMakerContext,
) -> Request:
    compute = spec.compute
    account = context.account
    isolated = compute.network_isolation
    if isolated is None:
        isolated = inputs.base_model is not None and not _asks_a_server(spec.recipe)  # else it has to reach the Hub
    tags = [
        *request["Tags"],
        tag(RECIPE_TAG, spec.recipe.recipe_name()),
        tag(OWNER_TAG, context.owner),
    ]
    whole = {
        **request,
        "AlgorithmSpecification": _algorithm(request["AlgorithmSpecification"], account, spec.recipe),
        "RoleArn": account.role_arn,
        "OutputDataConfig": {
            **request["OutputDataConfig"],
            **_key("KmsKeyId", account),
        },
        "ResourceConfig": _resources(spec, context),
        "StoppingCondition": _limits(context.placement),
        "EnableManagedSpotTraining": compute.spot,
        "CheckpointConfig": {
            "S3Uri": checkpoint_uri(account, inputs.identity),
            "LocalPath": str(DEFAULT_ROOT / "checkpoints"),
        },
        "TensorBoardOutputConfig": _board(inputs),
        "Environment": {
            **request.get("Environment", {}),
            **_environment(channel_uris(request), context.placement, isolated=isolated),
        },
        "EnableNetworkIsolation": isolated,
        "EnableInterContainerTrafficEncryption": compute.instance_count > 1,
        "InfraCheckConfig": {"EnableInfraCheck": False},  # takes minutes of paid GPU time; meant for clusters
        **NO_PROFILER,
        "Tags": tags,
    }
    if account.subnets:
        whole["VpcConfig"] = {
            "Subnets": [*account.subnets],
            "SecurityGroupIds": [*account.security_groups],
        }
    if compute.retry_attempts:
        whole["RetryStrategy"] = {"MaximumRetryAttempts": compute.retry_attempts}
    return whole


def _algorithm(local: Request, account: AwsSettings, recipe: Recipe) -> Request:
    """Return the image, what it starts, and which figures are read from the log."""
    return {
        **_in_image(local, account.training_image),
        "MetricDefinitions": metric_definitions(
            steered=recipe.dataset.has_conditions,
            rewarded=isinstance(recipe, Rewarded),
        ),
    }


def _in_image(local: Request, image: str) -> Request:
    """Return what an image starts: its program that checks the inputs, in front of the job's own."""
    return {
        "TrainingImage": image,
        **local,
        "ContainerEntrypoint": [START_PROGRAM, *local["ContainerEntrypoint"]],
    }


def _resources(spec: JobSpec, context: SageMakerContext) -> Request:
    compute = spec.compute
    chosen = context.placement.instance
    resources: Request = {
        "InstanceType": chosen.name,
        "InstanceCount": compute.instance_count,
    }
    if chosen.disk_gb is None:  # a built-in disk has a size and a key of its own, and the service takes no other
        resources["VolumeSizeInGB"] = context.placement.disk_gb
        resources |= _key("VolumeKmsKeyId", context.account)
    return resources


def _limits(placement: Placement) -> Request:
    limits = {"MaxRuntimeInSeconds": placement.cost.runtime_seconds}
    if placement.wait_seconds is not None:
        limits["MaxWaitTimeInSeconds"] = placement.wait_seconds
    return limits


def _board(inputs: JobInputs) -> Request:
    """Return where TensorBoard's files go while the job runs; the service adds `JOB/tensorboard-output/`."""
    return {
        "S3OutputPath": inputs.output,
        "LocalPath": str(Environment().tensorboard),
    }


def _environment(uris: Mapping[str, str], placement: Placement, *, isolated: bool) -> dict[str, str]:
    variables = _variables(uris)
    usd_per_hour = placement.cost.usd_per_hour
    if usd_per_hour is not None:
        variables[PRICE_VARIABLE] = str(usd_per_hour)
    if isolated:
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def _variables(uris: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of every container: the hash of each channel, and where its code is."""
    return {
        INPUTS_VARIABLE: _hashes(uris),
        "PYTHONPATH": str(DEFAULT_ROOT / "input" / "data" / BUNDLE_CHANNEL),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _hashes(uris: Mapping[str, str]) -> str:
    """Return the hash of each channel's tree, which its URI ends with: what lies there has to be what was submitted.

    Raises ValueError for a URI without a hash, whose content nobody could check.
    """
    pairs = []
    for channel, uri in sorted(uris.items()):
        sha256 = _last_part(uri)
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"The URI of the channel {channel} does not end with a hash: {uri}")
        pairs.append(f"{channel}={sha256}")
    return " ".join(pairs)


def _key(field: str, account: AwsSettings) -> Request:
    """Return the field with the account's key; empty without a key."""
    if not account.kms_key_arn:
        return {}
    return {field: account.kms_key_arn}


def _channel(name: str, uri: str) -> Request:
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": uri,
        "S3DataDistributionType": "FullyReplicated",
    }
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": source},
        "InputMode": "File",
    }
