"""Choose the instance of a job, its time limit and its worst-case price, from the spec alone. Makes no call."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, fallbacks, instance, instances, price, with_disk
from orchestrator.contract.mixins import Optimised
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.models import size
from orchestrator.planning.disk import disk_of_instance
from orchestrator.planning.duration import Duration, checkpoint_bytes, default_limit, on_gpu, upload_seconds
from orchestrator.planning.memory import Fit, MemoryEstimate, estimate
from orchestrator.planning.pricing import WorstCase, likely_cost, runtime_for, worst_case
from orchestrator.specs.compute import require_checkpoint
from orchestrator.specs.job import JobSpec

_UNKNOWN_MODEL_GIB = 20.0  # least usable GPU memory for a model of unknown size
BUDGET_FIELD = "budget.max_usd"


class Placement(BaseModel):
    """The instances that a job runs on, and their limits and price. SageMaker only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    expected: Duration | None
    """How long it is likely to run; None when that is unknown."""
    likely_usd: tuple[Decimal, Decimal] | None
    """Low and high end of what it is likely to cost; None when that is unknown."""
    checkpoint_bytes: int
    """Bytes of the checkpoints that it keeps in the bucket; 0 when unknown."""
    disk_gb: int
    """Disk space that it asks for or is estimated to take at most, GB."""
    wait_seconds: int | None
    """MaxWaitTimeInSeconds; None without spot."""
    quota: str
    """The service quota that has to allow it, by its name in the Service Quotas console."""
    warnings: tuple[Problem, ...] = ()
    """Problems that do not stop the job."""


def find_placement(spec: JobSpec, region: str, input_bytes: int = 0) -> Placement:
    """Choose or check the instance and price the job; raises SpecError with all problems at once."""
    model_size = size.of_source(spec.base_model)
    scorer = size.of_scorer(spec.scorer)
    memory = estimate(spec.recipe, model_size, scorer)
    estimated = disk_of_instance(
        spec.recipe,
        model_size,
        scorer=scorer,
        inputs=input_bytes,
    )
    disk_gb = max(spec.compute.volume_gb, estimated or 0)
    chosen, why = _choose(spec, memory, disk_gb, region)
    return _placed(spec, chosen, why, memory, disk_gb, region)


def stand_ins(spec: JobSpec, placement: Placement) -> list[Placement]:
    """Return the other placements for when the instance has no capacity, the cheapest first.

    Each has the same number of GPUs with at least as much memory. Those beyond the budget are left out, and those with
    too little main memory or disk.
    """
    found = []
    memory = placement.memory
    why = f"Stand-in for {placement.instance.name}."
    for other in fallbacks(placement.instance):
        if memory is not None and not memory.fits_main(other):
            continue
        if not _has_disk(other, placement.disk_gb):
            continue
        try:
            stand_in = _placed(spec, other, why, memory, placement.disk_gb, placement.region)
        except SpecError:  # beyond the budget
            continue
        found.append(stand_in)
    return found


def _placed(
    spec: JobSpec,
    chosen: Instance,
    why: str,
    memory: MemoryEstimate | None,
    disk_gb: int,
    region: str,
) -> Placement:
    """Return the placement on an instance; raises SpecError when the budget does not pay for training on it."""
    _require_disk(chosen, spec.compute.volume_gb)
    compute = spec.compute.model_copy(update={"volume_gb": disk_gb})  # a volume is paid for
    spec = spec.model_copy(update={"compute": compute})
    recipe = spec.recipe
    model_size = size.of_source(spec.base_model)
    kept_bytes = recipe.keep_checkpoints * checkpoint_bytes(recipe, model_size)
    upload = upload_seconds(recipe, model_size)
    devices = 1
    if recipe.shares_images:
        devices = compute.instance_count * chosen.gpus
    expected = on_gpu(recipe, model_size, chosen.gpu, devices)
    seconds = _runtime(spec, chosen, region, expected, upload)
    likely_usd = None
    if expected is not None:
        likely_usd = likely_cost(chosen, compute, region, expected)
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
        cost=worst_case(chosen, compute, region, seconds, upload),
        expected=expected,
        likely_usd=likely_usd,
        checkpoint_bytes=kept_bytes,
        disk_gb=disk_gb,
        wait_seconds=compute.wait_seconds(seconds),
        quota=f"{chosen.name} for {usage}",
        warnings=tuple(_warnings(spec, chosen, memory, expected, seconds)),
    )


def _choose(
    spec: JobSpec,
    memory: MemoryEstimate | None,
    disk_gb: int,
    region: str,
) -> tuple[Instance, str]:
    """Return the requested instance, or else the cheapest with one GPU that is large enough, and why.

    A type without a known price is never chosen: nothing would tell what it costs.
    """
    if spec.compute.instance_type is not None:
        return instance(spec.compute.instance_type), "Requested."
    cheapest = None
    lowest = Decimal("inf")
    for candidate in instances().values():
        listed = price(candidate, region)
        if listed is None or listed.usd_per_hour >= lowest:
            continue
        if candidate.gpus == 1 and _has_disk(candidate, disk_gb) and _is_enough(candidate, spec, memory):
            cheapest = candidate
            lowest = listed.usd_per_hour
    if cheapest is None:
        raise _too_big(spec, memory, disk_gb)
    need = "the size of the model is unknown"
    if memory is not None:
        need = f"the job is estimated to take {memory.describe()}"
    return cheapest, f"Lowest hourly price among the types whose GPU is large enough: {need}."


def _has_disk(candidate: Instance, gb: int) -> bool:
    """Whether a disk of that size can be ordered, or the built-in one is as large."""
    if candidate.disk_gb is None:
        return True
    return candidate.disk_gb >= gb


def _require_disk(chosen: Instance, gb: int) -> None:
    """Raise SpecError when the built-in disk is smaller than what the job needs: the service cannot enlarge it."""
    if _has_disk(chosen, gb):
        return
    fix = "lower volume_gb"
    larger = with_disk(chosen, gb)
    if larger is not None:
        fix = f"use {larger.name} ({larger.disk_gb} GB), or {fix}"
    problem = Problem(
        where="compute.volume_gb",
        what=f"{gb} GB is more than the built-in disk of {chosen.name}: {chosen.disk_gb} GB, which is fixed",
        fix=fix,
    )
    raise _refusal("The disk of this instance type is too small", problem)


def _is_enough(candidate: Instance, spec: JobSpec, memory: MemoryEstimate | None) -> bool:
    """Whether the GPU and the main memory of an instance are sure to suffice."""
    gpu = candidate.gpu
    if spec.recipe.needs_bf16 and not gpu.bf16:
        return False
    if memory is None:
        return gpu.usable_gib >= _UNKNOWN_MODEL_GIB
    if memory.fit(gpu) is not Fit.FITS:
        return False
    return memory.fits_main(candidate)


def _too_big(spec: JobSpec, memory: MemoryEstimate | None, disk_gb: int) -> SpecError:
    need = "an unknown amount of memory"
    if memory is not None:
        need = memory.describe()
    advice = spec.recipe.memory_advice
    if disk_gb > spec.compute.volume_gb:
        advice = f"{advice}, lower keep_checkpoints"
    problem = Problem(
        where="compute.instance_type",
        what=f"no instance type has a GPU that is sure to hold {need}, and {disk_gb} GB of disk space",
        fix=f"{advice}, or name an instance_type yourself",
    )
    return _refusal("No instance type satisfies this job", problem)


def _runtime(
    spec: JobSpec,
    chosen: Instance,
    region: str,
    expected: Duration | None,
    upload: int,
) -> int:
    """Return the time limit in seconds: the requested one, or what suits the job; less if the budget pays for less."""
    compute = spec.compute
    seconds = default_limit(spec.recipe, expected)
    if compute.max_wait_minutes is not None:
        seconds = min(seconds, compute.max_wait_minutes * 60)
    if compute.max_runtime_minutes is not None:
        seconds = compute.max_runtime_minutes * 60
    budget = spec.budget.max_usd
    where = "compute"
    try:
        if budget is not None:
            where = BUDGET_FIELD
            affordable = runtime_for(budget, chosen, compute, region, upload)
            seconds = min(seconds, affordable)
        require_checkpoint(spec.recipe, compute, seconds)
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


def _warnings(
    spec: JobSpec,
    chosen: Instance,
    memory: MemoryEstimate | None,
    expected: Duration | None,
    limit: int,
) -> list[Problem]:
    warnings = [
        _limit_warning(expected, limit),
        _price_warning(chosen),
        _memory_warning(spec, chosen, memory),
        _main_memory_warning(chosen, memory),
        _disk_warning(spec, chosen),
        _precision_warning(spec, chosen),
        _batch_warning(spec, chosen),
    ]
    return [warning for warning in warnings if warning is not None]


def _limit_warning(expected: Duration | None, limit: int) -> Problem | None:
    """Warn when the limit, in seconds, may stop the job before its end."""
    if expected is None or expected.high_seconds <= limit:
        return None
    verdict = "may stop"
    if expected.low_seconds > limit:
        verdict = "is expected to stop"
    minutes = counted(limit // 60, "minute")
    return Problem(
        where="the time limit",
        what=f"of {minutes} {verdict} the job before its end: it is expected to take {expected.describe()}",
        fix="allow more with --max-usd or compute.max_runtime_minutes, or lower steps; a stopped job resumes",
    )


def _price_warning(chosen: Instance) -> Problem | None:
    if chosen.usd_per_hour is not None:
        return None
    return Problem(
        where="compute.instance_type",
        what=f"no price of {chosen.name} is known here, so this plan cannot say what the job costs at most",
        fix="look it up at https://aws.amazon.com/sagemaker/pricing before you submit",
    )


def _memory_warning(spec: JobSpec, chosen: Instance, memory: MemoryEstimate | None) -> Problem | None:
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
        fix=f"{spec.recipe.memory_advice}, or leave instance_type out",
    )


def _main_memory_warning(chosen: Instance, memory: MemoryEstimate | None) -> Problem | None:
    if memory is None or memory.fits_main(chosen):
        return None
    need = f"{memory.main_gib:.1f} GiB"
    if chosen.gpus > 1:
        need = f"{need} for each of its {chosen.gpus} GPUs"
    return Problem(
        where="compute.instance_type",
        what=f"{chosen.name} may be too small: it has {chosen.memory_gib} GiB of main memory, and loading takes {need}",
        fix="name a larger size of the type, or leave instance_type out",
    )


def _disk_warning(spec: JobSpec, chosen: Instance) -> Problem | None:
    gb = spec.compute.volume_gb
    if _has_disk(chosen, gb):
        return None
    fix = "lower keep_checkpoints, or leave instance_type out"
    larger = with_disk(chosen, gb)
    if larger is not None:
        fix = f"use {larger.name} ({larger.disk_gb} GB), or lower keep_checkpoints"
    return Problem(
        where="compute.instance_type",
        what=f"the built-in disk of {chosen.name}, {chosen.disk_gb} GB, may be too small: the job keeps up to {gb} GB",
        fix=fix,
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
    of_each = recipe.batch_size * recipe.gradient_accumulation
    samples = gpus * of_each
    fix = "choose learning_rate for that many samples"
    if of_each > 1:
        fix = f"{fix}, or lower batch_size or gradient_accumulation"
    factors = f"{gpus} GPUs x batch_size {recipe.batch_size} x gradient_accumulation {recipe.gradient_accumulation}"
    return Problem(
        where="batch_size",
        what=f"is per GPU: one optimizer step sees {samples} samples ({factors}); learning_rate is not scaled",
        fix=fix,
    )
