"""Print what a submit would start on this machine: images, prompts, settings, duration, disk and adapter."""

from pathlib import Path
from typing import Any

from orchestrator.cli.output import print_facts, say, setting_text
from orchestrator.cli.plans import NOT_STARTED, NOT_TO_START, reward_facts, scorer_facts
from orchestrator.contract.plurals import counted
from orchestrator.contract.recipe import Recipe
from orchestrator.errors import MachineError
from orchestrator.jobs.measurements import expected_here, measured_runs
from orchestrator.models.size import of_source
from orchestrator.planning.disk import DiskUse, disk_use
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.plan import Plan
from orchestrator.settings import free_bytes
from orchestrator.specs.base_model import Builtin, Folder, known_family, native_settings
from orchestrator.specs.job import JobSpec
from orchestrator.storage import folder_of
from orchestrator.targets.local.local_jobs import LocalJobs
from orchestrator.targets.local.queue import Turn
from orchestrator.terminal import size_text

Facts = list[tuple[str, str]]
"""Names and values, one pair a line."""


def print_local_plan(
    plan: Plan,
    spec: JobSpec,
    prepared: PreparedInputs,
    target: LocalJobs,
    *,
    is_taken: bool,
) -> None:
    """Print a plan for this machine, for people; with `is_taken`, of a job that its name keeps from being started."""
    recipe = spec.recipe
    name = plan.request["TrainingJobName"]
    output = plan.request["OutputDataConfig"]
    adapter = folder_of(output["S3OutputPath"])
    size = of_source(spec.base_model)
    disk = disk_use(recipe, size, _input_bytes(plan))
    facts = [
        ("job", str(name)),
        ("recipe", f"{recipe.recipe_name()}: {recipe.summary}"),
        *_image_facts(prepared),
        *_prompt_facts(recipe),
        ("settings", _settings(recipe)),
        ("base model", _base_model(spec)),
        *reward_facts(plan),
        *scorer_facts(plan),
        ("expected", expected_text(spec, target)),
        ("disk", _disk(disk, target.settings.home)),
        ("adapter", str(adapter)),
    ]
    under_way = target.under_way()
    if under_way:
        others = ", ".join(under_way)
        them = "it" if len(under_way) == 1 else "them"
        facts.append(("under way", f"{others}: add --queue to start after {them}, or --together to start now"))
    print_facts(facts)
    has_to_wait = bool(under_way) and target.turn is Turn.ALONE
    ending = NOT_TO_START if is_taken or has_to_wait else NOT_STARTED
    say(ending, err=True)


def expected_text(spec: JobSpec, target: LocalJobs) -> str:
    """Return how long a job is expected to run here, or that this is not known."""
    runs = measured_runs(target)
    expected = expected_here(spec, runs)
    if expected is None and runs:
        return "unknown: no job with this model has run on this machine, and the others do not tell"
    if expected is None:
        return "unknown: no job that tells the speed of this machine has run yet"
    return expected.describe()


def require_disk(plan: Plan, spec: JobSpec, target: LocalJobs) -> None:
    """Raise MachineError when a new job cannot fit the disk; one that is known may hold its files already."""
    name = plan.request["TrainingJobName"]
    size = of_source(spec.base_model)
    use = disk_use(spec.recipe, size, _input_bytes(plan))
    if use is None or target.has(name):
        return
    home = target.settings.home
    free = free_bytes(home)
    if use.total <= free:
        return
    message = f"The job takes {_use_text(use)} of disk, and {size_text(free)} are free in {home}. Nothing was started."
    raise MachineError(
        message,
        next_step="free some space, set ORCHESTRATOR_HOME to a folder on another disk, or train less (tuner, rank)",
    )


def _input_bytes(plan: Plan) -> int:
    return sum(tree.bytes for tree in plan.trees)


def _image_facts(prepared: PreparedInputs) -> Facts:
    dataset = prepared.dataset
    if dataset is None:
        return []
    captions = 0
    for image in dataset.images:
        if image.caption is not None:
            captions += 1
    images = len(dataset.images)
    warnings = len(dataset.warnings)
    text = f"{images} in {dataset.folder}, {captions} with a caption of their own"
    if warnings:
        text = f"{text}, {counted(warnings, 'warning')}"
    return [("images", text)]


def _prompt_facts(recipe: Recipe) -> Facts:
    """Return what the recipe makes of the prompt: each text that a person has to give or that is derived from one."""
    facts = []
    for name, field in type(recipe).model_fields.items():
        if field.is_required() or name.endswith("_prompt"):
            label = name.replace("_", " ")
            value = getattr(recipe, name)
            facts.append((label, f'"{value}"'))
    return facts


def _settings(recipe: Recipe) -> str:
    """Return the settings that differ from the defaults for this base model and tuner."""
    usual = _defaults(recipe)
    changed = []
    for name in type(recipe).model_fields:
        has_default = name in usual
        if not has_default or name.startswith("base_") or name.endswith("_prompt"):
            continue
        value = getattr(recipe, name)
        if value != usual[name]:
            changed.append(f"{name}={setting_text(value)}")
    if not changed:
        return "the defaults"
    return ", ".join(changed)


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """Return the defaults of the fields that have one."""
    usual = {}
    for name, field in type(recipe).model_fields.items():
        if not field.is_required():
            usual[name] = field.get_default(call_default_factory=True)
    settings = recipe.model_dump()
    family = known_family(recipe.base_model)
    usual |= recipe.all_defaults(settings, family)
    usual |= native_settings(recipe.base_model)
    return usual


def _base_model(spec: JobSpec) -> str:
    match spec.base_model:
        case Builtin():
            return "the built-in one"
        case Folder(folder=folder):
            return str(folder)
        case hub:
            return f"{hub.id} of the Hugging Face Hub"


def _disk(use: DiskUse | None, home: Path) -> str:
    free = free_bytes(home)
    there = f"{size_text(free)} are free in {home}"
    if use is None:
        return f"unknown, as the size of the model is; {there}"
    text = f"{_use_text(use)}; {there}"
    if use.total > free:
        return f"{text}, WHICH IS TOO LITTLE"
    return text


def _use_text(use: DiskUse) -> str:
    total = size_text(use.total)
    checkpoints = size_text(use.checkpoints)
    adapter = size_text(use.adapter)
    images = size_text(use.images)
    return f"up to {total} (checkpoints {checkpoints}, adapter {adapter}, images {images})"
