"""The operations the simulator knows: one module for each family, all in one table.

To add a family, write a module with an `OPERATIONS` dictionary from operation names to functions of a simulator and
a call, and list it here. Parameters arrive validated against the model; answers are checked against it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call

from . import endpoint_configs, endpoints, inference_components, models, tags, training_jobs

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

Operation = Callable[["SageMakerSimulator", Call], dict[str, Any]]

OPERATIONS: dict[str, Operation] = {
    **training_jobs.OPERATIONS,
    **models.OPERATIONS,
    **endpoint_configs.OPERATIONS,
    **endpoints.OPERATIONS,
    **inference_components.OPERATIONS,
    **tags.OPERATIONS,
}
