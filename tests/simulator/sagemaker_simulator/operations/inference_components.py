"""The operations on inference components."""

from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid
from sagemaker_simulator.hosting.component_driver import ComponentDriver, variant_of
from sagemaker_simulator.hosting.records import COMPONENT, ENDPOINT, MODEL, Component, Endpoint
from sagemaker_simulator.hosting.rules import OF_COMPONENTS, check

from .free import free
from .listing import listed

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


def create_inference_component(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_COMPONENTS)
    hosting = simulator.hosting
    endpoint: Endpoint = hosting.find(call, ENDPOINT)
    if endpoint.config is None or endpoint.status == "Deleting":
        raise invalid(f'Endpoint "{endpoint.arn}" must be in service to host inference components.')
    if not endpoint.config.hosts_components:
        raise invalid(f'Endpoint "{endpoint.arn}" does not support inference components: its variants have models.')
    variant = variant_of(endpoint, call.parameters.get("VariantName"))
    if variant not in {one.name for one in endpoint.variants}:
        raise invalid(f'Could not find variant "{variant}" of endpoint "{endpoint.arn}".')
    _check_specification(simulator, call, call.parameters["Specification"], endpoint.name)
    now = simulator.clock.now()
    arn = COMPONENT.arn(call, call.parameters["InferenceComponentName"])
    copies = call.parameters.get("RuntimeConfig", {}).get("CopyCount", 1)
    component = Component(
        kind=COMPONENT,
        request=call.parameters,
        arn=arn,
        account=call.account,
        region=call.region,
        created=now,
        modified=now,
        status="Creating",
        endpoint_arn=endpoint.arn,
        variant=variant,
        desired_copies=copies,
    )
    with simulator.creating:
        hosting.keep(component)
        driver = ComponentDriver(hosting, component, hosting.drivers[endpoint.arn])
        hosting.components[arn] = driver
    simulator.clock.run_now(driver.create)
    return {"InferenceComponentArn": arn}


def describe_inference_component(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    component: Component = simulator.hosting.find(call, COMPONENT)
    return component.describe()


def update_inference_component(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_COMPONENTS)
    component: Component = free(simulator, call, COMPONENT)
    specification = call.parameters.get("Specification", component.specification)
    if specification.get("BaseInferenceComponentName") != component.base:
        raise invalid("BaseInferenceComponentName cannot be changed.")
    _check_specification(simulator, call, specification, component.endpoint_name)
    driver = simulator.hosting.components[component.arn]
    simulator.clock.run_now(lambda: driver.update(call.parameters))
    return {"InferenceComponentArn": component.arn}


def update_runtime_config(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    component: Component = free(simulator, call, COMPONENT)
    if component.base is not None:
        raise invalid("RuntimeConfig is not supported for adapter inference components.")
    copies = call.parameters["DesiredRuntimeConfig"]["CopyCount"]
    driver = simulator.hosting.components[component.arn]
    simulator.clock.run_now(lambda: driver.scale(copies))
    return {"InferenceComponentArn": component.arn}


def delete_inference_component(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    component: Component = free(simulator, call, COMPONENT)
    driver = simulator.hosting.components[component.arn]
    if adapters := [one.component.name for one in driver.adapters()]:
        raise invalid(
            f'Cannot delete inference component "{component.arn}" while adapter inference components refer to it: '
            f"{', '.join(adapters)}."
        )
    simulator.clock.run_now(driver.delete)
    return {}


def list_inference_components(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    asked = call.parameters
    known = []
    for one in list(simulator.hosting.kept(call.account, call.region, COMPONENT).values()):
        is_there = asked.get("EndpointNameEquals") in {None, getattr(one, "endpoint_name", None)}
        is_of_variant = asked.get("VariantNameEquals") in {None, getattr(one, "variant", None)}
        if is_there and is_of_variant:
            known.append(one)
    found, token = listed(simulator, known, asked, "Descending")
    return {"InferenceComponents": found} | token


def _check_specification(
    simulator: "SageMakerSimulator", call: Call, specification: dict[str, Any], endpoint: str
) -> None:
    """Raise ServiceError when the model, or the component that an adapter belongs to, is not there."""
    if "ModelName" in specification:
        simulator.hosting.find(call, MODEL, specification["ModelName"])
    name = specification.get("BaseInferenceComponentName")
    if name is None:
        return
    base: Component = simulator.hosting.find(call, COMPONENT, name)
    if base.endpoint_name != endpoint:
        raise invalid(f'Inference component "{base.arn}" is not on endpoint {endpoint}.')
    if base.base is not None:
        raise invalid(f'Inference component "{base.arn}" is an adapter itself.')
    if base.status not in {"InService", "Updating"}:
        raise invalid(f'Inference component "{base.arn}" must be in service; it is {base.status}.')


OPERATIONS = {
    "CreateInferenceComponent": create_inference_component,
    "DescribeInferenceComponent": describe_inference_component,
    "UpdateInferenceComponent": update_inference_component,
    "UpdateInferenceComponentRuntimeConfig": update_runtime_config,
    "DeleteInferenceComponent": delete_inference_component,
    "ListInferenceComponents": list_inference_components,
}
