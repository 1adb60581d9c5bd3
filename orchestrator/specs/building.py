"""Build one checked `JobSpec` from a job file and the command line; all problems are reported at once."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from orchestrator.contract.command_line import command
from orchestrator.contract.datasets import IMAGES, PROMPTS, DatasetKind
from orchestrator.contract.plurals import counted
from orchestrator.contract.preferences import PREFERENCES_FILE
from orchestrator.contract.problem import A_LIST, A_TEXT, MISSING, SHOULD_BE, Problem, did_you_mean, problems_of
from orchestrator.contract.recipe import BUILTIN, FAMILY_CONTEXT, Recipe, recipe_class
from orchestrator.contract.words import NOT_ONE_WORD
from orchestrator.errors import SpecError
from orchestrator.resources import ASSETS, sample_prompts
from orchestrator.specs.base_model import base_model_problems, known_family, native_settings
from orchestrator.specs.compute import Budget, Compute
from orchestrator.specs.job import JobSpec
from orchestrator.specs.plain_text import text_problems

_SECTIONS = ("compute", "budget")
_FIELDS = {
    "recipe",
    IMAGES,
    PROMPTS,
    "name",
    "prompt",
    "base_model",
    "scorer",
    "wait",
    "settings",
    *_SECTIONS,
}
_OPTIONS = {
    "instance_type": "compute.instance_type",
    "spot": "compute.spot",
    "max_usd": "budget.max_usd",
}
"""Options of the command line, and the field of a section that each sets."""
_NO_TEXT = f"{SHOULD_BE} {A_TEXT}"
_NO_LIST = f"{SHOULD_BE} {A_LIST}"
_NULL = "null"
"""What is typed on the command line for None."""

_SECTION_ADVICE = "change what is named above, then submit again; docs/job-files.md has every field"
_ADVICE = {
    IMAGES: "name the folder that holds your images: --images DIR",
    PROMPTS: "name a file with one prompt a line: --prompts FILE",
    "base_model": "mend the model as said above, or name another: --base-model MODEL",
    "name": "choose another name: --name NAME",
    "scorer": "name the folder of a CLIP that transformers can load: --scorer FOLDER",
    "compute": _SECTION_ADVICE,
    "budget": _SECTION_ADVICE,
}
"""The next step when this part of a job has the only problems; the list of the recipe's settings would not help."""

RecipeType = type[Recipe]
Problems = list[Problem]
Fields = dict[str, Any]
"""Fields of a job or of its recipe, by name."""
Overrides = Mapping[str, str]
"""Settings as typed on the command line, by the name of their field."""


def is_list(recipe: RecipeType, field: str) -> bool:
    """Return whether a field of a recipe holds several values, so that it is typed as a JSON list."""
    declared = recipe.model_fields.get(field)
    if declared is None:
        return False
    return get_origin(declared.annotation) is tuple


def build_spec(fields: Mapping[str, Any], overrides: Overrides | None = None) -> JobSpec:
    """Check the fields of a job file or command line; raises SpecError with every problem found.

    `fields` are `recipe` (a name), `images`, `prompts` (a file), `name`, `prompt`, `base_model`, `scorer`, `settings`
    (the recipe's fields), `compute` and `budget` (the fields of those). `overrides` are settings typed on the command
    line, which replace those of the file; `compute.spot` and the like are the fields of a section. Without images, the
    job gets the built-in sample subject and the prompt that belongs to it; without `prompts`, those of the package.
    """
    given = {key: value for key, value in fields.items() if value is not None}
    job, overrides = _with_sections(given, overrides or {})
    recipe_type = declaration(job.get("recipe"))
    problems = _unknown_fields(job)
    settings = _settings(recipe_type, job, problems)
    settings |= _converted(recipe_type, overrides, problems)
    said = {**job, "prompt": None, "settings": None, **settings}  # the prompt is among the settings now
    not_text = text_problems(said)
    if not_text:  # nothing else can be said of them: most checks raise at such characters
        raise _spec_error(recipe_type, not_text)
    recipe = _recipe(recipe_type, settings, problems)
    kind = recipe_type.dataset if recipe is None else recipe.learns_from
    inputs = _inputs(recipe_type, kind, job, settings.get("base_model", BUILTIN), problems)
    if recipe is None:  # a placeholder, so that the job's other problems are found too
        recipe = recipe_type.model_construct()
    spec = _spec(recipe, inputs, job, problems)
    if problems or spec is None:
        raise _spec_error(recipe_type, problems)
    chosen = {*_section(job, "settings"), *overrides}
    warnings = _idle(recipe, chosen)
    return spec.model_copy(update={"warnings": warnings})


def defaults_of(recipe: RecipeType, chosen: Overrides) -> Fields:
    """Return the values that apply beside the `chosen` settings, by field, and those themselves.

    A field that is left out has its own default. Raises SpecError for what cannot be chosen.
    """
    not_text = text_problems(chosen)
    if not_text:
        raise _choice_error(recipe, not_text)
    problems: Problems = []
    settings = _converted(recipe, chosen, problems)
    base_model = settings.get("base_model", BUILTIN)
    base_revision = settings.get("base_revision")
    family = known_family(base_model)
    with_native = {**native_settings(base_model), **settings}
    with_sample = {**recipe.sample_defaults, **with_native}
    try:
        recipe.model_validate(with_sample, context={FAMILY_CONTEXT: family})
    except ValidationError as error:
        for found in problems_of(error, recipe.model_fields):
            if found.where in settings:  # a required field that nobody has chosen yet is no problem here
                problems.append(found)
    problems += base_model_problems(base_model, base_revision)
    if problems:
        raise _choice_error(recipe, problems)
    return {**recipe.all_defaults(with_native, family), **with_native}


def require_said_once(recipe: object, options: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise SpecError when `options` and `settings` of one source, a job file or a command line, disagree on a field.

    One of them would overrule the other silently.
    """
    declared = declaration(recipe)
    fields = {**_OPTIONS, "base_model": "base_model"}
    if declared.prompt_field is not None:
        fields["prompt"] = declared.prompt_field
    problems = []
    for option, field in fields.items():
        said = options.get(option)
        if said is None or field not in settings:
            continue
        setting = settings[field]
        if setting == said:
            continue
        name = option.replace("_", "-")
        problem = Problem(
            where=field,
            what=f'is "{setting}", and {name}, which sets it too, is "{said}"',
            fix="leave one of them out",
        )
        problems.append(problem)
    if problems:
        raise _spec_error(declared, problems)


def _section(job: Fields, name: str) -> Fields:
    """Return a section of a job; empty for one that is none, which is reported elsewhere."""
    section = job.get(name)
    if isinstance(section, dict):
        return section
    return {}


def _idle(recipe: Recipe, chosen: Iterable[object]) -> tuple[Problem, ...]:
    """Return a warning for each setting that a person has chosen and that has no effect beside the others."""
    warnings = []
    idle = recipe.idle_settings()
    for field in sorted(map(str, chosen)):
        if field not in idle:
            continue
        reason = idle[field]
        warning = Problem(
            where=field,
            what=f"has no effect: {reason}",
            fix="leave it out",
        )
        warnings.append(warning)
    return tuple(warnings)


def _recipe(
    recipe: RecipeType,
    settings: Fields,
    problems: Problems,
) -> Recipe | None:
    """Return the recipe with its settings, or None; adds what is wrong with them and with the base model."""
    base_model = settings.get("base_model", BUILTIN)
    base_revision = settings.get("base_revision")
    with_defaults = {**native_settings(base_model), **settings}
    context = {FAMILY_CONTEXT: known_family(base_model)}
    built = None
    try:
        built = recipe.model_validate(with_defaults, context=context)
    except ValidationError as error:
        problems += problems_of(error, recipe.model_fields)
    problems += base_model_problems(base_model, base_revision)
    return built


def _spec(
    recipe: Recipe,
    inputs: Fields,
    job: Fields,
    problems: Problems,
) -> JobSpec | None:
    """Return the whole job, or None; adds what is wrong with it."""
    folders = {name: path for name, path in inputs.items() if name != PROMPTS}
    fields: Fields = {"recipe": recipe, "inputs": folders, PROMPTS: inputs.get(PROMPTS)}
    for key in ("name", "scorer", "wait", *_SECTIONS):
        if key in job:
            fields[key] = job[key]
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as error:
        known = [*Compute.model_fields, *Budget.model_fields]
        problems += problems_of(error, known)
        return None


def _with_sections(job: Fields, overrides: Overrides) -> tuple[Fields, Overrides]:
    """Move overrides such as `compute.volume_gb=200` to their section; return the job and the other overrides."""
    job = dict(job)
    others = {}
    for key, text in overrides.items():
        section, dot, field = key.partition(".")
        if not dot or section not in _SECTIONS:
            others[key] = text
            continue
        values = job.get(section, {})
        if not isinstance(values, dict):  # reported by JobSpec
            continue
        value = None
        if text != _NULL:
            value = text
        job[section] = {**values, field: value}
    return job, others


def declaration(name: object) -> RecipeType:
    """Return the declaration of a recipe; raises SpecError, with a suggestion, when there is none."""
    list_recipes = command("recipes", "list")
    if name is None:
        message = "The job names no recipe; its file needs a line such as `recipe: dreambooth`."
        raise SpecError(message, next_step=list_recipes)
    try:
        return recipe_class(str(name))
    except ValueError as error:
        reason = str(error)
        message = reason[:1].upper() + reason[1:]
        raise SpecError(message, next_step=list_recipes) from error


def _unknown_fields(job: Fields) -> Problems:
    """Return a problem, with a suggestion, for each field that a job does not have."""
    problems = []
    for key in job:
        if key in _FIELDS:
            continue
        name = str(key)
        problem = Problem(
            where=name,
            what="there is no such field",
            fix=did_you_mean(name, _FIELDS),
        )
        problems.append(problem)
    return problems


def _settings(
    recipe: RecipeType,
    job: Fields,
    problems: Problems,
) -> Fields:
    """Return the recipe's settings of a job file: its `settings`, and above them its `prompt` and `base_model`."""
    settings: Fields = {}
    if IMAGES not in job:
        settings |= recipe.sample_defaults
    section = job.get("settings", {})
    if isinstance(section, dict):
        for key, value in section.items():
            settings[str(key)] = value
    else:
        what = "is not a list of `field: value` lines"
        problems.append(Problem(where="settings", what=what))
    if "prompt" in job:
        problem = _prompt_problem(recipe, job)
        if problem is not None:
            problems.append(problem)
        elif recipe.prompt_field is not None:
            settings[recipe.prompt_field] = job["prompt"]
    if "base_model" in job:
        settings["base_model"] = job["base_model"]
    return settings


def _prompt_problem(recipe: RecipeType, job: Fields) -> Problem | None:
    """Return why a job's prompt cannot be used, or None."""
    uses_images = IMAGES in recipe.dataset.inputs
    if uses_images and IMAGES not in job:  # the sample subject has its own prompt
        return Problem(
            where="prompt",
            what="was given without images",
            fix="add --images DIR, or leave it out",
        )
    if recipe.prompt_field is None:
        name = recipe.recipe_name()
        return Problem(where="prompt", what=f"{name} takes none")
    return None


def _converted(
    recipe: RecipeType,
    overrides: Overrides,
    problems: Problems,
) -> Fields:
    """Return settings typed on the command line as JSON values; pydantic converts numbers and the like."""
    settings: Fields = {}
    for key, text in overrides.items():
        if text == _NULL and not _is_text(recipe, key):
            settings[key] = None
        elif not is_list(recipe, key):
            settings[key] = text
        else:
            try:
                settings[key] = json.loads(text)
            except ValueError:
                problem = Problem(
                    where=key,
                    what=f"{text} is not a JSON list",
                    fix=f"""write -s '{key}=["one", "two"]'""",
                )
                problems.append(problem)
    return settings


def _is_text(recipe: RecipeType, field: str) -> bool:
    """Return whether a field of a recipe is a text and nothing else, so that "null" is a word like any other."""
    declared = recipe.model_fields.get(field)
    if declared is None:
        return False
    return declared.annotation is str


def _inputs(
    recipe: RecipeType,
    kind: DatasetKind,
    job: Fields,
    base_model: object,
    problems: Problems,
) -> Fields:
    """Return what the recipe learns from: the person's images or prompts, or else those of the package."""
    inputs: Fields = {}
    samples = {
        IMAGES: ASSETS / kind.sample,
        PROMPTS: sample_prompts(builtin=base_model == BUILTIN),
    }
    if kind.has_preferences and IMAGES not in job:
        what = f"is missing: {recipe.recipe_name()} learns from pairs of your own here"
        fix = f"--images DIR, a folder with pictures and {PREFERENCES_FILE}"
        problems.append(Problem(where=IMAGES, what=what, fix=fix))
    for name, sample in samples.items():
        if name in kind.inputs:
            inputs[name] = job.get(name, sample)
        elif name in job:
            problem = Problem(
                where=name,
                what=f"{recipe.recipe_name()} does not train on {name}",
                fix=f"leave --{name} out",
            )
            problems.append(problem)
    return inputs


def _spec_error(recipe: RecipeType, problems: Problems) -> SpecError:
    """Return the error for a job with these problems, with the next step for the part that all of them are in."""
    name = recipe.recipe_name()
    shown = [_in_terms_of_the_command(problem, recipe) for problem in problems]
    parts = set()
    for problem in shown:
        part, _, _ = problem.where.partition(".")
        parts.add(part)
    advice = {_ADVICE.get(part) for part in parts}
    next_step = command("recipes", "show", name)
    if len(advice) == 1:
        next_step = advice.pop() or next_step
    message = f"The {name} job has {counted(len(problems), 'problem')}; nothing was started."
    return SpecError(message, problems=shown, next_step=next_step)


def _choice_error(recipe: RecipeType, problems: Problems) -> SpecError:
    """Return the error for settings that are only looked at, not submitted."""
    name = recipe.recipe_name()
    shown = [_in_terms_of_the_command(problem, recipe) for problem in problems]
    message = f"{name} cannot have these settings: {counted(len(problems), 'problem')}."
    return SpecError(message, problems=shown, next_step=command("recipes", "show", name))


def _in_terms_of_the_command(problem: Problem, recipe: RecipeType) -> Problem:
    """Name an input as a person does, and fix a missing or invalid word by an example to type."""
    where = problem.where.removeprefix("inputs.")
    problem = problem.model_copy(update={"where": where})
    if problem.what.startswith(_NO_TEXT):
        fix = 'in a job file, put the text in quotes: "null", "[V]"'
        return problem.model_copy(update={"fix": fix})
    if problem.what.startswith(_NO_LIST):
        return problem.model_copy(update={"fix": 'write it as ["one", "two"]'})
    field = recipe.model_fields.get(where)
    needs_example = problem.what.endswith((MISSING, NOT_ONE_WORD))
    if field is None or not needs_example:
        return problem
    example = field.default
    if field.examples:
        example = field.examples[0]
    option = f'--prompt "{example}"'
    if where != recipe.prompt_field:
        assignment = shlex.quote(f"{where}={example}")
        option = f"-s {assignment}"
    fix = f"write, for example: {option}"
    return problem.model_copy(update={"fix": fix})
