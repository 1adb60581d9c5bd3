"""An evaluation as it was asked for on the command line, checked before anything is stored or started."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import drawing_settings
from orchestrator.cli.chosen_adapter import ChosenAdapter, base_of, choose_adapter, require_unchanged
from orchestrator.cli.output import print_warning, say
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING
from orchestrator.contract.command_line import command
from orchestrator.contract.evaluation import KINDS, MOST_PROMPTS, REFERENCE_CHANNEL, Evaluation, EvaluationPrompts
from orchestrator.contract.generation import MAX_SCALE
from orchestrator.contract.problem import problems_of
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import BUILTIN, Recipe, recipe_class
from orchestrator.contract.recipes.controlnet import ControlNet
from orchestrator.contract.samples import INDEX_FILE, SAMPLES_FOLDER, parse_index
from orchestrator.errors import JobError, SpecError
from orchestrator.planning.evaluation import (
    check_prompts,
    evaluation_settings,
    prepare_evaluation,
    require_dino,
    require_fit,
)
from orchestrator.planning.held_out import REFERENCE_OPTION, Asked, HeldOut, prepare_held_out, require_computable
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.settings import Settings, typed_path
from orchestrator.specs.evaluation_prompts import read_prompts, unrelated_prompts, usual_prompts
from orchestrator.specs.job import JobSpec, job_name_of
from orchestrator.targets.opening import open_stores
from orchestrator.terminal import printable

_UNDONE = "Nothing was started"
_CHOICES = ("seeds", "weight")
"""Options that are fields of the settings."""
_OPTIONS = {
    "seeds": "--seeds",
    "weight": "--weight",
    "scorer": "--scorer",
    "budget.max_usd": "--max-usd",
    "max_usd": "--max-usd",
    "compute.instance_type": "--instance-type",
    "instance_type": "--instance-type",
}
"""Fields of the job, and the options that set them."""


class AskedEvaluation(NamedTuple):
    """A checked evaluation."""

    settings: Evaluation
    spec: JobSpec
    prepared: PreparedInputs
    prompts: EvaluationPrompts


def ask(adapter: str, settings: Settings, given: dict[str, Any], scratch: Path) -> AskedEvaluation:
    """Check an evaluation: `given` are its options, and what its job reads is written to `scratch`.

    Raises JobError for an adapter that cannot be used, SpecError and DatasetError for what was typed.
    """
    registry = Registry(open_stores(settings, print_warning))
    chosen = choose_adapter(adapter, registry, scratch)
    require_unchanged(chosen)
    _require_kind(chosen)
    _require_weight(chosen, given["weight"])
    base = base_of(chosen, given["base_model"], _UNDONE)
    folder = _folder(given["reference"], REFERENCE_OPTION)
    reference: Path | HeldOut | None = folder
    recipe = _recipe(chosen)
    choices = {}
    for name in _CHOICES:
        if given[name] is not None:
            choices[name] = given[name]
    if isinstance(recipe, ControlNet):
        reference = _held_out(chosen, recipe, given["prompts"], folder, scratch / REFERENCE_CHANNEL)
        prompts = reference.prompts
        choices |= {"conditions": recipe.conditions, "given_map": recipe.given_map}
    else:
        prompts = _prompts(chosen, recipe, given["prompts"])
    dino = _folder(given["dino"], "--dino")
    if dino is not None:
        require_dino(dino)
    fields = evaluation_settings(chosen.name, chosen.manifest, base.name, base.revision, choices)
    spec, evaluation = _spec(chosen.name, prompts, fields, given)
    require_fit(spec, chosen.manifest, settings)
    for warning in check_prompts(spec, prompts, chosen.manifest):
        say(f"Warning: {warning.render()}", err=True)
    prepared = prepare_evaluation(
        evaluation,
        chosen.folder,
        chosen.manifest,
        prompts,
        reference=reference,
        dino=dino,
        staging=scratch / "inputs",
    )
    return AskedEvaluation(evaluation, spec, prepared, prompts)


def _require_kind(chosen: ChosenAdapter) -> None:
    """Raise JobError for an adapter that does not draw from a prompt alone, or of a newer version."""
    kind = chosen.manifest.kind
    if kind in KINDS:
        return
    known = ", ".join(sorted(KINDS))
    message = f'"{chosen.name}" is an adapter of the kind "{kind}"; an evaluation can measure: {known}. {_UNDONE}.'
    show = command("adapters", "show", chosen.name)
    raise JobError(message, next_step=show)


def _require_weight(chosen: ChosenAdapter, weight: float | None) -> None:
    """Raise SpecError for a strength that the adapter cannot have: a word is known or not, a rotation whole.

    That of a ControlNet is the scale of what it adds, which has limits of its own.
    """
    if weight is None:
        return
    manifest = chosen.manifest
    is_within = 0 <= weight <= MAX_SCALE
    if manifest.kind == CONTROLNET and not is_within:
        message = f'"{chosen.name}" is a ControlNet, whose strength is from 0 to {MAX_SCALE}. {_UNDONE}.'
        raise SpecError(message, next_step="give it such a --weight, or leave it out")
    is_rotation = manifest.config.get("tuner") == "oft"
    is_whole = manifest.kind == EMBEDDING or is_rotation
    if is_whole and weight != 1:
        message = f'"{chosen.name}" has no strength other than 1. {_UNDONE}.'
        raise SpecError(message, next_step="leave --weight out")


def _spec(
    name: str,
    prompts: EvaluationPrompts,
    fields: dict[str, Any],
    given: dict[str, Any],
) -> tuple[JobSpec, Evaluation]:
    """Return the checked job; raises SpecError with all that is wrong with its settings."""
    compute = {}
    for option in ("instance_type", "spot"):
        if given[option]:
            compute[option] = given[option]
    budget = {}
    if given["max_usd"] is not None:
        budget["max_usd"] = given["max_usd"]
    job: dict[str, Any] = {
        "name": job_name_of(name, "-evaluation", "adapter"),
        "inputs": {},
        "scorer": given["scorer"],
        "compute": compute,
        "budget": budget,
    }
    try:
        evaluation = Evaluation.model_validate(fields)
        images = prompts.images(evaluation.seeds, evaluation.conditions)
        evaluation = evaluation.model_copy(update={"images": images})
        return JobSpec(recipe=evaluation, **job), evaluation
    except ValidationError as error:
        problems = []
        for problem in problems_of(error):
            option = _OPTIONS.get(problem.where, problem.where)
            by_option = problem.model_copy(update={"where": option})
            problems.append(by_option)
        message = f"The evaluation cannot run as asked. {_UNDONE}."
        usage = command("evaluate", "--help")
        raise SpecError(message, problems=problems, next_step=usage) from error


def _held_out(
    chosen: ChosenAdapter,
    recipe: ControlNet,
    file: Path | None,
    reference: Path | None,
    destination: Path,
) -> HeldOut:
    """Return the pictures that a ControlNet draws anew, with their prompts."""
    prompts: list[EvaluationPrompt] = []
    if file is not None:
        path = typed_path(file)
        prompts = read_prompts(path, recipe)
    asked = Asked(chosen.name, recipe, chosen.manifest, reference, prompts)
    size = drawing_settings(chosen.manifest).size
    return prepare_held_out(asked, size, destination)


def _prompts(chosen: ChosenAdapter, recipe: Recipe, file: Path | None) -> EvaluationPrompts:
    """Return what is drawn: somebody's prompts, or those of the adapter's recipe, or those it was judged by."""
    asked = []
    if file is not None:
        asked = read_prompts(typed_path(file), recipe)
    if not asked:
        asked = usual_prompts(recipe)
    are_captions = not asked
    if are_captions:
        asked = _captions(chosen, recipe)
    builtin = chosen.manifest.base_model.id == BUILTIN
    others = unrelated_prompts(asked, builtin=builtin)
    return EvaluationPrompts(prompts=tuple(asked), unrelated=tuple(others), are_captions=are_captions)


def _recipe(chosen: ChosenAdapter) -> Recipe:
    """Return the recipe of an adapter with its settings; raises JobError for one of another version."""
    manifest = chosen.manifest
    if manifest.kind == CONTROLNET:
        require_computable(chosen.name, manifest)
    try:
        known_recipe = recipe_class(manifest.recipe)
        recipe = known_recipe.model_validate(manifest.config)
    except ValueError as error:
        raise _unreadable(chosen) from error
    is_controlnet = manifest.kind == CONTROLNET
    if isinstance(recipe, ControlNet) != is_controlnet:
        raise _unreadable(chosen)
    return recipe


def _unreadable(chosen: ChosenAdapter) -> JobError:
    """Return the error for an adapter of a recipe, or of settings, that are not known here."""
    recipe = chosen.manifest.recipe
    message = f'This version cannot read the settings of "{chosen.name}" (recipe {recipe}). {_UNDONE}.'
    return JobError(message, next_step="upgrade orchestrator, or train the adapter again")


def _captions(chosen: ChosenAdapter, recipe: Recipe) -> list[EvaluationPrompt]:
    """Return the prompts of the images that lie with an adapter; raises SpecError without any.

    They are captions of its training pictures: an adapter does better on them than on others.
    """
    texts = []
    file = chosen.folder / SAMPLES_FOLDER / INDEX_FILE
    try:
        index = parse_index(file.read_bytes())
        for image in index.images:
            if image.source == "after" and image.text:
                texts.append(image.text)
    except (OSError, ValueError):  # an adapter without images
        pass
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        message = f'Nothing says what to draw with "{chosen.name}". {_UNDONE}.'
        raise SpecError(message, next_step="write prompts into a file, one a line: --prompts FILE")
    say("Warning: The prompts are captions of its training pictures; for others: --prompts FILE", err=True)
    return [recipe.judged_by_text(text) for text in distinct[:MOST_PROMPTS]]


def _folder(typed: str | None, option: str) -> Path | None:
    """Return the folder of an option; raises SpecError when there is none."""
    if typed is None:
        return None
    folder = typed_path(typed)
    if not folder.is_dir():
        shown = printable(str(folder))
        message = f"There is no folder {shown}. {_UNDONE}."
        raise SpecError(message, next_step=f"name one: {option} DIR")
    return folder
