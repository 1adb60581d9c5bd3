"""`infra`: what jobs need in an AWS account."""

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import json_option, print_facts, print_json, print_table
from orchestrator.contract.command_line import command
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.aws.client import Aws
    from orchestrator.infra.stack import StackEvent
    from orchestrator.infra.training_image import Image
    from orchestrator.settings import AwsSettings, Settings


@click.group()
def infra() -> None:
    """Make, show and remove what jobs on SageMaker need in your AWS account."""


def _stack_options(function: Any) -> Any:  # click's decorators take any function
    stack_name = click.option(
        "--stack-name",
        metavar="NAME",
        help="Of the CloudFormation stack; orchestrator.",
    )
    region = click.option(
        "--region",
        metavar="REGION",
        help="AWS region; that of your AWS configuration.",
    )
    return region(stack_name(function))


@infra.command()
@_stack_options
@click.option(
    "--alarm-email",
    metavar="EMAIL",
    help="Who is told when the month's bill nears the budget.",
)
@click.option(
    "--monthly-budget",
    metavar="USD",
    type=click.IntRange(1),
    help="Dollars a month for the alarm; 50.",
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
    help="Days log lines are kept; 90.",
)
@json_option
def up(region: str | None, stack_name: str | None, as_json: bool, **given: Any) -> None:
    """Make what jobs need, or bring it up to date. Idempotent.

    What an option set before stays when the option is left out.
    """
    from orchestrator.infra import account as infra_account
    from orchestrator.infra.training_image import is_missing

    aws, settings, name = _opened(region, stack_name)
    account = infra_account.up(
        aws,
        settings,
        _parameters(given),
        name=name,
        told=_telling(quiet=as_json),
    )
    _print_account(account, as_json=as_json)
    if not as_json and is_missing(aws, account):
        click.echo(f"\nNext: {command('infra', 'image')}  (it builds the image that jobs run in)")


@infra.command()
@_stack_options
@click.option(
    "--build-only",
    is_flag=True,
    help="Build it for this machine and push nothing; needs no account.",
)
@click.option(
    "--platform",
    metavar="OS/ARCH",
    default="linux/amd64",
    help="What it runs on; linux/amd64.",
)
@json_option
def image(
    region: str | None,
    stack_name: str | None,
    build_only: bool,
    platform: str,
    as_json: bool,
) -> None:
    """Build the image that jobs run in with docker and push it. Idempotent.

    It holds Python and the libraries of training; each job brings its own code.
    """
    from orchestrator.infra import account as infra_account
    from orchestrator.infra import training_image

    told = _telling_lines(quiet=as_json)
    if build_only:
        made = training_image.build(platform=platform, told=told)
    else:
        aws, settings, name = _opened(region, stack_name)
        account = infra_account.show(aws, settings, name=name)
        made = training_image.publish(aws, account, platform=platform, told=told)
    _print_image(made, as_json=as_json)


@infra.command()
@_stack_options
@json_option
def show(region: str | None, stack_name: str | None, as_json: bool) -> None:
    """Show what there is and what is billed for it, and note it on this machine."""
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    account = infra_account.show(aws, settings, name=name)
    _print_account(account, as_json=as_json)


@infra.command()
@_stack_options
@click.option(
    "--delete-adapters",
    is_flag=True,
    help="Delete the bucket also with adapters in it.",
)
@json_option
def down(
    region: str | None,
    stack_name: str | None,
    delete_adapters: bool,
    as_json: bool,
) -> None:
    """Remove everything `infra up` made: bucket, roles, images, key."""
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    told = _telling(quiet=as_json)
    removal = infra_account.down(
        aws,
        settings,
        name=name,
        delete_adapters=delete_adapters,
        told=told,
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
    """Return a session and the stack's name: as given, else as noted by an earlier command, else the usual ones."""
    from orchestrator.aws.client import Aws
    from orchestrator.errors import MachineError
    from orchestrator.infra.account import STACK
    from orchestrator.settings import Settings

    settings = Settings.from_environment()
    try:
        noted = settings.aws()
    except MachineError:  # it cannot be read, and is about to be written again
        noted = None
    if noted is not None:
        region = region or noted.region
        stack_name = stack_name or noted.stack_name
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
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _telling(*, quiet: bool) -> Any:  # a function of an event
    def tell(event: "StackEvent") -> None:
        if quiet:
            return
        clock = event.at.astimezone().strftime("%H:%M:%S")
        line = f"{clock}  {event.status:<28} {event.resource} ({event.kind})"
        if event.reason:
            line = f"{line}  {event.reason}"
        click.echo(printable(line), err=True)

    return tell


def _telling_lines(*, quiet: bool) -> Any:  # a function of a line
    def tell(line: str) -> None:
        if not quiet:
            click.echo(printable(line), err=True)

    return tell


def _print_image(made: "Image", *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    if made.pushed:
        done = "Pushed"
    elif made.built:
        done = "Built"
    else:
        done = "There already:"
    click.echo(f"{done} {printable(made.image)}")
    if made.warning:
        click.echo(f"Warning: {printable(made.warning)}", err=True)


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
    print_table(("BILLED", "PRICE"), [(charge.what, charge.price) for charge in IDLE_CHARGES])
