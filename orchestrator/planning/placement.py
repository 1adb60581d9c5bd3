"""Choose the instance of a job, its time limit and its worst-case price, from the spec alone. Makes no call."""

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, fallbacks, instance, instances, price
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.problem import Problem
from orchestrator.contract.recipe import Optimised
from orchestrator.errors import SpecError
from orchestrator.models import size
from orchestrator.planning.memory import Fit, MemoryEstimate, estimate
from orchestrator.planning.pricing import WorstCase, runtime_for, worst_case
from orchestrator.specs.base_model import Hub
from orchestrator.specs.compute import require_checkpoint
from orchestrator.specs.job import JobSpec

_UNKNOWN_MODEL_GIB = 20.0  # least usable GPU memory for a model of unknown size
BUDGET_FIELD = "budget.max_usd"


class Placement(BaseModel):
    """The instances that a job runs on, and their limits and price. SageMaker only."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    instance: Instance
    """Instance type."""
    region: str
    """AWS region."""
    memory: MemoryEstimate | None
    """Estimated GPU memory, or None for a model of unknown size."""
    fit: Fit
    """Whether the estimate fits the memory of one GPU of the instance."""
    why: str
    """How the instance was chosen, as a sentence."""
    cost: WorstCase
    """Worst-case price, with the time limit in seconds."""
    wait_seconds: int | None
    """MaxWaitTimeInSeconds; None without spot."""
    quota: str
    """The service quota that has to allow it, by its name in the Service Quotas console."""
    warnings: tuple[Problem, ...] = ()
    """Problems that do not stop the job."""


def find_placement(spec: JobSpec, region: str) -> Placement:
    """Choose or check the instance and price the job; raises SpecError with all problems at once."""
    memory = estimate(spec.recipe, _model_size(spec))
    chosen, why = _choose(spec, memory, region)
    return _placed(spec, chosen, why, memory, region)


def stand_ins(spec: JobSpec, placement: Placement) -> list[Placement]:
    """Return the other placements for when the instance has no capacity, the cheapest first.

    Each has the same number of GPUs with at least as much memory. Those beyond the budget are left out, and those with
    too little main memory.
    """
    found = []
    memory = placement.memory
    why = f"Stand-in for {placement.instance.name}."
    for other in fallbacks(placement.instance):
        if memory is not None and not memory.fits_main(other):
            continue
        try:
            found.append(_placed(spec, other, why, memory, placement.region))
        except SpecError:  # beyond the budget
            continue
    return found


def _placed(
    spec: JobSpec,
    chosen: Instance,
    why: str,
    memory: MemoryEstimate | None,
    region: str,
) -> Placement:
    """Return the placement on an instance; raises SpecError when the budget does not pay for training on it."""
    compute = spec.compute
    seconds = _runtime(spec, chosen, region)
    fit = Fit.CANNOT_TELL
    if memory is not None:
        fit = memory.fit(chosen.gpu)
    usage = "training job usage"
    if compute.spot:
        usage = "spot training job usage"
    return Placement(
        instance=chosen,
        region=region,
        memory=memory,
        fit=fit,
        why=why,
        cost=worst_case(chosen, compute, region, seconds),
        wait_seconds=compute.wait_seconds(seconds),
        quota=f"{chosen.name} for {usage}",
        warnings=tuple(_warnings(spec, chosen, memory)),
    )


def _model_size(spec: JobSpec) -> ModelSize | None:
    source = spec.base_model
    if isinstance(source, Hub):
        return size.of_hub(source.id)
    try:
        return size.of_folder(source.folder)
    except ValueError:  # planning the upload says what is wrong with the folder; here only the size is unknown
        return None


def _choose(spec: JobSpec, memory: MemoryEstimate | None, region: str) -> tuple[Instance, str]:
    """Return the requested instance, or else the cheapest with one GPU that is large enough, and why."""
    if spec.compute.instance_type is not None:
        return instance(spec.compute.instance_type), "Requested."
    able = []
    for candidate in instances().values():
        if candidate.gpus == 1 and _is_enough(candidate, spec, memory):
            able.append(candidate)
    if not able:
        raise _too_big(memory)
    cheapest = min(able, key=lambda candidate: price(candidate, region).usd_per_hour)
    need = "the size of the model is unknown"
    if memory is not None:
        need = f"the job is estimated to take {memory.describe()}"
    return cheapest, f"Lowest hourly price among the types whose GPU is large enough: {need}."


def _is_enough(candidate: Instance, spec: JobSpec, memory: MemoryEstimate | None) -> bool:
    gpu = candidate.gpu
    if spec.recipe.needs_bf16 and not gpu.bf16:
        return False
    if memory is None:
        return gpu.usable_gib >= _UNKNOWN_MODEL_GIB
    return memory.fit(gpu) is Fit.FITS and memory.fits_main(candidate)


def _too_big(memory: MemoryEstimate | None) -> SpecError:
    need = "an unknown amount of memory"
    if memory is not None:
        need = memory.describe()
    problem = Problem(
        where="compute.instance_type",
        what=f"no instance type has a GPU that is sure to hold {need}",
        fix="lower batch_size or resolution, set gradient_checkpointing=true, or name an instance_type yourself",
    )
    return _refusal("No instance type satisfies this job", problem)


def _runtime(spec: JobSpec, chosen: Instance, region: str) -> int:
    """Return the time limit in seconds: the requested one, or less when the budget pays for less."""
    seconds = spec.compute.max_runtime_minutes * 60
    budget = spec.budget.max_usd
    where = "compute"
    try:
        if budget is not None:
            where = BUDGET_FIELD
            affordable = runtime_for(budget, chosen, spec.compute, region)
            seconds = min(seconds, affordable)
        require_checkpoint(spec.recipe, spec.compute, seconds)
    except ValueError as error:
        problem = Problem(where=where, what=str(error))
        raise _refusal("The limits of this job are too low", problem) from error
    return seconds


def _refusal(message: str, problem: Problem) -> SpecError:
    return SpecError(
        f"{message}; nothing was started.",
        problems=[problem],
        next_step="change what is named above and submit again",
    )


def _warnings(spec: JobSpec, chosen: Instance, memory: MemoryEstimate | None) -> list[Problem]:
    warnings = [
        _memory_warning(chosen, memory),
        _main_memory_warning(chosen, memory),
        _precision_warning(spec, chosen),
        _batch_warning(spec, chosen),
    ]
    return [warning for warning in warnings if warning is not None]


def _memory_warning(chosen: Instance, memory: MemoryEstimate | None) -> Problem | None:
    where = "compute.instance_type"
    if memory is None:
        what = "the GPU memory of this job cannot be estimated, because the size of its model is unknown"
        return Problem(where=where, what=what)
    match memory.fit(chosen.gpu):
        case Fit.FITS:
            return None
        case Fit.CANNOT_TELL:
            verdict = "may be too small"
        case Fit.DOES_NOT_FIT:
            verdict = "is too small"
    return Problem(
        where=where,
        what=f"{chosen.describe()} {verdict}: the job is estimated to take {memory.describe()}",
        fix="set gradient_checkpointing=true, lower batch_size or resolution, or leave instance_type out",
    )


def _main_memory_warning(chosen: Instance, memory: MemoryEstimate | None) -> Problem | None:
    if memory is None or memory.fits_main(chosen):
        return None
    need = f"{memory.main_gib:.1f} GiB"
    if chosen.gpus > 1:
        need = f"{memory.main_gib:.1f} GiB for each of its {chosen.gpus} GPUs"
    return Problem(
        where="compute.instance_type",
        what=f"{chosen.name} may be too small: it has {chosen.memory_gib} GiB of main memory, and loading takes {need}",
        fix="name a larger size of the type, or leave instance_type out",
    )


def _precision_warning(spec: JobSpec, chosen: Instance) -> Problem | None:
    if chosen.gpu.bf16 or not spec.recipe.needs_bf16:
        return None
    return Problem(
        where="mixed_precision",
        what=f"{chosen.gpu.name} GPUs do not compute in bf16",
        fix="use fp16, or an ml.g5 or newer instance",
    )


def _batch_warning(spec: JobSpec, chosen: Instance) -> Problem | None:
    """Say how many samples a step sees when several GPUs train: each draws a batch of its own."""
    recipe = spec.recipe
    gpus = spec.compute.instance_count * chosen.gpus
    if gpus == 1 or not isinstance(recipe, Optimised):
        return None
    samples = gpus * recipe.batch_size * recipe.gradient_accumulation
    factors = f"{gpus} GPUs x batch_size {recipe.batch_size} x gradient_accumulation {recipe.gradient_accumulation}"
    return Problem(
        where="batch_size",
        what=f"is per GPU: one optimizer step sees {samples} samples ({factors}); learning_rate is not scaled",
        fix="choose learning_rate for that many samples, or lower batch_size or gradient_accumulation",
    )
