"""`models`: base models in the account's bucket."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import json_option, print_facts, print_json, print_table, say
from orchestrator.contract.command_line import PROGRAM
from orchestrator.terminal import size_text

if TYPE_CHECKING:
    from orchestrator.storage import Store


@click.group()
def models() -> None:
    """Copy models from the Hugging Face Hub into the account's bucket."""


@models.command()
@click.argument("hf_id", metavar="HF_ID")
@click.option(
    "--revision",
    metavar="R",
    help="Branch, tag or commit; the default branch when left out.",
)
@json_option
def mirror(hf_id: str, revision: str | None, as_json: bool) -> None:
    """Copy a model into the bucket, where jobs on SageMaker read it.

    The jobs then run in network isolation and spend no paid time on downloads.

    Idempotent: run again, it copies only if the branch has a new commit. A gated model needs your token on this
    machine only (`hf auth login`).
    """
    from orchestrator.models import mirror as mirroring

    model, is_new = mirroring.mirror(_store(), hf_id, revision, _report)
    if as_json:
        print_json({**model.model_dump(mode="json"), "new": is_new})
        return
    age = "new" if is_new else "was there already"
    facts = [
        ("model", model.id),
        ("revision", model.revision),
        ("commit", model.commit),
        ("copy", f"{model.uri} ({age})"),
        ("size", size_text(model.bytes)),
        ("use", f"{PROGRAM} submit RECIPE --target sagemaker --base-model {model.id}"),
    ]
    print_facts(facts)


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models in the bucket, the newest copy of each first."""
    from orchestrator.models.mirror import list_mirrored

    found = list_mirrored(_store())
    if as_json:
        print_json([model.model_dump(mode="json") for model in found])
        return
    if not found:
        say(f"No models yet. Copy one with: {PROGRAM} models mirror HF_ID")
        return
    rows = []
    for model in found:
        size = size_text(model.bytes)
        mirrored = f"{model.mirrored.astimezone():%Y-%m-%d %H:%M}"
        rows.append((model.id, model.revision, model.commit[:12], size, mirrored))
    print_table(("MODEL", "REVISION", "COMMIT", "SIZE", "MIRRORED"), rows)


def _report(line: str) -> None:
    say(line, err=True)


def _store() -> "Store":
    from orchestrator.settings import Settings
    from orchestrator.targets.names import TargetName
    from orchestrator.targets.opening import open_target

    return open_target(TargetName.SAGEMAKER, Settings.from_environment()).store
