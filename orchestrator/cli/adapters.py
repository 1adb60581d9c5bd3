"""`adapters`: finished adapters, of this machine and of the account."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.adapter_options import adapter_options
from orchestrator.cli.completion import adapter_names
from orchestrator.cli.output import json_option, print_facts, print_json, print_table, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.terminal import size_text

if TYPE_CHECKING:
    from orchestrator.adapters.registry import Adapter, Registry


@click.group()
def adapters() -> None:
    """List, show and fetch finished adapters."""


@adapters.command("list")
@json_option
def list_adapters(as_json: bool) -> None:
    """List the adapters of this machine and of the account, the newest of each name."""
    from orchestrator.adapters.registry import damaged
    from orchestrator.storage.folder import location_of

    found = _registry().newest(print_warning)
    if as_json:
        print_json([_as_json(adapter) for adapter in found])
        return
    if not found:
        say(f"No adapters yet. Begin with: {command('submit', 'dreambooth')}")
        return
    rows = []
    for adapter in found:
        state = "damaged" if adapter.damage else "complete"
        size = size_text(adapter.bytes)
        rows.append((adapter.name, adapter.manifest.recipe, size, state, location_of(adapter.uri)))
    print_table(("ADAPTER", "RECIPE", "SIZE", "FILES", "LOCATION"), rows)
    for adapter in found:
        if adapter.damage:
            print_warning(damaged(adapter.uri, adapter.damage))


@adapters.command()
@click.argument("name", shell_complete=adapter_names)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what an adapter is made from and how to use it; on this machine the content of each file is verified."""
    from orchestrator.adapters.registry import damaged
    from orchestrator.adapters.usage import base_model_name
    from orchestrator.cli.results import base_folder_of, print_snippet, prompt_words
    from orchestrator.storage.folder import location_of

    registry = _registry()
    adapter = registry.verified(registry.find(name, print_warning))
    if as_json:
        print_json(_as_json(adapter))
        return
    manifest = adapter.manifest
    base = manifest.base_model
    revision = base.revision or ""
    fingerprint = base.fingerprint[:12]
    base_folder = base_folder_of(adapter.uri)
    base_name = base_model_name(manifest, base_folder)
    facts = [
        ("adapter", adapter.name),
        ("location", location_of(adapter.uri)),
        ("size", size_text(adapter.bytes)),
        ("recipe", manifest.recipe),
        ("prompt with", prompt_words(manifest)),
        ("base model", f"{base_name} {revision} ({fingerprint})"),
        ("images", manifest.dataset_sha256[:12]),
        ("code", manifest.bundle_sha256[:12]),
    ]
    for metric, figure in manifest.metrics.items():
        label = metric.replace("_", " ")
        facts.append((label, f"{figure:.3f}"))
    if manifest.scorer_sha256 is not None:
        facts.append(("measured by CLIP", manifest.scorer_sha256[:12]))
    for file, digest in manifest.files.items():
        facts.append((f"file {file}", f"{size_text(digest.size)}, sha256 {digest.sha256}"))
    print_facts(facts)
    if adapter.damage:
        print_warning(damaged(adapter.uri, adapter.damage))
    elif adapter.uri.startswith("file:"):
        print_snippet(manifest, location_of(adapter.uri), base_folder)
    else:
        print_facts([("fetch", command("adapters", "pull", adapter.name))])


@adapters.command()
@click.argument("name", shell_complete=adapter_names)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="New folder; the adapter's name when left out.",
)
@json_option
def pull(name: str, folder: Path | None, as_json: bool) -> None:
    """Download an adapter: each file is verified, and the folder is complete or absent."""
    from orchestrator.cli.results import base_folder_of, print_snippet
    from orchestrator.settings import typed_path

    absolute = typed_path(folder or name)
    registry = _registry()
    adapter = registry.find(name, print_warning)
    registry.pull(adapter, absolute)
    if as_json:
        print_json({**_as_json(adapter), "folder": str(absolute)})
        return
    print_facts([("adapter", str(absolute))])
    print_snippet(adapter.manifest, str(absolute), base_folder_of(adapter.uri))


@adapters.command()
@adapter_options
@click.argument("prompt")
@click.option("--seed", type=int, help="Seed of the first image, the next ones count on; as in training when left out.")
@click.option("-n", "count", type=int, default=1, help="Number of images.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="PNG file, or a folder; NAME.png when left out. Several images get numbers: out-1.png, out-2.png.",
)
@click.option(
    "--control",
    metavar="KIND=PICTURE",
    multiple=True,
    help="A picture that the images follow, by a ControlNet; may be given several times. See below.",
)
@click.option(
    "--embedding",
    metavar="NAME|FOLDER",
    multiple=True,
    help="An adapter of textual inversion, whose word the prompt uses too; may be given several times.",
)
@click.option("--negative", metavar="TEXT", help="What not to draw.")
@click.option(
    "--scheduler", metavar="NAME", help="How steps are taken, such as euler; as the base model does when left out."
)
@click.option("--steps", type=int, help="Denoising steps; those of the recipe when left out.")
@click.option("--guidance", type=float, help="Classifier-free guidance; that of the recipe when left out.")
@click.option("--size", type=int, help="Side of square images in pixels; that of training when left out.")
@click.option("--width", type=int, help="Width of the images in pixels, a multiple of 8; --size when left out.")
@click.option("--height", type=int, help="Height of the images in pixels, likewise.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@json_option
def draw(adapter: str, output: str | None, force: bool, as_json: bool, **given: Any) -> None:
    """Draw images of PROMPT with an adapter, on this machine and without a job.

    The same seed, prompt and settings draw the same image. The adapter's files are verified first, and the base model
    must be the one it was trained on.

    \b
    adapters draw dog "a photo of sks dog at the beach"
    adapters draw dog "a photo of sks dog" --seed 1 -n 4 -o out.png
    adapters draw ./pulled/dog "a photo of sks dog" --weight 0.7

    \b
    A ControlNet is an adapter too, or a folder of diffusers that is named beside one:
    adapters draw edges "a red bird" --control canny=bird.jpg:0.8
    adapters draw dog "a photo of sks dog" --control canny=dog.jpg:0.8,net=edges
    adapters draw dog "a photo of sks dog" --control depth=room.png,net=./sd-depth,weights=./annotators

    KIND is what the ControlNet is shown of the picture: canny, blur, palette, sketch, openpose, depth, hed or lineart.
    With map:KIND the picture is such a map already. After the picture come the scale (0 to 2), and then, with commas:
    net=NAME|FOLDER (the ControlNet), start=0.2 and end=0.8 (the share of the steps in which it acts), mask=PICTURE
    (white where it acts), settings of the map (low=50,high=150 of canny), and weights=FOLDER (of controlnet-aux, for
    openpose, depth, hed and lineart). Pictures are cut to the shape of the images, in their middle.
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.drawing import draw_images

    draw_images(adapter, _registry(), given, output, force=force, as_json=as_json)


def _as_json(adapter: "Adapter") -> dict[str, Any]:
    return adapter.model_dump(mode="json", exclude={"prefix"})


def _registry() -> "Registry":
    from orchestrator.adapters.registry import Registry
    from orchestrator.settings import Settings
    from orchestrator.targets.opening import open_stores

    settings = Settings.from_environment()
    return Registry(open_stores(settings, print_warning))
