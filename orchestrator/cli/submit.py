"""`submit`: from photos and a prompt to an adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.specs import JobSpec


@click.command()
@click.argument("what", metavar="RECIPE|JOB.yaml")
@click.option("--images", metavar="DIR", help="Folder with your pictures; the built-in sample subject when left out.")
@click.option("--prompt", help='What is on them, with the rare token: "a photo of sks dog".')
@click.option("--base-model", metavar="MODEL", help="builtin, a folder, or a Hugging Face id.")
@click.option("--name", help="Name of the adapter; the job's name when left out.")
@click.option("-s", "--set", "pairs", metavar="FIELD=VALUE", multiple=True, help="Set any field of the recipe.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same job.")
@click.option("--restart", is_flag=True, help="Begin the same job anew.")
@click.option("--dry-run", is_flag=True, help="Print the request and start nothing.")
@click.option("--detach", is_flag=True, help="Return at once; `jobs wait` watches the job.")
@json_option
def submit(what: str, *, resume: bool, restart: bool, dry_run: bool, detach: bool, as_json: bool, **given: Any) -> None:
    """Train an adapter with a RECIPE (see `recipes list`) or from a JOB.yaml.

    \b
    submit dreambooth
    submit dreambooth --images ./dog --prompt "a photo of sks dog" -s steps=400
    submit job.yaml --resume
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator import jobs
    from orchestrator.cli.progress import follow, follow_own, leaving
    from orchestrator.cli.results import print_outcome
    from orchestrator.settings import Settings
    from orchestrator.storage import DryStore, FolderStore

    if resume and restart:
        raise click.UsageError("--resume goes on with a run and --restart begins it anew: choose one.")
    settings = Settings.from_environment()
    store = DryStore(settings.store) if dry_run else FolderStore(settings.store)
    plan = jobs.plan(_spec(what, given), settings, store)
    for warning in plan.warnings:
        click.echo(printable(f"Warning: {warning.render()}"), err=True)
    if dry_run:
        print_json(plan.request)
        return
    job, started = jobs.submit(plan, jobs.local_target(settings), resume=resume, restart=restart)
    if not started:
        click.echo(f"{job.name} was submitted before; --restart begins it anew.", err=True)
    if not detach:
        with leaving(job):
            (follow_own if started else follow)(job, quiet=as_json)
    print_outcome(job, as_json=as_json)


def _spec(what: str, given: dict[str, Any]) -> "JobSpec":
    from orchestrator.specs import build_spec, parse_words, read_job_file

    words = parse_words(given.pop("pairs"))
    fields: dict[str, Any] = read_job_file(Path(what)) if what.endswith((".yaml", ".yml")) else {"recipe": what}
    return build_spec({**fields, **{key: value for key, value in given.items() if value is not None}}, words)
