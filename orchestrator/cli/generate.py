"""`generate`: images from an endpoint, or from a job that draws a file of prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.batch_options import (
    batch_job_options,
    require_lines_say_it,
    taken_job_options,
    typed_job_options,
)
from orchestrator.cli.completion import adapters_of_endpoint, endpoint_names
from orchestrator.cli.endpoint_options import host_option
from orchestrator.cli.output import json_option

_MANY = "; may be given several times."
_OPTIONS = (
    click.option("--prompt", "prompts", metavar="TEXT", multiple=True, help=f"What to draw{_MANY}"),
    click.option(
        "--adapter",
        "adapters",
        metavar="NAME[:WEIGHT]",
        multiple=True,
        shell_complete=adapters_of_endpoint,
        help=f"An adapter of the endpoint, and its strength (1 when left out){_MANY}",
    ),
    click.option(
        "--embedding",
        "embeddings",
        metavar="NAME",
        multiple=True,
        shell_complete=adapters_of_endpoint,
        help=f"A learned word that the prompt uses{_MANY}",
    ),
    click.option(
        "--control",
        "controls",
        metavar="KIND=PICTURE,net=NAME",
        multiple=True,
        help=f"A picture that the images follow, by a ControlNet of the endpoint{_MANY}",
    ),
    click.option("--negative", metavar="TEXT", help="What not to draw."),
    click.option(
        "--seed", type=int, help="Seed of the first image, the next ones count on; any when left out, 0 in a batch."
    ),
    click.option("-n", "number", type=int, help="Number of images of each prompt; 1 when left out."),
    click.option("--steps", type=int, help="Denoising steps; the endpoint chooses when left out."),
    click.option("--guidance", type=float, help="Classifier-free guidance; the endpoint chooses when left out."),
    click.option("--size", type=int, help="Side of square images in pixels; that of the model when left out."),
    click.option("--width", type=int, help="Width of the images in pixels, a multiple of 8; --size when left out."),
    click.option("--height", type=int, help="Height of the images in pixels, likewise."),
    click.option("--scheduler", metavar="NAME", help="How steps are taken, such as euler."),
    click.option("--image", metavar="PICTURE", help="A picture that the images begin with."),
    click.option("--strength", type=float, help="With --image: how far the images go away from it, 0 to 1."),
    click.option("--mask", metavar="PICTURE", help="With --image: white where it is drawn anew."),
    click.option(
        "-o",
        "--output",
        metavar="PATH",
        help="PNG file, or a folder; NAME.png when left out. Several images get numbers: out-1.png, out-2.png.",
    ),
    click.option(
        "--force", is_flag=True, help="Replace files that exist; of a batch, images that other lines have drawn."
    ),
    click.option("--grid", is_flag=True, help="One picture that compares the adapters: a row for each prompt."),
    click.option("--batch", metavar="FILE", help="Draw the lines of a file into the folder of -o."),
)


def _drawing_options(function: Any) -> Any:  # click's decorators take any function
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command()
@click.argument("name", required=False, shell_complete=endpoint_names)
@host_option
@_drawing_options
@batch_job_options
@json_option
def generate(name: str | None, host: str | None, grid: bool, batch: str | None, **given: Any) -> int:
    """Draw images on the endpoint NAME, or a file of prompts as a job without an endpoint.

    \b
    generate mine --prompt "a photo of sks dog" --adapter dog:0.8 --seed 1 -n 4 -o out.png
    generate mine --prompt "a room" --control canny=edges.png:0.8,net=edges
    generate mine --prompt "a photo of sks dog" --image photo.jpg --strength 0.6

    With --grid each adapter is drawn with alone, beside the base model, into one picture:
    generate mine --grid --adapter dog --adapter cat --prompt "at the beach" --prompt "in snow" -o grid.png

    With --batch each line of FILE is a prompt, or a JSON object with more: prompt, id, seed or seeds, n,
    negative_prompt, adapters (["dog:0.8", {"name": "ink", "weight": 0.5}]), embeddings, steps, guidance, size,
    scheduler. What a line leaves out, the options say. Images are files of -o, named by the id or the number of their
    line, and index.json lists them. Run an interrupted batch again, and it goes on: images that are there stay as they
    are. With NAME the endpoint draws, wherever it runs; without, a job does, which N instances share:

    \b
    generate mine --batch prompts.jsonl -o images
    generate --batch prompts.txt --adapter dog -o images
    generate --batch prompts.jsonl --target sagemaker --instances 4 --max-usd 20 -o images
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    if batch is not None:
        return _generate_batch(name, host, batch, given, grid=grid)
    if name is None:
        raise click.UsageError("Name an endpoint, or a file of prompts: --batch FILE.")
    _require_no_job(given)
    from orchestrator.cli.asked_images import Typed
    from orchestrator.cli.generating import draw_grid, generate_images

    as_json = given.pop("as_json")
    taken_job_options(given)
    given["number"] = _number(given)
    typed = Typed(**given)
    if grid:
        draw_grid(name, host, typed, as_json=as_json)
    else:
        generate_images(name, host, typed, as_json=as_json)
    return 0


def _generate_batch(
    name: str | None,
    host: str | None,
    batch: str,
    given: dict[str, Any],
    *,
    grid: bool,
) -> int:
    """Draw a file of prompts, by an endpoint or as a job, and return the exit code."""
    if grid:
        raise click.UsageError("--grid compares adapters and --batch draws a file: choose one.")
    require_lines_say_it(given)
    if name is not None:
        _require_no_job(given)
        from orchestrator.cli.endpoint_batch import draw_batch

        return draw_batch(name, host, batch, given)
    if host is not None or given["force"]:
        raise click.UsageError("--host and --force are for the batch of an endpoint: name one.")
    from orchestrator.cli.batch import start_batch

    given.update(taken_job_options(given))
    return start_batch(Path(batch), given)


def _require_no_job(given: Mapping[str, Any]) -> None:
    """Raise UsageError for options of a job, which an endpoint does not start."""
    typed = typed_job_options(given)
    if typed:
        listed = " and ".join(typed)
        raise click.UsageError(f"{listed}: only for --batch without an endpoint, which starts a job.")


def _number(given: Mapping[str, Any]) -> int:
    """Return how many images of each prompt are asked for."""
    number = given["number"]
    if number is None:
        return 1
    return int(number)
