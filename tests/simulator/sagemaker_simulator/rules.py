"""What CreateTrainingJob asks for beyond the model: rules between fields, from the API reference and the field."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from .calls import Call
from .errors import ServiceError, invalid
from .validation import validate

_MAX_RUNTIME = 28 * 24 * 3600
IMAGE = re.compile(
    r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/"
    r"[a-z0-9]+([._/-][a-z0-9]+)*(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})?"
)
# Families whose disk is in the machine: the service refuses a key for a volume that there is not.
LOCAL_DISK = re.compile(r"ml\.(p3dn|p4d|p4de|p5|p5e|p5en|p6-\w+|g4dn|g5|g6e?|g7e?|gr6|trn1n?|trn2|[cmr]\d\w*d)\.")
REGION_OF_IMAGE = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.")
_BUCKET = re.compile(r"(s3|https)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")

Request = dict[str, Any]


def check_training_job(call: Call) -> None:
    """Raise the first rule that a CreateTrainingJob request breaks."""
    for rule in _RULES:
        for fault in rule(call, call.parameters):
            raise invalid(fault)


def complaint(request: Request) -> str | None:
    """Return what the service would have against a CreateTrainingJob request, or None; nothing is sent or kept."""
    try:
        validate("CreateTrainingJob", request)
        check_training_job(Call("sagemaker", "CreateTrainingJob", request["RoleArn"].split(":")[4], "", request))
    except ServiceError as refusal:
        return refusal.message
    return None


def _needs_what_a_container_needs(_: Call, request: Request) -> Iterator[str]:
    if "ServerlessJobConfig" in request:
        yield "The simulator runs containers: ServerlessJobConfig is not supported."
    for name in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if name not in request:
            yield f"{name} is required for a training job that runs a container."


def _algorithm(call: Call, request: Request) -> Iterator[str]:
    algorithm = request["AlgorithmSpecification"]
    image = algorithm.get("TrainingImage")
    found = REGION_OF_IMAGE.match(image or "")
    if found is not None and call.region and found[1] != call.region:
        yield f"The image {image} is in the region {found[1]}; it must be in that of the training job, {call.region}."
    if (image is None) == ("AlgorithmName" not in algorithm):
        yield "You must specify either TrainingImage or AlgorithmName, and not both."
    access = algorithm.get("TrainingImageConfig", {}).get("TrainingRepositoryAccessMode", "Platform")
    if image is not None and access == "Platform" and not IMAGE.fullmatch(image):
        yield f"Invalid image URI {image}. Please provide a valid Amazon Elastic Container Registry path."
    if access == "Vpc" and "VpcConfig" not in request:
        yield "TrainingRepositoryAccessMode Vpc needs a VpcConfig."
    yield from duplicates("metric name", (metric["Name"] for metric in algorithm.get("MetricDefinitions", [])))
    for metric in algorithm.get("MetricDefinitions", []):
        if not _is_pattern(metric["Regex"]):
            yield f"The regular expression of metric {metric['Name']} is invalid: {metric['Regex']}"


def _role(call: Call, request: Request) -> Iterator[str]:
    if request["RoleArn"].split(":")[4] != call.account:
        yield "RoleArn: Cross-account pass role is not allowed."


def _resources(_: Call, request: Request) -> Iterator[str]:
    resources = request["ResourceConfig"]
    ways = {"InstanceType", "InstanceGroups", "InstancePreferences"} & resources.keys()
    if len(ways) != 1:
        yield "ResourceConfig needs exactly one of InstanceType, InstanceGroups and InstancePreferences."
    if {"SelectedInstanceType", "SelectedInstanceCount"} & resources.keys():
        yield "SelectedInstanceType and SelectedInstanceCount are read-only."
    if "KeepAlivePeriodInSeconds" in resources:
        yield "The simulator has no warm pools: KeepAlivePeriodInSeconds is not supported."
    if "InstanceType" not in resources:
        yield "The simulator runs jobs with one InstanceType only."
    if resources.get("InstanceCount", 0) < 1:
        yield "InstanceCount must be at least 1."
    if "VolumeKmsKeyId" in resources and LOCAL_DISK.match(resources["InstanceType"]):
        yield f"VolumeKmsKeyId is not supported for {resources['InstanceType']}, whose storage is local."
    yield from _fixed_disk(resources)
    if resources.get("VolumeSizeInGB", 0) < 1 and not LOCAL_DISK.match(resources["InstanceType"]):
        yield f"VolumeSizeInGB must be at least 1 for {resources['InstanceType']}."


def _fixed_disk(resources: Request) -> Iterator[str]:
    """Yield a complaint about more disk than is built in; what fits is passed over, as the service does."""
    name = resources.get("InstanceType", "")
    asked = resources.get("VolumeSizeInGB", 0)
    if not asked or not LOCAL_DISK.match(name):
        return
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    has = INSTANCE_TYPES.get(name.removeprefix("ml."), {}).get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    if has is not None and asked > has:
        yield f"VolumeSizeInGB {asked} is more than the local storage of {name}, which is fixed at {has} GB."


def _stopping(_: Call, request: Request) -> Iterator[str]:
    stopping, spot = request["StoppingCondition"], request.get("EnableManagedSpotTraining", False)
    runtime, wait = stopping.get("MaxRuntimeInSeconds", 24 * 3600), stopping.get("MaxWaitTimeInSeconds")
    if runtime > _MAX_RUNTIME:
        yield f"MaxRuntimeInSeconds must not be greater than {_MAX_RUNTIME}."
    if wait is not None and not spot:
        yield "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
    if spot and (wait is None or wait < runtime):
        yield (
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds "
            "when EnableManagedSpotTraining is set to true"
        )
    if spot and request["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
        yield "KeepAlivePeriodInSeconds is not supported when EnableManagedSpotTraining is set to true"


def _channels(_: Call, request: Request) -> Iterator[str]:
    channels = request.get("InputDataConfig", [])
    yield from duplicates("channel name", (channel["ChannelName"] for channel in channels))
    for channel in channels:
        name, source = channel["ChannelName"], channel["DataSource"]
        if len(source) != 1:
            yield f"Channel {name} needs exactly one data source."
        if "S3DataSource" not in source or source["S3DataSource"]["S3DataType"] != "S3Prefix":
            yield f"The simulator reads S3Prefix channels only; {name} is none."
        mode = channel.get("InputMode", request["AlgorithmSpecification"]["TrainingInputMode"])
        if mode == "Pipe":
            yield f"The simulator has no Pipe mode, which channel {name} asks for."
        if channel.get("CompressionType", "None") != "None":
            yield f"CompressionType is supported in Pipe mode only: channel {name}."
        if channel.get("RecordWrapperType", "None") != "None":
            yield f"RecordWrapperType is supported in Pipe mode only: channel {name}."


def _locations(_: Call, request: Request) -> Iterator[str]:
    places = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in request.get("InputDataConfig", [])]
    places.append(request["OutputDataConfig"]["S3OutputPath"])
    configs = ("CheckpointConfig", "TensorBoardOutputConfig", "DebugHookConfig", "ProfilerConfig")
    for config in (request.get(name, {}) for name in configs):
        places.extend(config[name] for name in ("S3Uri", "S3OutputPath") if name in config)
    for place in places:
        if not _BUCKET.fullmatch(place):
            yield f"Invalid S3 URI: {place}"


def _checkpoints(_: Call, request: Request) -> Iterator[str]:
    path = request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
    if ".." in path.split("/") or not path.startswith("/opt/ml/"):
        yield f"The simulator keeps checkpoints below /opt/ml only, not in {path}."
    taken = ("/opt/ml/input", "/opt/ml/model", "/opt/ml/output")
    if any(path == one or path.startswith(f"{one}/") for one in taken):
        yield f"Invalid LocalPath {path} of CheckpointConfig: the path is reserved."
    checkpoints = request.get("CheckpointConfig", {}).get("S3Uri", "").rstrip("/")
    if checkpoints and checkpoints == request["OutputDataConfig"]["S3OutputPath"].rstrip("/"):
        yield "The S3Uri of CheckpointConfig must differ from the S3OutputPath of OutputDataConfig."


def _tags(_: Call, request: Request) -> Iterator[str]:
    yield from tag_faults(request.get("Tags", []))


def tag_faults(tags: list[dict[str, str]]) -> Iterator[str]:
    """Yield what is wrong with tags beyond the model."""
    yield from duplicates("tag key", (tag["Key"] for tag in tags))
    if any(tag["Key"].lower().startswith("aws:") for tag in tags):
        yield "Tag keys that begin with aws: are reserved for system use."


_RULES = (
    _needs_what_a_container_needs,
    _algorithm,
    _role,
    _resources,
    _stopping,
    _channels,
    _locations,
    _checkpoints,
    _tags,
)


def duplicates(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"Duplicate {what}: {name}"


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
