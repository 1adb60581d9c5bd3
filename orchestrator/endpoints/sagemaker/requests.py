"""The requests that make an endpoint, as values.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html, API_CreateEndpointConfig.html,
API_CreateEndpoint.html and API_CreateInferenceComponent.html
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import DEFAULT_ROOT, INPUTS_VARIABLE
from orchestrator.contract.serving import BASE_MODEL_FOLDER, CODE_SOURCE, SOURCES_FOLDER
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.names import (
    VARIANT,
    adapter_component,
    base_component,
    error_alarm,
    hash_of,
    hashed_name,
)
from orchestrator.endpoints.sagemaker.tags import ADAPTER_TAG, Record, own_tags_of
from orchestrator.planning.hosting import Hosting
from orchestrator.requests import Request, tag
from orchestrator.settings import AwsSettings
from orchestrator.storage.uris import s3_uri

AMI_VERSION = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Driver 580, for images with CUDA 13: the drivers that SageMaker chooses by itself are for CUDA 11 and 12.

https://docs.aws.amazon.com/sagemaker/latest/dg/inference-gpu-drivers.html
"""
ANSWERS_PREFIX = "invocations/answers/"
FAILURES_PREFIX = "invocations/failures/"
"""Of asynchronous endpoints, in the bucket; they expire."""
_CONCURRENT = 8
"""Requests that an instance of an asynchronous endpoint is sent at the same time; they share its batches."""
_STARTUP_SECONDS = 900
_SLOWEST_BYTES_PER_SECOND = 20e6  # of a download from S3 to an instance, far below what is usual
_SHORTEST_DOWNLOAD, _LONGEST_DOWNLOAD = 300, 3600
_BAKING_SECONDS = 300
"""After an update, before the old instances go: in this time an alarm brings them back."""
_LONGEST_UPDATE = 3600


class Sources(BaseModel):
    """URIs of what an endpoint reads, each ending with a hash and a slash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """The order, and the adapters that it names."""
    base_model: str
    """The base model."""
    code: str
    """The bundle of the server."""
    bytes: int
    """Size of all of them."""


class Context(BaseModel):
    """What a deployment needs to know of the account and of who deploys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: AwsSettings
    """The account it runs in, with an image and a role for endpoints."""
    hosting: Hosting
    """Instance type and price."""
    record: Record
    """What the tags will say."""


def model_request(
    deployment: Deployment,
    sources: Sources,
    context: Context,
) -> Request:
    """Return the CreateModel request: an image, and what it reads, which SageMaker brings before it starts.

    Nothing is fetched by the container, which therefore needs no network.
    """
    account = context.account
    request: Request = {
        "PrimaryContainer": {
            "Image": account.inference_image,
            "Mode": "SingleModel",
            "ModelDataSource": {"S3DataSource": _prefix(sources.model)},
            "AdditionalModelDataSources": [
                _source(BASE_MODEL_FOLDER, sources.base_model),
                _source(CODE_SOURCE, sources.code),
            ],
            "Environment": _environment(sources),
        },
        "ExecutionRoleArn": account.endpoint_role_arn,
        "EnableNetworkIsolation": True,
        **_network(account),
    }
    return _named(
        "ModelName",
        deployment.name,
        request,
        context,
    )


def config_request(
    deployment: Deployment,
    model: Request,
    sources: Sources,
    context: Context,
) -> Request:
    """Return the CreateEndpointConfig request of an endpoint with that model."""
    variant: Request = {
        "VariantName": VARIANT,
        "InstanceType": context.hosting.instance.name,
        "InitialInstanceCount": max(1, deployment.fewest_instances),  # nothing starts with none; it is scaled to none
        "InferenceAmiVersion": AMI_VERSION,
    }
    request: Request = {"ProductionVariants": [variant], **_volume_key(context)}
    if deployment.mode is Mode.COMPONENTS:
        variant["ManagedInstanceScaling"] = {
            "Status": "ENABLED",
            "MinInstanceCount": deployment.fewest_instances,
            "MaxInstanceCount": deployment.most_instances,
        }
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
        request["ExecutionRoleArn"] = context.account.endpoint_role_arn
        request["EnableNetworkIsolation"] = True
        request |= _network(context.account)
        return _named(
            "EndpointConfigName",
            deployment.name,
            request,
            context,
        )
    variant["ModelName"] = model["ModelName"]
    variant["InitialVariantWeight"] = 1.0
    variant |= _startup(sources)
    if deployment.mode is Mode.REALTIME:
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    else:
        request["AsyncInferenceConfig"] = _asynchronous(context.account.bucket, deployment.name)
    return _named(
        "EndpointConfigName",
        deployment.name,
        request,
        context,
    )


def endpoint_request(config: Request, record: Record) -> Request:
    """Return the CreateEndpoint request."""
    return {
        "EndpointName": record.name,
        "EndpointConfigName": config["EndpointConfigName"],
        "Tags": record.tags(),
    }


def update_request(
    endpoint: str,
    config: str,
    mode: Mode,
    *,
    scales: bool,
) -> Request:
    """Return the UpdateEndpoint request: new instances beside the old ones, which come back when the new ones fail.

    Endpoints with components have theirs replaced one by one. An endpoint that scales keeps its number of instances.
    """
    rollback = {"Alarms": [{"AlarmName": error_alarm(endpoint)}]}
    deployment: Request = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "TerminationWaitInSeconds": _BAKING_SECONDS,
            "MaximumExecutionTimeoutInSeconds": _LONGEST_UPDATE,
        },
        "AutoRollbackConfiguration": rollback,
    }
    if mode is Mode.COMPONENTS:
        deployment = {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
                "WaitIntervalInSeconds": _BAKING_SECONDS,
                "MaximumExecutionTimeoutInSeconds": _LONGEST_UPDATE,
            },
            "AutoRollbackConfiguration": rollback,
        }
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": config,
        "RetainAllVariantProperties": scales,
        "DeploymentConfig": deployment,
    }


def base_component_request(
    model: Request,
    sources: Sources,
    context: Context,
) -> Request:
    """Return the CreateInferenceComponent request of the base model: one copy on each instance, with all its GPUs."""
    record = context.record
    instance = context.hosting.instance
    half_of_memory = instance.memory_gib * 512  # MB: what is left of a GB by the agent and the system is not published
    return {
        "InferenceComponentName": base_component(record.name),
        "EndpointName": record.name,
        "VariantName": VARIANT,
        "Specification": {
            "ModelName": model["ModelName"],
            "StartupParameters": _startup(sources),
            "ComputeResourceRequirements": {
                "NumberOfAcceleratorDevicesRequired": instance.gpus,
                "MinMemoryRequiredInMb": half_of_memory,
            },
        },
        "RuntimeConfig": {"CopyCount": max(1, record.fewest)},
        "Tags": own_tags_of(record.name, record.owner, hash_of(model["ModelName"])),
    }


def adapter_component_request(
    adapter: str,
    sha256: str,
    archive: str,
    record: Record,
) -> Request:
    """Return the CreateInferenceComponent request of an adapter, which is loaded into each copy of the base model."""
    return {
        "InferenceComponentName": adapter_component(record.name, adapter, sha256),
        "EndpointName": record.name,
        "Specification": {
            "BaseInferenceComponentName": base_component(record.name),
            "Container": {"ArtifactUrl": archive},
        },
        "Tags": [*own_tags_of(record.name, record.owner, sha256), tag(ADAPTER_TAG, adapter)],
    }


def _named(
    field: str,
    endpoint: str,
    request: Request,
    context: Context,
) -> Request:
    """Return a request with a name that follows from its content, and with tags."""
    digest = hash_of({"endpoint": endpoint, **request})
    tags = own_tags_of(endpoint, context.record.owner, digest)
    return {field: hashed_name(endpoint, digest), **request, "Tags": tags}


def _prefix(uri: str) -> Request:
    return {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}


def _source(name: str, uri: str) -> Request:
    return {"ChannelName": name, "S3DataSource": _prefix(uri)}


def _environment(sources: Sources) -> dict[str, str]:
    """Return the variables of the container: where its code is, and the hash of each thing that it reads."""
    hashes = []
    for name, uri in (("model", sources.model), (BASE_MODEL_FOLDER, sources.base_model), (CODE_SOURCE, sources.code)):
        sha256 = uri.rstrip("/").rpartition("/")[2]
        hashes.append(f"{name}={sha256}")
    return {
        INPUTS_VARIABLE: " ".join(hashes),
        "PYTHONPATH": str(DEFAULT_ROOT / SOURCES_FOLDER / CODE_SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _startup(sources: Sources) -> Request:
    download = int(sources.bytes / _SLOWEST_BYTES_PER_SECOND)
    return {
        "ModelDataDownloadTimeoutInSeconds": min(max(download, _SHORTEST_DOWNLOAD), _LONGEST_DOWNLOAD),
        "ContainerStartupHealthCheckTimeoutInSeconds": _STARTUP_SECONDS,
    }


def _asynchronous(bucket: str, endpoint: str) -> Request:
    """Return where answers and failures go; the bucket encrypts them with its own key."""
    return {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": _CONCURRENT},
        "OutputConfig": {
            "S3OutputPath": s3_uri(bucket, f"{ANSWERS_PREFIX}{endpoint}/"),
            "S3FailurePath": s3_uri(bucket, f"{FAILURES_PREFIX}{endpoint}/"),
        },
    }


def _volume_key(context: Context) -> Request:
    """Return the key of the volume; a built-in disk has a key of its own."""
    key = context.account.kms_key_arn
    if not key or context.hosting.instance.disk_gb is not None:
        return {}
    return {"KmsKeyId": key}


def _network(account: AwsSettings) -> Request:
    if not account.subnets:
        return {}
    groups: Sequence[str] = account.security_groups
    return {"VpcConfig": {"Subnets": [*account.subnets], "SecurityGroupIds": [*groups]}}
