"""What endpoints and components share: one that is being changed or failed is left alone, but for its deletion."""

from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid
from sagemaker_simulator.hosting.records import Kind

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

_BUSY = {"Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting"}


def free(simulator: "SageMakerSimulator", call: Call, kind: Kind) -> Any:
    """Return what a call names, to which nothing is being done; one that failed can only be deleted."""
    found = simulator.hosting.find(call, kind)
    if found.status in _BUSY:
        raise invalid(f'Cannot update in-progress {kind.words} "{found.arn}".')
    if found.status == "Failed" and not call.operation.startswith("Delete"):
        raise invalid(f'Cannot update failed {kind.words} "{found.arn}".')
    return found
