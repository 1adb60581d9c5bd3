"""Draw with a finished adapter: which one, with which base model, and into which files."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import click
from pydantic import ValidationError

from orchestrator.adapters.registry import Registry
from orchestrator.adapters.usage import drawing_settings
from orchestrator.cli.chosen_adapter import ChosenAdapter, base_of, choose_adapter
from orchestrator.cli.combination import Combination
from orchestrator.cli.controls import OPTION, controls_of
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Event, Item, Warned
from orchestrator.contract.generation import MAX_SEED, MOST_IMAGES, Generation
from orchestrator.contract.problem import Problem, problems_of
from orchestrator.contract.words import occurrences
from orchestrator.errors import MachineError, SpecError
from orchestrator.planning.bundle import bundle_tree
from orchestrator.settings import typed_path
from orchestrator.storage import FolderStore, folder_of, write_atomically
from orchestrator.targets.local.drawing import draw

_PNG = ".png"
_FIELDS = {
    "prompts": "PROMPT",
    "negative_prompt": "--negative",
    "steps": "--steps",
    "guidance": "--guidance",
    "size": "--size",
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
    "size",
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
        files = _files(output, chosen.name, len(images))
        _require_free(files, force=force)
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
            _write(file, image.read_bytes(), force=force)
    _print(chosen, order, files, as_json=as_json)


def _order(chosen: ChosenAdapter, given: dict[str, Any], registry: Registry, scratch: Path) -> DrawOrder:
    """Return the order for what was typed; raises SpecError with all that is wrong with it."""
    typed = {name: value for name, value in given.items() if value is not None}
    base = base_of(chosen, typed.get("base_model"), "Nothing was drawn")
    settings = drawing_settings(chosen.manifest)
    size = typed.get("size", settings.size)
    combination = Combination(chosen, registry, scratch)
    controls, map_weights, problems = controls_of(typed.get("control", ()), size, combination.name_of)
    seeds, out_of_range = _seeds(typed.get("seed", settings.seed), typed.get("count", 1))
    problems = [*out_of_range, *problems, *combination.problems(typed)]
    values: dict[str, Any] = {
        "prompts": [typed["prompt"]],
        "negative_prompt": typed.get("negative"),
        "seeds": seeds,
        "steps": typed.get("steps", settings.steps),
        "guidance": typed.get("guidance", settings.guidance),
        "size": size,
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


def _seeds(first: int, count: int) -> tuple[list[int], list[Problem]]:
    """Return the seed of each image, or what is wrong with those that were asked for."""
    last = first + count - 1
    problem = None
    if not 1 <= count <= MOST_IMAGES:
        problem = Problem(where="-n", what=f"should be from 1 to {MOST_IMAGES}, not {count}")
    elif not 0 <= first <= MAX_SEED:
        problem = Problem(where="--seed", what=f"should be from 0 to {MAX_SEED}, not {first}")
    elif last > MAX_SEED:
        what = f"the last image would have the seed {last}; the highest is {MAX_SEED}"
        problem = Problem(where="--seed", what=what)
    if problem is not None:
        return [0], [problem]
    return list(range(first, first + count)), []


def _files(named: str | None, name: str, count: int) -> list[Path]:
    """Return the file of each image: the one that was named, or with numbers for several, or files in a folder.

    Raises SpecError for a file that is no PNG, and as `typed_path` does.
    """
    named = named or f"{name}{_PNG}"
    output = typed_path(named)
    is_folder = named.endswith("/") or output.is_dir() or not output.suffix
    if is_folder:
        output = output / f"{name}{_PNG}"
    if output.suffix.lower() != _PNG:
        better = output.with_suffix(_PNG)
        raise SpecError(f"{output} is not a PNG file.", next_step=f"name it {better}, or a folder")
    if count == 1:
        return [output]
    files = []
    for number in range(1, count + 1):
        numbered = f"{output.stem}-{number}{output.suffix}"
        files.append(output.with_name(numbered))
    return files


def _require_free(files: Sequence[Path], *, force: bool) -> None:
    """Make the folder of the files; raises MachineError when they cannot be written, or one exists and must be kept."""
    folder = files[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # on a read-only disk, permissions tell nothing
            pass
    except OSError as error:
        message = f"No image can be written into {folder}: {error.strerror}. Nothing was drawn."
        raise MachineError(message, next_step="name another place with -o") from error
    for file in files:
        may_be_written = force or not file.exists()
        if file.is_dir() or not may_be_written:
            next_step = "name another file with -o, or add --force"
            raise MachineError(f"{file} exists; nothing was drawn.", next_step=next_step)


def _write(file: Path, content: bytes, *, force: bool) -> None:
    """Write an image; without `force` a file that came to be meanwhile is kept."""
    if force:
        write_atomically(file, content)
        return
    with file.open("xb") as new:
        new.write(content)


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
            "controls": controls,
            "images": images,
        }
    )
