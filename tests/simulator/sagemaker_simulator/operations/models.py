"""The operations on models."""

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid
from sagemaker_simulator.hosting.records import MODEL, Model
from sagemaker_simulator.hosting.rules import OF_MODELS, check, data_sources
from sagemaker_simulator.training.storage import keys, split

from .listing import listed

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


def create_model(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_MODELS)
    now = simulator.clock.now()
    arn = MODEL.arn(call, call.parameters["ModelName"])
    model = Model(MODEL, call.parameters, arn, call.account, call.region, now, now)
    image = model.container["Image"]
    if simulator.image(image) is None:
        raise invalid(f"Requested image {image} not found.")
    _check_data(simulator, model)
    with simulator.creating:  # of two creates at once only one succeeds
        simulator.hosting.keep(model)
    return {"ModelArn": arn}


def describe_model(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    model: Model = simulator.hosting.find(call, MODEL)
    described = {"EnableNetworkIsolation": False, **model.described()}
    if "PrimaryContainer" in described:
        described["PrimaryContainer"] = {"Mode": "SingleModel", **model.container}
    return described


def delete_model(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    simulator.hosting.forget(simulator.hosting.find(call, MODEL))
    return {}


def list_models(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    known = simulator.hosting.kept(call.account, call.region, MODEL).values()
    found, token = listed(simulator, known, call.parameters, "Descending")
    return {"Models": found} | token


def _check_data(simulator: "SageMakerSimulator", model: Model) -> None:
    if not simulator.trusts_service(model):
        raise invalid(_NO_ACCESS.format(uri="(none was tried)", role=model.role, region=model.region))
    s3 = simulator.client_for(model, "s3")
    for source in data_sources(model.container):
        bucket, key = split(source["S3Uri"])
        try:
            found = bool(keys(s3, bucket, key))
        except ClientError:
            found = False
        if not found:
            raise invalid(_NO_ACCESS.format(uri=source["S3Uri"], role=model.role, region=model.region))


_NO_ACCESS = (
    'Could not access model data at {uri}. Please ensure that the role "{role}" exists and that its trust relationship '
    'policy allows the action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com". Also ensure that '
    'the role has "s3:GetObject" permissions and that the object is located in {region}. If your Model uses multiple '
    'models or uncompressed models, please ensure that the role has "s3:ListBucket" permission.'
)
OPERATIONS = {
    "CreateModel": create_model,
    "DescribeModel": describe_model,
    "DeleteModel": delete_model,
    "ListModels": list_models,
}
