"""A batch as it was asked for on the command line, checked before anything is stored or started."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import DrawingSettings
from orchestrator.cli.chosen_adapter import ChosenAdapter, ChosenBase, base_of, choose_adapter, require_unchanged
from orchestrator.cli.output import print_warning, say
from orchestrator.contract.batch import BatchDrawing
from orchestrator.contract.batch_result import Sample
from orchestrator.contract.command_line import command
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, problems_of
from orchestrator.contract.recipe import BUILTIN
from orchestrator.errors import JobError, SpecError
from orchestrator.planning.batch import (
    AskedLine,
    BatchAdapter,
    Usual,
    asked_lines,
    batch_of,
    check_chosen,
    check_texts,
    prepare_batch,
    unknown_adapters,
)
from orchestrator.planning.evaluation import require_fit
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.settings import Settings, typed_path
from orchestrator.specs.base_model import (
    Hub,
    base_model_problems,
    known_family,
    native_settings,
    parse_base_model,
)
from orchestrator.specs.batch_file import read_batch, refused
from orchestrator.specs.job import JobSpec, job_name_of
from orchestrator.storage.hash_cache import HashCache
from orchestrator.targets.names import TargetName
from orchestrator.targets.opening import open_targets

_UNDONE = "Nothing was started"
_SUFFIX = "-images"
_FEW_PROCESSES = 4
_CHOICES = ("steps", "guidance", "size", "scheduler", "seed", "n", "negative")
"""Options that are settings of lines which do not say them."""
_OPTIONS = {
    "budget.max_usd": "--max-usd",
    "max_usd": "--max-usd",
    "compute.instance_type": "--instance-type",
    "instance_type": "--instance-type",
    "compute.instance_count": "--instances",
    "instance_count": "--instances",
}
"""Fields of the job, and the options that set them."""


class AskedBatch(NamedTuple):
    """A checked batch."""

    settings: BatchDrawing
    spec: JobSpec
    prepared: PreparedInputs
    samples: Sequence[Sample]


def ask_batch(file: Path, settings: Settings, given: Mapping[str, Any], scratch: Path) -> AskedBatch:
    """Check a batch: `given` are its options, and what its job reads is written to `scratch`.

    Raises SpecError with everything that is wrong, JobError for an adapter that cannot be used.
    """
    path = typed_path(file)
    if given["target"] == TargetName.LOCAL:
        _require_processes(given["instances"])
    chosen = {name: given[name] for name in _CHOICES if given.get(name) is not None}
    problems = check_chosen(chosen)
    if problems:
        raise SpecError(f"The batch cannot be drawn as asked. {_UNDONE}.", problems=problems, next_step=_help())
    asked, problems = asked_lines(read_batch(path), given["adapter"])
    registry = Registry([target.store for target in open_targets(settings, print_warning)])
    found = _Adapters(registry, scratch)
    names = [use.name for line in asked for use in line.uses]
    adapters = found.of(dict.fromkeys(names))
    problems += unknown_adapters(asked, found.faults)
    base = _base_of(found.chosen, given["base_model"])
    problems += _of_other_bases(asked, found)
    usual = Usual(_drawn_by(base.name), chosen)
    batch = batch_of(asked, adapters, usual, _identified(base, settings))
    problems += batch.problems
    if problems:
        raise refused(path, problems)
    spec = _spec(path, base, batch.samples, given)
    if adapters:
        require_fit(spec, next(iter(adapters.values())).manifest, settings)
    too_long, warnings = check_texts(spec, batch)
    if too_long:
        raise refused(path, too_long)
    for warning in warnings:
        say(f"Warning: {warning.render()}", err=True)
    prepared = prepare_batch(batch, list(adapters.values()), asked, scratch / "inputs")
    recipe = spec.recipe
    assert isinstance(recipe, BatchDrawing)  # noqa: S101 - of `_spec`
    return AskedBatch(recipe, spec, prepared, batch.samples)


def _require_processes(count: int) -> None:
    """Raise SpecError for more processes on this machine than can be of any use: each loads the base model."""
    most = max(_FEW_PROCESSES, os.cpu_count() or 1)
    if count > most:
        message = f"--instances {count} would start {count} processes on this machine, each with the base model."
        raise SpecError(f"{message} {_UNDONE}.", next_step=f"start {most} at most, or add --target sagemaker")


class _Adapters:
    """The adapters that lines name: those that can be used, and why others cannot."""

    def __init__(self, registry: Registry, scratch: Path) -> None:
        self.registry = registry
        self.scratch = scratch
        self.chosen: dict[str, ChosenAdapter] = {}
        self.faults: dict[str, str] = {}

    def of(self, names: Mapping[str, None]) -> dict[str, BatchAdapter]:
        """Find adapters by name, or by the paths of their folders; what cannot be used is in `faults`."""
        adapters = {}
        for name in names:
            try:
                chosen = choose_adapter(name, self.registry, self.scratch)
                require_unchanged(chosen)
            except (JobError, SpecError) as error:
                self.faults[name] = error.message.rstrip(".")
                continue
            self.chosen[name] = chosen
            adapters[name] = BatchAdapter(name, chosen.folder, chosen.manifest)
        return adapters


def _base_of(chosen: Mapping[str, ChosenAdapter], named: str | None) -> ChosenBase:
    """Return the base model of all images: the one that was named, or that of the adapters, or the built-in one."""
    for adapter in chosen.values():
        return base_of(adapter, named, _UNDONE)
    name = named or BUILTIN
    problems = base_model_problems(name, None)
    if problems:
        raise SpecError(f"The base model cannot be used. {_UNDONE}.", problems=problems, next_step=_help())
    source = parse_base_model(name, None)
    if isinstance(source, Hub):
        return ChosenBase(name, None)
    return ChosenBase(name, source.folder)


def _of_other_bases(asked: Sequence[AskedLine], found: _Adapters) -> list[Problem]:
    """Return the problems of adapters that were trained on another base model than the first."""
    faults: dict[str, str] = {}
    first: ChosenAdapter | None = None
    for name, chosen in found.chosen.items():
        first = first or chosen
        own = chosen.manifest.base_model
        other = first.manifest.base_model
        if own.fingerprint != other.fingerprint:
            faults[name] = (
                f'"{name}" was trained on "{own.id}", and "{first.name}" on "{other.id}", which has other weights; '
                "a batch draws with one base model"
            )
    return unknown_adapters(asked, faults)


def _drawn_by(base_model: str) -> DrawingSettings:
    """Return how images of a base model are drawn without an adapter."""
    fields = {"base_model": base_model, **native_settings(base_model)}
    family = known_family(base_model)
    usual = BatchDrawing(**{**BatchDrawing.defaults(fields, family), **fields})
    return DrawingSettings(usual.inference_steps, usual.guidance_scale, usual.resolution, usual.seed)


def _identified(base: ChosenBase, settings: Settings) -> str:
    """Return what says which base model is meant: its weights, or its name and commit on the Hub."""
    if base.folder is None:
        return f"{base.name}@{base.revision}"
    hashes = HashCache(settings.cache / "hashes")
    return files_sha256(base.folder, weight_files(base.folder), hashes.digest)


def _spec(
    file: Path,
    base: ChosenBase,
    samples: Sequence[Sample],
    given: Mapping[str, Any],
) -> JobSpec:
    """Return the checked job; raises SpecError with all that is wrong with its settings."""
    compute = {option: given[option] for option in ("instance_type", "spot") if given[option]}
    job: dict[str, Any] = {"name": job_name_of(file.stem, _SUFFIX, "prompts"), "inputs": {}}
    job["compute"] = {**compute, "instance_count": given["instances"]}
    job["budget"] = {option: given[option] for option in ("max_usd",) if given[option] is not None}
    side = max(sample.size for sample in samples)
    # As many steps at the largest size as take the work of all images.
    work = sum(sample.steps * sample.size**2 for sample in samples)
    try:
        recipe = BatchDrawing(
            base_model=base.name,
            base_revision=base.revision,
            images=len(samples),
            resolution=side,
            inference_steps=math.ceil(work / (side**2 * len(samples))),
            guidance_scale=max(sample.guidance for sample in samples),
        )
        return JobSpec(recipe=recipe, **job)
    except ValidationError as error:
        problems = []
        for problem in problems_of(error):
            option = _OPTIONS.get(problem.where, problem.where)
            problems.append(problem.model_copy(update={"where": option}))
        message = f"The batch cannot be drawn as asked. {_UNDONE}."
        raise SpecError(message, problems=problems, next_step=_help()) from error


def batch_facts(asked: AskedBatch) -> list[tuple[str, str]]:
    """Return what a batch is going to draw."""
    samples = asked.samples
    sizes = sorted({sample.size for sample in samples})
    steps = sorted({sample.steps for sample in samples})
    used = sorted({adapter.name for sample in samples for adapter in sample.adapters})
    prompts = len({sample.prompt for sample in samples})
    processes = asked.spec.compute.instance_count
    facts = [
        ("drawn", f"{counted(len(samples), 'image')} of {counted(prompts, 'prompt')}"),
        ("images", f"{_span(sizes)} pixels, {_span(steps)} steps"),
        ("adapters", _listed(used) or "none: the base model alone"),
        ("base model", asked.settings.base_model),
    ]
    if processes > 1:
        facts.append(("instances", str(processes)))
    return facts


def _span(values: Sequence[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    return f"{values[0]} to {values[-1]}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    more = len(names) - 5
    return f"{shown} and {more} more" if more > 0 else shown


def _help() -> str:
    return command("draw-batch", "--help")
