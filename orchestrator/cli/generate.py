"""`generate`: images from an endpoint."""

from typing import Any

import click

from orchestrator.cli.completion import adapters_of_endpoint
from orchestrator.cli.endpoint_options import endpoint_argument
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
    click.option("--seed", type=int, help="Seed of the first image, the next ones count on; any when left out."),
    click.option("-n", "number", type=int, default=1, help="Number of images of each prompt."),
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
    click.option("--force", is_flag=True, help="Replace files that exist."),
    click.option("--grid", is_flag=True, help="One picture that compares the adapters: a row for each prompt."),
    click.option("--batch", metavar="FILE", help="Draw each line of a file of JSON objects into the folder of -o."),
)


def _drawing_options(function: Any) -> Any:  # click's decorators take any function
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command()
@endpoint_argument
@_drawing_options
@json_option
def generate(name: str, host: str | None, as_json: bool, grid: bool, batch: str | None, **given: Any) -> None:
    """Draw images on the endpoint NAME.

    \b
    generate mine --prompt "a photo of sks dog" --adapter dog:0.8 --seed 1 -n 4 -o out.png
    generate mine --prompt "a room" --control canny=edges.png:0.8,net=edges
    generate mine --prompt "a photo of sks dog" --image photo.jpg --strength 0.6

    With --grid each adapter is drawn with alone, beside the base model, into one picture:
    generate mine --grid --adapter dog --adapter cat --prompt "at the beach" --prompt "in snow" -o grid.png

    With --batch each line of a file is an image, as {"prompt": "...", "adapters": ["dog:0.8"], "seed": 1}; fields:
    prompt, negative_prompt, seed, steps, guidance, size, scheduler, adapters, embeddings. Its file is named by what it
    depends on, and one that is there is not drawn again: run an interrupted batch again, and it goes on.
    generate mine --batch prompts.jsonl -o images/

    `draw-batch` draws a file as a job, without an endpoint and on several instances; fields are those of its help.
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.asked_images import Typed
    from orchestrator.cli.generating import draw_batch, draw_grid, generate_images

    if grid and batch is not None:
        raise click.UsageError("--grid compares adapters and --batch draws a file: choose one.")
    typed = Typed(**given)
    if batch is not None:
        draw_batch(name, host, batch, typed, as_json=as_json)
    elif grid:
        draw_grid(name, host, typed, as_json=as_json)
    else:
        generate_images(name, host, typed, as_json=as_json)
