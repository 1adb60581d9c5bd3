"""Draw with a finished adapter: which one, with which base model, and into which files."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pydantic import ValidationError

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import drawing_settings
from orchestrator.cli.chosen_adapter import ChosenAdapter, base_of, choose_adapter
from orchestrator.cli.combination import Combination
from orchestrator.cli.controls import OPTION, controls_of
from orchestrator.cli.image_files import image_files, require_free, seeds_of, write_image
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Event, Item, Warned
from orchestrator.contract.generation import Generation
from orchestrator.contract.problem import problems_of
from orchestrator.contract.words import occurrences
from orchestrator.errors import SpecError
from orchestrator.planning.bundle import bundle_tree
from orchestrator.storage import FolderStore, folder_of
from orchestrator.targets.local.drawing import draw

_FIELDS = {
    "prompts": "PROMPT",
    "negative_prompt": "--negative",
    "steps": "--steps",
    "guidance": "--guidance",
    "size": "--size",
    "width": "--width",
    "height": "--height",
    "scheduler": "--scheduler",
    "adapters": "--weight",
    "embeddings": "--embedding",
    "controls": OPTION,
}
"""Fields of a generation, and the options that set them."""

_SHOWN = {
    "negative_prompt",
    "steps",
    "guidance",
    "scheduler",
    "embeddings",
}
"""Fields of a generation that are printed as JSON as they are."""


def draw_images(
    adapter: str,
    registry: Registry,
    given: dict[str, Any],
    output: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Draw with an adapter, by name or folder, and print which files were written.

    `given` are the fields of the order and `base_model`; those that are None follow from the adapter.
    """
    with TemporaryDirectory(prefix="orchestrator-") as temporary:
        scratch = Path(temporary)
        chosen = choose_adapter(adapter, registry, scratch)
        order = _order(chosen, given, registry, scratch)
        images = order.generation.images
        files = image_files(output, chosen.name, len(images))
        require_free(files, force=force)
        for word in order.words:
            if not any(occurrences(images[0].prompt, word)):
                say(f'Warning: The prompt lacks "{word.text}", the word that shows what was learned.', err=True)
        bundle = bundle_tree(BundleKind.TRAINING)
        code = FolderStore(scratch).put_tree(bundle)
        drawn = scratch / "images"
        drawn.mkdir()
        draw(order, folder_of(code), drawn, _reporter(quiet=as_json))
        for number, file in enumerate(files):
            image = drawn / order.file(number)
            write_image(file, image.read_bytes(), force=force)
    _print(chosen, order, files, as_json=as_json)


def _order(chosen: ChosenAdapter, given: dict[str, Any], registry: Registry, scratch: Path) -> DrawOrder:
    """Return the order for what was typed; raises SpecError with all that is wrong with it."""
    typed = {name: value for name, value in given.items() if value is not None}
    base = base_of(chosen, typed.get("base_model"), "Nothing was drawn")
    settings = drawing_settings(chosen.manifest)
    size = typed.get("size", settings.size)
    combination = Combination(chosen, registry, scratch)
    longest = max(typed.get("width", size), typed.get("height", size))
    controls, map_weights, problems = controls_of(typed.get("control", ()), longest, combination.name_of)
    seeds, out_of_range = seeds_of(typed.get("seed", settings.seed), typed.get("count", 1))
    problems = [*out_of_range, *problems, *combination.problems(typed)]
    values: dict[str, Any] = {
        "prompts": [typed["prompt"]],
        "negative_prompt": typed.get("negative"),
        "seeds": seeds,
        "steps": typed.get("steps", settings.steps),
        "guidance": typed.get("guidance", settings.guidance),
        "size": size,
        "width": typed.get("width"),
        "height": typed.get("height"),
        "scheduler": typed.get("scheduler"),
        "adapters": combination.adapters(typed.get("weight", 1.0)),
        "embeddings": combination.learned(typed.get("embedding", ())),
        "controls": controls,
    }
    try:
        generation = Generation.model_validate(values)
    except ValidationError as error:
        for problem in problems_of(error):
            field = re.split(r"[.\[]", problem.where)[0]
            option = _FIELDS.get(field, problem.where)
            problems.append(problem.model_copy(update={"where": option}))
    if problems:
        raise SpecError("Nothing was drawn.", problems=problems, next_step=command("adapters", "draw", "--help"))
    return DrawOrder(
        generation=generation,
        folders=combination.folders,
        words=combination.words,
        map_weights=map_weights,
        base_model=base.name,
        base_folder=base.folder,
        base_revision=base.revision,
    )


def _reporter(*, quiet: bool) -> Callable[[Event], None]:
    """Return what prints warnings and, unless `quiet`, each image that is ready."""

    def report(event: Event) -> None:
        if isinstance(event, Item) and not quiet:
            click.echo(f"image {event.done} of {event.of}", err=True)
        if isinstance(event, Warned):
            say(f"Warning: {event.message}", err=True)

    return report


def _print(chosen: ChosenAdapter, order: DrawOrder, files: Sequence[Path], *, as_json: bool) -> None:
    """Print which image of which seed is in which file."""
    wanted = order.generation
    if not as_json:
        facts = []
        for asked, file in zip(wanted.images, files, strict=True):
            facts.append((f"seed {asked.seed}", str(file)))
        print_facts(facts)
        return
    images = []
    for asked, file in zip(wanted.images, files, strict=True):
        path = str(file.absolute())
        images.append({"file": path, "seed": asked.seed})
    controls = []
    for control in wanted.controls:
        fields = control.model_dump(mode="json", exclude={"picture", "mask"})
        controls.append(fields)
    weight = None
    for adapter in wanted.adapters:
        weight = adapter.weight
    settings = wanted.model_dump(mode="json", include=_SHOWN)
    print_json(
        {
            "adapter": chosen.name,
            "prompt": wanted.prompts[0],
            "weight": weight,
            **settings,
            **wanted.shape._asdict(),
            "controls": controls,
            "images": images,
        }
    )
