"""What the operations of endpoints ask for beyond the model: rules between fields."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid
from sagemaker_simulator.rules import IMAGE, LOCAL_DISK, REGION_OF_IMAGE, duplicates, tag_faults

Request = dict[str, Any]
Rule = Callable[[Call, Request], Iterator[str]]


def check(call: Call, rules: Iterable[Rule]) -> None:
    """Raise the first rule that a request breaks."""
    for rule in rules:
        for fault in rule(call, call.parameters):
            raise invalid(fault)


def _tags(_: Call, request: Request) -> Iterator[str]:
    yield from tag_faults(request.get("Tags", []))


def _role(call: Call, request: Request) -> Iterator[str]:
    role = request.get("ExecutionRoleArn")
    if role is not None and role.split(":")[4] != call.account:
        yield "ExecutionRoleArn: Cross-account pass role is not allowed."


def _one_container(_: Call, request: Request) -> Iterator[str]:
    if ("PrimaryContainer" in request) == ("Containers" in request):
        yield "You must specify either PrimaryContainer or Containers, and not both."
    if len(request.get("Containers", [])) > 1:
        yield "The simulator runs models of one container only."
    if "ExecutionRoleArn" not in request:
        yield "The simulator needs an ExecutionRoleArn of every model."


def _container(call: Call, request: Request) -> Iterator[str]:
    container = request.get("PrimaryContainer") or request["Containers"][0]
    image = container.get("Image")
    if image is None or "ModelPackageName" in container:
        yield "The simulator needs the Image of a container; it has no model packages."
        return
    if not IMAGE.fullmatch(image):
        yield f"Invalid image URI {image}. Please provide a valid Amazon Elastic Container Registry path."
    found = REGION_OF_IMAGE.match(image)
    if found is not None and call.region and found[1] != call.region:
        yield f"The image {image} is in the region {found[1]}; it must be in that of the model, {call.region}."
    if container.get("Mode", "SingleModel") == "MultiModel":
        yield "The simulator has no multi-model endpoints."
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        yield "ModelDataUrl and ModelDataSource cannot both be specified."
    if not container.get("ModelDataUrl", "x.tar.gz").endswith(".tar.gz"):
        yield "ModelDataUrl must point to a single gzip compressed tar archive (.tar.gz suffix)."


def data_sources(container: Request) -> list[Request]:
    """Return all that a container gets from S3, as S3DataSources."""
    sources = []
    if "ModelDataUrl" in container:
        sources.append({"S3Uri": container["ModelDataUrl"], "S3DataType": "S3Object", "CompressionType": "Gzip"})
    named = [container.get("ModelDataSource", {}), *container.get("AdditionalModelDataSources", [])]
    return sources + [one["S3DataSource"] for one in named if "S3DataSource" in one]


def _sources(_: Call, request: Request) -> Iterator[str]:
    container = request.get("PrimaryContainer") or request["Containers"][0]
    names = [one["ChannelName"] for one in container.get("AdditionalModelDataSources", [])]
    yield from duplicates("channel name", names)
    for source in data_sources(container):
        uri = source["S3Uri"]
        if not uri.startswith("s3://"):
            yield f"The simulator reads model data from s3:// URIs only, not {uri}."
        is_prefix = source["S3DataType"] == "S3Prefix"
        if is_prefix and not uri.endswith("/"):
            yield f"S3Uri {uri} must end with a forward slash when S3DataType is S3Prefix."
        if is_prefix and source["CompressionType"] != "None":
            yield "CompressionType must be None when S3DataType is S3Prefix."
        if not is_prefix and uri.endswith("/"):
            yield f"S3Uri {uri} must be an object when S3DataType is S3Object."
        if "ManifestS3Uri" in source or "HubAccessConfig" in source:
            yield "The simulator reads no manifests and no hubs."


def _variants(_: Call, request: Request) -> Iterator[str]:
    variants = request["ProductionVariants"]
    yield from duplicates("variant name", (one["VariantName"] for one in variants))
    with_model = {"ModelName" in one for one in variants}
    if len(with_model) > 1:
        yield "Variants with and without a ModelName cannot be in one endpoint configuration."
    if with_model == {False} and "ExecutionRoleArn" not in request:
        yield "ExecutionRoleArn is required when a variant has no ModelName."
    if with_model == {True} and "ExecutionRoleArn" in request:
        yield "ExecutionRoleArn is supported only when no variant has a ModelName."
    for name in ("ShadowProductionVariants", "DataCaptureConfig", "ExplainerConfig", "CrossRegionTrafficConfig"):
        if name in request:
            yield f"The simulator does not support {name}."
    for one in variants:
        yield from _variant(one)


def _variant(variant: Request) -> Iterator[str]:
    name = variant["VariantName"]
    if "ServerlessConfig" in variant or "InstancePools" in variant:
        yield f"The simulator runs variants with one InstanceType only: {name}."
    if "InstanceType" not in variant or "InitialInstanceCount" not in variant:
        yield f"InstanceType and InitialInstanceCount are required for variant {name}."
        return
    if "VolumeSizeInGB" in variant and LOCAL_DISK.match(variant["InstanceType"]):
        yield f"VolumeSizeInGB is not supported for {variant['InstanceType']}, whose storage is local."
    scaling = variant.get("ManagedInstanceScaling", {})
    fewest, most = scaling.get("MinInstanceCount", 1), scaling.get("MaxInstanceCount", 1)
    if scaling.get("Status") == "ENABLED" and fewest > most:
        yield f"MinInstanceCount {fewest} of variant {name} is greater than its MaxInstanceCount {most}."
    if fewest == 0 and "ModelName" in variant:
        yield "MinInstanceCount 0 is supported only for endpoints that host inference components."


def _asynchronous(_: Call, request: Request) -> Iterator[str]:
    if "AsyncInferenceConfig" not in request:
        return
    if len(request["ProductionVariants"]) > 1:
        yield "An asynchronous endpoint can have one production variant only."
    if "ModelName" not in request["ProductionVariants"][0]:
        yield "An asynchronous endpoint cannot host inference components."
    if "NotificationConfig" in request["AsyncInferenceConfig"]["OutputConfig"]:
        yield "The simulator sends no notifications."
    if "S3OutputPath" not in request["AsyncInferenceConfig"]["OutputConfig"]:
        yield "S3OutputPath is required in OutputConfig."


def _key(_: Call, request: Request) -> Iterator[str]:
    for one in request["ProductionVariants"]:
        if "KmsKeyId" in request and LOCAL_DISK.match(one.get("InstanceType", "")):
            yield f"KmsKeyId is not supported for {one['InstanceType']}, whose storage is local."


def _deployment(_: Call, request: Request) -> Iterator[str]:
    policy = request.get("DeploymentConfig", {})
    traffic = policy.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    if traffic.get("Type", "ALL_AT_ONCE") != "ALL_AT_ONCE":
        yield "The simulator sends the traffic over ALL_AT_ONCE only."
    if {"CanarySize", "LinearStepSize"} & traffic.keys():
        yield "CanarySize and LinearStepSize are not supported when Type is ALL_AT_ONCE."
    if "BlueGreenUpdatePolicy" in policy and "RollingUpdatePolicy" in policy:
        yield "Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be specified."


def _specification(_: Call, request: Request) -> Iterator[str]:
    if "Specifications" in request:
        yield "The simulator has components with one Specification only."
    specification = request.get("Specification")
    if specification is None:
        if "EndpointName" in request:
            yield "Specification is required."
        return
    container = specification.get("Container", {})
    if "BaseInferenceComponentName" in specification:
        yield from _adapter(request, specification)
        return
    if ("ModelName" in specification) == ("Image" in container):
        yield "Specification needs either a ModelName or a Container with an Image."
    if "ComputeResourceRequirements" not in specification:
        yield "ComputeResourceRequirements is required for an inference component that is no adapter."
    if "EndpointName" in request and "VariantName" not in request:
        yield "VariantName is required for an inference component that is no adapter."
    if "EndpointName" in request and "RuntimeConfig" not in request:
        yield "RuntimeConfig is required for an inference component that is no adapter."
    yield from _artifact(container)


def _adapter(request: Request, specification: Request) -> Iterator[str]:
    for name in ("ModelName", "ComputeResourceRequirements", "StartupParameters", "SchedulingConfig"):
        if name in specification:
            yield f"{name} is not supported for adapter inference components."
    if "RuntimeConfig" in request:
        yield "RuntimeConfig is not supported for adapter inference components."
    container = specification.get("Container", {})
    if "ArtifactUrl" not in container:
        yield "ArtifactUrl is required for adapter inference components."
    for name in ("Image", "Environment"):
        if name in container:
            yield f"{name} is not supported for adapter inference components."
    yield from _artifact(container)


def _artifact(container: Request) -> Iterator[str]:
    uri = container.get("ArtifactUrl", "s3://one.tar.gz")
    if not uri.startswith("s3://") or not uri.endswith(".tar.gz"):
        yield f"ArtifactUrl must point to a single gzip compressed tar archive (.tar.gz suffix): {uri}"


OF_MODELS: tuple[Rule, ...] = (_one_container, _container, _sources, _role, _tags)
OF_CONFIGS: tuple[Rule, ...] = (_variants, _asynchronous, _key, _role, _tags)
OF_COMPONENTS: tuple[Rule, ...] = (_specification, _tags)
OF_ENDPOINTS: tuple[Rule, ...] = (_deployment, _tags)
