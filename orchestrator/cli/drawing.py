"""Draw with a finished adapter: which one, with which base model, and into which files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
from pydantic import ValidationError

from orchestrator.adapters.registry import Registry, inspect
from orchestrator.adapters.usage import drawing_settings, lacks_word, own_word
from orchestrator.cli.output import print_facts, print_json, print_warning, say
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.drawing import DrawOrder
from orchestrator.contract.events import Event, Item
from orchestrator.contract.problem import problems_of
from orchestrator.errors import JobError, MachineError, SpecError
from orchestrator.planning.bundle import bundle_tree
from orchestrator.specs.base_model import Hub, base_model_problems, parse_base_model
from orchestrator.storage import FolderStore, folder_of, write_atomically
from orchestrator.targets.local.drawing import draw

_PNG = ".png"
_FIELDS = {"count": "-n", "steps": "--steps", "guidance": "--guidance", "size": "--size", "seed": "--seed"}
"""Fields of an order, and the options that set them."""


class _Chosen(NamedTuple):
    """An adapter to draw with."""

    name: str
    """Its name, or that of its folder."""
    folder: Path
    """Where its files are on this machine."""
    manifest: AdapterManifest


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
    with TemporaryDirectory(prefix="orchestrator-") as scratch:
        chosen = _choose(adapter, registry, Path(scratch))
        order = _order(chosen, given)
        files = _files(output, chosen.name, order.count)
        _require_free(files, force=force)
        if lacks_word(chosen.manifest, order.prompt):
            word = own_word(chosen.manifest)
            say(f'Warning: The prompt lacks "{word}", the word that shows what was learned.', err=True)
        drawn = Path(scratch) / "images"
        drawn.mkdir()
        code = FolderStore(Path(scratch)).put_tree(bundle_tree(BundleKind.TRAINING))
        draw(order, folder_of(code), drawn, _reporter(quiet=as_json))
        for seed, file in zip(order.seeds, files, strict=True):
            _write(file, (drawn / order.file(seed)).read_bytes(), force=force)
    _print(chosen, order, files, as_json=as_json)


def _choose(adapter: str, registry: Registry, scratch: Path) -> _Chosen:
    """Find an adapter by name, or by the path of its folder; one in the bucket is fetched into `scratch`.

    Raises JobError, or another error of ours, when there is none that can be used.
    """
    if "/" in adapter:
        folder = Path(adapter).expanduser().resolve()
        manifest, problem = inspect(FolderStore(folder.parent), folder.name)
        if problem is not None and folder.is_dir():
            raise problem
        if manifest is None:
            raise JobError(f"There is no folder {folder}.", next_step=command("adapters", "list"))
        return _Chosen(folder.name, folder, manifest)
    found = registry.find(adapter, print_warning)
    found.require_complete()
    if found.uri.startswith("file:"):
        return _Chosen(found.name, folder_of(found.uri), found.manifest)
    folder = scratch / "adapter"
    registry.pull(found, folder)
    return _Chosen(found.name, folder, found.manifest)


def _order(chosen: _Chosen, given: dict[str, Any]) -> DrawOrder:
    """Return the order for what was typed; raises SpecError with all that is wrong with it."""
    fields = {name: value for name, value in given.items() if value is not None}
    base = chosen.manifest.base_model
    named = fields.pop("base_model", None)
    values: dict[str, Any] = {
        **drawing_settings(chosen.manifest)._asdict(),
        **_base_fields(named or base.id, None if named else base.revision),
        "adapter": chosen.folder,
        **fields,
    }
    try:
        return DrawOrder.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in problems_of(error):
            option = _FIELDS.get(problem.where, problem.where)
            problems.append(problem.model_copy(update={"where": option}))
        next_step = command("adapters", "draw", "--help")
        raise SpecError("Nothing was drawn.", problems=problems, next_step=next_step) from error


def _base_fields(name: str, revision: str | None) -> dict[str, Any]:
    """Return the fields of an order that say where the base model is; raises SpecError when it is not usable there."""
    problems = base_model_problems(name, revision)
    if problems:
        raise SpecError(
            "The base model of the adapter cannot be used; nothing was drawn.",
            problems=problems,
            next_step="say where it is: --base-model FOLDER",
        )
    source = parse_base_model(name, revision)
    if isinstance(source, Hub):
        return {"base_model": name, "base_folder": None, "base_revision": revision}
    return {"base_model": name, "base_folder": source.folder}


def _files(named: str | None, name: str, count: int) -> list[Path]:
    """Return the file of each image: the one that was named, or with numbers for several, or files in a folder.

    Raises SpecError for a file that is no PNG.
    """
    named = named or f"{name}{_PNG}"
    output = Path(named).expanduser()
    if named.endswith("/") or output.is_dir() or not output.suffix:
        output = output / f"{name}{_PNG}"
    if output.suffix.lower() != _PNG:
        raise SpecError(f"{output} is not a PNG file.", next_step=f"name it {output.with_suffix(_PNG)}, or a folder")
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, count + 1)]


def _require_free(files: Sequence[Path], *, force: bool) -> None:
    """Make the folder of the files; raises MachineError when one of them exists and may not be replaced."""
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_dir() or (file.exists() and not force):
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
    def report(event: Event) -> None:
        if isinstance(event, Item) and not quiet:
            click.echo(f"image {event.done} of {event.of}", err=True)

    return report


def _print(chosen: _Chosen, order: DrawOrder, files: Sequence[Path], *, as_json: bool) -> None:
    """Print which image of which seed is in which file."""
    if as_json:
        images = []
        for seed, file in zip(order.seeds, files, strict=True):
            images.append({"file": str(file.absolute()), "seed": seed})
        settings = order.model_dump(mode="json", include={"prompt", "weight", "steps", "guidance", "size"})
        print_json({"adapter": chosen.name, **settings, "images": images})
        return
    facts = []
    for seed, file in zip(order.seeds, files, strict=True):
        facts.append((f"seed {seed}", str(file)))
    print_facts(facts)
