"""Which instance a job gets, for how long at most, and for how much: worked out from its spec alone, without a call."""

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, fallbacks, instance, instances, price
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.models import size
from orchestrator.planning.memory import Fit, MemoryEstimate, estimate
from orchestrator.planning.pricing import WorstCase, runtime_for, worst_case
from orchestrator.specs.base_model import Hub
from orchestrator.specs.compute import require_checkpoint
from orchestrator.specs.job import JobSpec

_UNKNOWN_MODEL_GIB = 20.0  # usable memory that a job of unknown size gets at least
BUDGET_FIELD = "budget.max_usd"


class Placement(BaseModel):
    """A place for a job on SageMaker."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    instance: Instance
    """The type it runs on."""
    region: str
    """Where."""
    memory: MemoryEstimate | None
    """GPU memory it is expected to take, or None when that cannot be said."""
    fit: Fit
    """Whether the instance's GPU has that much."""
    why: str
    """How the instance was chosen, as a sentence."""
    cost: WorstCase
    """The most it can cost, and its limit in seconds."""
    wait_seconds: int | None
    """MaxWaitTimeInSeconds; None without spot."""
    quota: str
    """The service quota that has to allow it, by its name in the Service Quotas console."""
    warnings: tuple[Problem, ...] = ()
    """What is odd and no reason to refuse."""


def place(spec: JobSpec, region: str) -> Placement:
    """Choose or check the instance and price the job; raises SpecError with every problem at once."""
    memory = estimate(spec.recipe, _model_size(spec))
    chosen, why = _choose(spec, memory, region)
    return _placed(spec, chosen, why, memory, region)


def stand_ins(spec: JobSpec, placed: Placement) -> list[Placement]:
    """Return where the same job could run when its instance cannot be had, priced anew, the cheapest first.

    Each has as many GPUs with at least as much memory. What the budget does not pay for is left out.
    """
    found = []
    for other in fallbacks(placed.instance):
        try:
            why = f"It stands in for {placed.instance.name}."
            found.append(_placed(spec, other, why, placed.memory, placed.region))
        except SpecError:
            continue
    return found


def _placed(
    spec: JobSpec,
    chosen: Instance,
    why: str,
    memory: MemoryEstimate | None,
    region: str,
) -> Placement:
    fit = memory.fit(chosen.gpu) if memory else Fit.CANNOT_TELL
    seconds = _runtime(spec, chosen, region)
    return Placement(
        instance=chosen,
        region=region,
        memory=memory,
        fit=fit,
        why=why,
        cost=worst_case(chosen, spec.compute, region, seconds),
        wait_seconds=spec.compute.wait_seconds(seconds),
        quota=f"{chosen.name} for {'spot ' if spec.compute.spot else ''}training job usage",
        warnings=tuple(_warnings(spec, chosen, memory)),
    )


def _model_size(spec: JobSpec) -> ModelSize | None:
    source = spec.base_model
    if isinstance(source, Hub):
        return size.of_hub(source.id)
    try:
        return size.of_folder(source.folder)
    except ValueError:  # whether the folder is a model is not asked here; its size is then not known
        return None


def _choose(spec: JobSpec, memory: MemoryEstimate | None, region: str) -> tuple[Instance, str]:
    if spec.compute.instance_type is not None:
        return instance(spec.compute.instance_type), "It was asked for."
    able = [one for one in instances().values() if one.gpus == 1 and _suits(one, spec, memory)]
    if not able:
        raise _too_big(memory)
    cheapest = min(able, key=lambda one: price(one, region).usd_per_hour)
    need = "the model's size is not known" if memory is None else f"the job is estimated to take {memory.describe()}"
    return cheapest, f"It is the cheapest by the hour that is sure to be enough: {need}."


def _suits(one: Instance, spec: JobSpec, memory: MemoryEstimate | None) -> bool:
    enough = memory.fit(one.gpu) is Fit.FITS if memory else one.gpu.usable_gib >= _UNKNOWN_MODEL_GIB
    return enough and (one.gpu.bf16 or not spec.recipe.needs_bf16)


def _too_big(memory: MemoryEstimate | None) -> SpecError:
    need = memory.describe() if memory else "an unknown amount of memory"
    problem = Problem(
        where="compute.instance_type",
        what=f"no instance type is sure to have {need}",
        fix="lower batch_size or resolution, set gradient_checkpointing=true, or name an instance_type yourself",
    )
    return _refusal([problem])


def _runtime(spec: JobSpec, chosen: Instance, region: str) -> int:
    """Return the seconds the job may run: as long as asked for, and no longer than the budget pays for."""
    seconds, budget = spec.compute.max_runtime_minutes * 60, spec.budget.max_usd
    where = "compute"
    try:
        if budget is not None:
            where = BUDGET_FIELD
            seconds = min(seconds, runtime_for(budget, chosen, spec.compute, region))
        require_checkpoint(spec.recipe, spec.compute, seconds)
    except ValueError as error:
        raise _refusal([Problem(where=where, what=str(error))]) from error
    return seconds


def _warnings(spec: JobSpec, chosen: Instance, memory: MemoryEstimate | None) -> list[Problem]:
    found = [_memory_warning(chosen, memory)]
    if spec.recipe.needs_bf16 and not chosen.gpu.bf16:
        what = f"{chosen.gpu.name} GPUs do not compute in bf16"
        found.append(
            Problem(
                where="mixed_precision",
                what=what,
                fix="use fp16, or an ml.g5 or newer instance",
            )
        )
    if spec.compute.instance_count > 1:
        what = f"{spec.compute.instance_count} instances are paid for, and training uses one of them"
        found.append(
            Problem(
                where="compute.instance_count",
                what=what,
                fix="leave it out",
            )
        )
    if chosen.gpus > 1:
        what = f"{chosen.gpus} GPUs are paid for, and training uses one of them"
        found.append(
            Problem(
                where="compute.instance_type",
                what=what,
                fix=f"use {_single(chosen)}",
            )
        )
    return [warning for warning in found if warning is not None]


def _memory_warning(chosen: Instance, memory: MemoryEstimate | None) -> Problem | None:
    fix = "set gradient_checkpointing=true, lower batch_size or resolution, or leave instance_type out"
    if memory is None:
        what = "the GPU memory of this job cannot be estimated, because the size of its model is not known here"
        return Problem(where="compute.instance_type", what=what)
    match memory.fit(chosen.gpu):
        case Fit.FITS:
            return None
        case Fit.CANNOT_TELL:
            what = f"{chosen.describe()} may be too small: the job is estimated to take {memory.describe()}"
        case Fit.DOES_NOT_FIT:
            what = f"{chosen.describe()} is too small: the job is estimated to take {memory.describe()}"
    return Problem(where="compute.instance_type", what=what, fix=fix)


def _single(chosen: Instance) -> str:
    """Return the cheapest type with one GPU of the same memory or more."""
    able = [one for one in instances().values() if one.gpus == 1 and one.gpu.usable_gib >= chosen.gpu.usable_gib]
    return min(able, key=lambda one: one.usd_per_hour).name


def _refusal(problems: list[Problem]) -> SpecError:
    return SpecError(
        "The job has no place on SageMaker as it is written; nothing was started.",
        problems=problems,
        next_step="change what is named above and submit again",
    )
