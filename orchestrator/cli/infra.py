"""`infra`: what jobs need in an AWS account."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.account_build import build_in_account, check_options
from orchestrator.cli.output import json_option, print_facts, print_json, print_table, say
from orchestrator.contract.command_line import command
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.aws.client import Aws
    from orchestrator.infra.stack import StackEvent
    from orchestrator.infra.training_image import Image
    from orchestrator.settings import AwsSettings, Settings


@click.group()
def infra() -> None:
    """Create, show and remove what jobs on SageMaker need in your AWS account."""


_OPTIONAL = {True: "make", False: "leave", None: None}
"""Values of the template's parameters for its optional parts."""
_PLATFORM = "linux/amd64"  # SageMaker's
_USUAL_IMAGE = "training"


def _stack_options(function: Any) -> Any:  # click's decorators take any function
    stack_name = click.option(
        "--stack-name",
        metavar="NAME",
        help="Name of the CloudFormation stack [default: orchestrator].",
    )
    region = click.option(
        "--region",
        metavar="REGION",
        help="AWS region [default: that of your AWS configuration].",
    )
    return region(stack_name(function))


@infra.command()
@_stack_options
@click.option(
    "--alarm-email",
    metavar="EMAIL",
    help="Who is notified when the month's bill nears the budget.",
)
@click.option(
    "--monthly-budget",
    metavar="USD",
    type=click.IntRange(1),
    help="Dollars a month for the alarm [default: 50].",
)
@click.option(
    "--subnet",
    "subnets",
    metavar="ID",
    multiple=True,
    help="Subnet jobs run in; can be repeated.",
)
@click.option(
    "--security-group",
    "groups",
    metavar="ID",
    multiple=True,
    help="Security group of jobs; can be repeated.",
)
@click.option(
    "--log-days",
    metavar="DAYS",
    type=int,
    help="Days to keep logs [default: 90].",
)
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Whether people label images of jobs: a topic that says when, a queue, and a policy [default: no].",
)
@click.option(
    "--builds/--no-builds",
    default=None,
    help="Whether images can be built in the account (infra image --in-account): a CodeBuild project [default: no].",
)
@json_option
def up(region: str | None, stack_name: str | None, as_json: bool, **given: Any) -> None:
    """Create or update what jobs need. Idempotent.

    An option that is left out keeps its earlier value.
    """
    from orchestrator.infra import account as infra_account
    from orchestrator.infra.training_image import is_missing

    aws, settings, name = _opened(region, stack_name)
    account = infra_account.up(
        aws,
        settings,
        _parameters(given),
        name=name,
        report=_event_printer(quiet=as_json),
    )
    _print_account(account, as_json=as_json)
    if not as_json and is_missing(aws, account):
        where = ("--in-account",) if account.build_project else ()
        build = command("infra", "image", *where)
        say(f"\nNext: {build}  (it builds the image that jobs run in)", keep="\n")


@infra.command()
@click.argument("which", type=click.Choice((_USUAL_IMAGE, "inference")), default=_USUAL_IMAGE)
@_stack_options
@click.option(
    "--build-only",
    is_flag=True,
    help="Build the image on this machine and do not push it; needs no account.",
)
@click.option(
    "--platform",
    metavar="OS/ARCH",
    default=_PLATFORM,
    help=f"Platform of the image [default: {_PLATFORM}].",
)
@click.option(
    "--in-account",
    is_flag=True,
    help="Build it with AWS CodeBuild in the account, without docker; needs infra up --builds.",
)
@click.option("-y", "--yes", is_flag=True, help="With --in-account: do not ask before money is spent.")
@click.option("--cpu", is_flag=True, help="Without CUDA, for `--target container` on a machine without a GPU.")
@click.option("--base-image", metavar="IMAGE", help="Image with Python 3.11, venv and pip to build on.")
@click.option(
    "--wheelhouse",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder with all wheels, to build without a network.",
)
@json_option
def image(
    which: str,
    region: str | None,
    stack_name: str | None,
    build_only: bool,
    in_account: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build the image that jobs run in and push it; that of endpoints with `inference`. Idempotent.

    It holds Python and the libraries of training, or of the server; each job and endpoint brings its own code.

    \b
    infra image
    infra image inference
    infra image --in-account
    infra image --build-only --cpu
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.container_images import ImageKind
    from orchestrator.infra import account as infra_account
    from orchestrator.infra import training_image

    report = _line_printer(quiet=as_json)
    where = {"region": region, "stack_name": stack_name}
    again = _image_command(which, where, given, build_only=build_only)
    if in_account:
        check_options({**given, "build_only": build_only}, _PLATFORM)
        made = _built_in_account(which, where, yes=yes, quiet=as_json)
        _print_image(made, as_json=as_json)
        return
    if yes:
        raise click.UsageError("--yes is for --in-account: nothing else here costs money.")
    if given["cpu"] and not build_only:
        raise click.UsageError("--cpu is for this machine alone, as SageMaker has GPUs: add --build-only.")
    how = training_image.Build(kind=ImageKind(which), **given)
    if build_only:
        made = training_image.build(how, report=report, again=again)
    else:
        aws, settings, name = _opened(region, stack_name)
        account = infra_account.show(aws, settings, name=name)
        made = training_image.publish(
            aws,
            account,
            how,
            report=report,
            again=again,
        )
    _print_image(made, as_json=as_json)


def _built_in_account(
    which: str,
    where: dict[str, str | None],
    *,
    yes: bool,
    quiet: bool,
) -> "Image":
    """Return the image of that kind, built in the account unless it is there."""
    from orchestrator.container_images import ImageKind
    from orchestrator.infra import account as infra_account
    from orchestrator.infra.builds import AccountBuild

    aws, settings, name = _opened(where["region"], where["stack_name"])
    account = infra_account.show(aws, settings, name=name)
    again = _image_command(which, where, {"in_account": True}, build_only=False)
    build = AccountBuild(
        aws,
        account,
        ImageKind(which),
        again=again,
    )
    return build_in_account(
        build,
        yes=yes,
        report=_line_printer(quiet=quiet),
        again=again,
    )


def _image_command(which: str, where: dict[str, str | None], given: dict[str, Any], *, build_only: bool) -> str:
    """Return the command as it was typed, for messages that say to repeat it."""
    words = ["infra", "image"]
    if which != _USUAL_IMAGE:
        words.append(which)
    if build_only:
        words.append("--build-only")
    for name, value in {**where, **given}.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value and value != _PLATFORM:
            words += [flag, str(value)]
    return command(*words)


@infra.command()
@_stack_options
@json_option
def show(region: str | None, stack_name: str | None, as_json: bool) -> None:
    """Show what exists in the account and what it costs.

    Also saves it as the settings of this machine.
    """
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    account = infra_account.show(aws, settings, name=name)
    _print_account(account, as_json=as_json)


@infra.command()
@_stack_options
@click.option(
    "--delete-adapters",
    is_flag=True,
    help="Delete the bucket even if it holds adapters or images.",
)
@json_option
def down(
    region: str | None,
    stack_name: str | None,
    delete_adapters: bool,
    as_json: bool,
) -> None:
    """Remove everything that `infra up` created: bucket, roles, images, key."""
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    removal = infra_account.down(
        aws,
        settings,
        name=name,
        delete_adapters=delete_adapters,
        report=_event_printer(quiet=as_json),
    )
    if as_json:
        print_json(removal.model_dump(mode="json"))
        return
    if not removal.removed:
        click.echo(f"There is no stack {name} in {aws.region}.")
        return
    click.echo(f"Removed the stack {name} and {removal.objects} object versions.")
    for thing in removal.left:
        click.echo(f"Left: {printable(thing)}")


def _opened(region: str | None, stack_name: str | None) -> tuple["Aws", "Settings", str]:
    """Return session, settings and stack name: as given, else as an earlier command saved them, else the defaults."""
    from orchestrator.aws.client import Aws
    from orchestrator.errors import MachineError
    from orchestrator.infra.account import STACK
    from orchestrator.settings import Settings

    settings = Settings.from_environment()
    settings.require_writable()  # what is made in the account is recorded here
    try:
        saved = settings.aws()
    except MachineError:  # damaged, and about to be replaced
        saved = None
    if saved is not None:
        region = region or saved.region
        stack_name = stack_name or saved.stack_name
    return Aws(region), settings, stack_name or STACK


def _parameters(given: dict[str, Any]) -> dict[str, str]:
    """Return the template's parameters for the options that were given."""
    subnets = ",".join(given["subnets"])
    groups = ",".join(given["groups"])
    if bool(subnets) != bool(groups):
        raise click.UsageError("--subnet and --security-group go together: give both, or neither.")
    values = {
        "AlarmEmail": given["alarm_email"],
        "MonthlyBudgetUsd": given["monthly_budget"],
        "Subnets": subnets or None,
        "SecurityGroups": groups or None,
        "LogDays": given["log_days"],
        "Labels": _OPTIONAL[given["labels"]],
        "Builds": _OPTIONAL[given["builds"]],
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _event_printer(*, quiet: bool) -> "Callable[[StackEvent], None]":
    def report(event: "StackEvent") -> None:
        if quiet:
            return
        local_time = event.at.astimezone()
        clock = local_time.strftime("%H:%M:%S")
        line = f"{clock}  {event.status:<28} {event.resource} ({event.kind})"
        if event.reason:
            line = f"{line}  {event.reason}"
        say(line, err=True)

    return report


def _line_printer(*, quiet: bool) -> "Callable[[str], None]":
    def report(line: str) -> None:
        if not quiet:
            say(line, err=True)

    return report


def _print_image(made: "Image", *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    if made.pushed:
        done = "Pushed"
    elif made.built:
        done = "Built"
    else:
        done = "Already there:"
    click.echo(f"{done} {printable(made.image)}")
    if made.warning:
        say(f"Warning: {made.warning}", err=True)


def _print_account(account: "AwsSettings", *, as_json: bool) -> None:
    from orchestrator.infra.account import IDLE_CHARGES

    values = account.model_dump(mode="json")
    if as_json:
        print_json({**values, "billed": [charge.model_dump() for charge in IDLE_CHARGES]})
        return
    facts = []
    for name, value in values.items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text:
            facts.append((name.replace("_", " "), text))
    print_facts(facts)
    click.echo()
    charges = [(charge.what, charge.price) for charge in IDLE_CHARGES]
    print_table(("BILLED", "PRICE"), charges, wraps=["BILLED", "PRICE"])
