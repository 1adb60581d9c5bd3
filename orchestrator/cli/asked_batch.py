"""A batch as it was asked for on the command line, checked before anything is stored or started."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import DrawingSettings
from orchestrator.cli.batch_options import chosen_settings
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
    BatchAdapter,
    Usual,
    batch_of,
    check_texts,
    prepare_batch,
    unusable_adapters,
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
from orchestrator.specs.batch_line import asked_lines
from orchestrator.specs.compute import Budget, Compute
from orchestrator.specs.job import JobSpec, job_name_of
from orchestrator.storage.hash_cache import HashCache
from orchestrator.targets.names import TargetName
from orchestrator.targets.opening import open_stores

_UNDONE = "Nothing was started"
_SUFFIX = "-images"
_FEW_PROCESSES = 4
_NAMED = 5
"""Adapters that a plan names."""
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

    spec: JobSpec
    prepared: PreparedInputs
    samples: Sequence[Sample]


def ask_batch(
    file: Path,
    settings: Settings,
    given: Mapping[str, Any],
    scratch: Path,
) -> AskedBatch:
    """Check a batch: `given` are its options, and what its job reads is written to `scratch`.

    Raises SpecError with everything that is wrong, JobError for an adapter that cannot be used.
    """
    path = typed_path(file)
    if given["target"] == TargetName.LOCAL:
        _require_processes(given["instances"])
    chosen = chosen_settings(given)
    lines = read_batch(path)
    asked, problems = asked_lines(lines, given["adapters"], given["embeddings"])
    found = _Adapters(settings, scratch)
    for _, uses in asked:
        for use in uses:
            found.look_for(use.name)
    problems += unusable_adapters(asked, found.faults)
    problems += unusable_adapters(asked, found.of_other_bases())
    base = found.base(given["base_model"])
    usual = Usual(_drawn_by(base.name), chosen)
    identified = _identified(base, settings)
    batch = batch_of(asked, found.usable, usual, identified)
    problems += batch.problems
    if problems:
        raise refused(path, problems)
    spec = _spec(path, base, batch.samples, given)
    adapters = list(found.usable.values())
    if adapters:
        require_fit(spec, adapters[0].manifest, settings)
    too_long, warnings = check_texts(spec, batch)
    if too_long:
        raise refused(path, too_long)
    for warning in warnings:
        say(f"Warning: {warning.render()}", err=True)
    inputs = scratch / "inputs"
    prepared = prepare_batch(batch, adapters, asked, inputs)
    return AskedBatch(spec, prepared, batch.samples)


def _undrawable(problems: Sequence[Problem]) -> SpecError:
    """Return the error for options that do not fit."""
    return SpecError(
        f"The batch cannot be drawn as asked. {_UNDONE}.",
        problems=problems,
        next_step=command("generate", "--help"),
    )


def _require_processes(count: int) -> None:
    """Raise SpecError for more processes on this machine than can be of any use: each loads the base model."""
    most = max(_FEW_PROCESSES, os.cpu_count() or 1)
    if count > most:
        message = f"--instances {count} would start {count} processes on this machine, each with the base model."
        raise SpecError(f"{message} {_UNDONE}.", next_step=f"start {most} at most, or add --target sagemaker")


class _Adapters:
    """The adapters that lines name: those that can be used, and why others cannot."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        stores = open_stores(settings, print_warning)
        self.registry = Registry(stores)
        self.scratch = scratch
        self.chosen: dict[str, ChosenAdapter] = {}
        self.usable: dict[str, BatchAdapter] = {}
        self.faults: dict[str, str] = {}

    def look_for(self, name: str) -> None:
        """Find an adapter by name, or by the path of its folder, unless it was looked for before."""
        if name in self.usable or name in self.faults:
            return
        try:
            chosen = choose_adapter(name, self.registry, self.scratch)
            require_unchanged(chosen)
        except (JobError, SpecError) as error:
            self.faults[name] = error.message.rstrip(".")
            return
        self.chosen[name] = chosen
        self.usable[name] = BatchAdapter.of(name, chosen.folder, chosen.manifest)

    def of_other_bases(self) -> dict[str, str]:
        """Return why adapters cannot be used that were trained on another base model than the first."""
        faults: dict[str, str] = {}
        first: ChosenAdapter | None = None
        for name, chosen in self.chosen.items():
            if first is None:
                first = chosen
            own = chosen.manifest.base_model
            other = first.manifest.base_model
            if own.fingerprint == other.fingerprint:
                continue
            faults[name] = (
                f'"{name}" was trained on "{own.id}", and "{first.name}" on "{other.id}", which has other weights; '
                "a batch draws with one base model"
            )
        return faults

    def base(self, named: str | None) -> ChosenBase:
        """Return the base model of all images: the one that was named, or the adapters', or else the built-in one."""
        for chosen in self.chosen.values():
            return base_of(chosen, named, _UNDONE)
        name = named or BUILTIN
        problems = base_model_problems(name, None)
        if problems:
            raise _undrawable(problems)
        source = parse_base_model(name, None)
        if isinstance(source, Hub):
            return ChosenBase(name, None)
        return ChosenBase(name, source.folder)


def _drawn_by(base_model: str) -> DrawingSettings:
    """Return how images of a base model are drawn without an adapter."""
    fields = {"base_model": base_model, **native_settings(base_model)}
    family = known_family(base_model)
    defaults = BatchDrawing.defaults(fields, family)
    usual = BatchDrawing.model_validate({**defaults, **fields})
    return DrawingSettings(
        steps=usual.inference_steps,
        guidance=usual.guidance_scale,
        size=usual.resolution,
        seed=usual.seed,
    )


def _identified(base: ChosenBase, settings: Settings) -> str:
    """Return what says which base model is meant: its weights, or its name and commit on the Hub."""
    if base.folder is None:
        return f"{base.name}@{base.revision}"
    hashes = HashCache(settings.cache / "hashes")
    files = weight_files(base.folder)
    return files_sha256(base.folder, files, hashes.digest)


def _spec(
    file: Path,
    base: ChosenBase,
    samples: Sequence[Sample],
    given: Mapping[str, Any],
) -> JobSpec:
    """Return the checked job; raises SpecError with all that is wrong with its settings."""
    compute = {"instance_count": given["instances"]}
    for option in ("instance_type", "spot"):
        if given[option]:
            compute[option] = given[option]
    budget = {}
    if given["max_usd"] is not None:
        budget["max_usd"] = given["max_usd"]
    try:
        return JobSpec(
            recipe=_settings(base, samples),
            inputs={},
            name=job_name_of(file.stem, _SUFFIX, "prompts"),
            compute=Compute.model_validate(compute),
            budget=Budget.model_validate(budget),
        )
    except ValidationError as error:
        problems = []
        for problem in problems_of(error):
            option = _OPTIONS.get(problem.where, problem.where)
            at_option = problem.model_copy(update={"where": option})
            problems.append(at_option)
        raise _undrawable(problems) from error


def _settings(base: ChosenBase, samples: Sequence[Sample]) -> BatchDrawing:
    """Return the settings of the job: as many steps at the largest size as take the work of all images."""
    largest = 0
    guidance = 0.0
    work = 0
    for sample in samples:
        largest = max(largest, sample.pixels)
        guidance = max(guidance, sample.guidance)
        work += sample.steps * sample.pixels
    steps = work / (largest * len(samples))
    side = 8 * math.ceil(math.sqrt(largest) / 8)  # of a square of as many pixels
    return BatchDrawing(
        base_model=base.name,
        base_revision=base.revision,
        images=len(samples),
        resolution=side,
        inference_steps=math.ceil(steps),
        guidance_scale=guidance,
    )


def batch_facts(asked: AskedBatch) -> list[tuple[str, str]]:
    """Return what a batch is going to draw."""
    prompts = set()
    shapes = set()
    steps = set()
    names = set()
    for sample in asked.samples:
        prompts.add(sample.prompt)
        shapes.add(f"{sample.width}x{sample.height}")
        steps.add(sample.steps)
        for adapter in sample.adapters:
            names.add(adapter.name)
    images = counted(len(asked.samples), "image")
    facts = [
        ("drawn", f"{images} of {counted(len(prompts), 'prompt')}"),
        ("images", f"{_listed(sorted(shapes))} pixels, {_span(steps)} steps"),
        ("adapters", _listed(sorted(names))),
        ("base model", asked.spec.recipe.base_model),
    ]
    instances = asked.spec.compute.instance_count
    if instances > 1:
        facts.append(("instances", str(instances)))
    return facts


def _span(values: Collection[int]) -> str:
    """Return the lowest and the highest of some numbers."""
    lowest = min(values)
    highest = max(values)
    if lowest == highest:
        return str(lowest)
    return f"{lowest} to {highest}"


def _listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    if not names:
        return "none: the base model alone"
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    if more > 0:
        shown = f"{shown} and {more} more"
    return shown
