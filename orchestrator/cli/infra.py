"""`infra`: what jobs need in an AWS account."""

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import json_option, print_facts, print_json, print_table
from orchestrator.terminal import printable

if TYPE_CHECKING:
    from orchestrator.aws.client import Aws
    from orchestrator.infra.stack import StackEvent
    from orchestrator.infra.training_image import Image
    from orchestrator.settings import AwsSettings, Settings


@click.group()
def infra() -> None:
    """Make, show and remove what jobs on SageMaker need in your AWS account."""


def _stack_options(command: Any) -> Any:  # click's decorators take any function
    command = click.option("--stack-name", metavar="NAME", help="Of the CloudFormation stack; orchestrator.")(command)
    return click.option("--region", metavar="REGION", help="AWS region; that of your AWS configuration.")(command)


@infra.command()
@_stack_options
@click.option("--alarm-email", metavar="EMAIL", help="Who is told when the month's bill nears the budget.")
@click.option("--monthly-budget", metavar="USD", type=click.IntRange(1), help="Dollars a month for the alarm; 50.")
@click.option("--subnet", "subnets", metavar="ID", multiple=True, help="Subnet jobs run in; can be repeated.")
@click.option(
    "--security-group", "groups", metavar="ID", multiple=True, help="Security group of jobs; can be repeated."
)
@click.option("--log-days", metavar="DAYS", type=int, help="Days log lines are kept; 90.")
@json_option
def up(region: str | None, stack_name: str | None, as_json: bool, **given: Any) -> None:
    """Make what jobs need, or bring it up to date; it is safe to say this twice.

    What an option set before stays when the option is left out.
    """
    from orchestrator.infra import account as infra_account
    from orchestrator.infra.training_image import is_missing

    aws, settings, name = _opened(region, stack_name)
    account = infra_account.up(aws, settings, _parameters(given), name=name, told=_telling(quiet=as_json))
    _print_account(account, as_json=as_json)
    if not as_json and is_missing(aws, account):
        click.echo("\nNext: python -m orchestrator infra image  (it builds the image that jobs run in)")


@infra.command()
@_stack_options
@click.option("--build-only", is_flag=True, help="Build it for this machine and push nothing; needs no account.")
@click.option("--platform", metavar="OS/ARCH", default="linux/amd64", help="What it runs on; linux/amd64.")
@json_option
def image(region: str | None, stack_name: str | None, build_only: bool, platform: str, as_json: bool) -> None:
    """Build the image that jobs run in with docker and push it; it is safe to say this twice.

    It holds Python and the libraries of training; each job brings its own code.
    """
    from orchestrator.infra import account as infra_account
    from orchestrator.infra import training_image

    told = _telling_lines(quiet=as_json)
    if build_only:
        made = training_image.build(platform=platform, told=told)
    else:
        aws, settings, name = _opened(region, stack_name)
        made = training_image.publish(aws, infra_account.show(aws, settings, name=name), platform=platform, told=told)
    _print_image(made, as_json=as_json)


@infra.command()
@_stack_options
@json_option
def show(region: str | None, stack_name: str | None, as_json: bool) -> None:
    """Show what there is and what is billed for it, and note it on this machine."""
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    _print_account(infra_account.show(aws, settings, name=name), as_json=as_json)


@infra.command()
@_stack_options
@click.option("--delete-adapters", is_flag=True, help="Delete the bucket also with adapters in it.")
@json_option
def down(region: str | None, stack_name: str | None, delete_adapters: bool, as_json: bool) -> None:
    """Remove everything `infra up` made: bucket, roles, images, key."""
    from orchestrator.infra import account as infra_account

    aws, settings, name = _opened(region, stack_name)
    told = _telling(quiet=as_json)
    removal = infra_account.down(aws, settings, name=name, delete_adapters=delete_adapters, told=told)
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
    except MachineError:  # what was noted is noted anew
        noted = None
    aws = Aws(region or (noted.region if noted else None))
    return aws, settings, stack_name or (noted.stack_name if noted else STACK)


def _parameters(given: dict[str, Any]) -> dict[str, str]:
    """Return the template's parameters for the options that were given."""
    values = {
        "AlarmEmail": given["alarm_email"],
        "MonthlyBudgetUsd": given["monthly_budget"],
        "Subnets": ",".join(given["subnets"]) or None,
        "SecurityGroups": ",".join(given["groups"]) or None,
        "LogDays": given["log_days"],
    }
    if bool(values["Subnets"]) != bool(values["SecurityGroups"]):
        raise click.UsageError("--subnet and --security-group go together: give both, or neither.")
    return {name: str(value) for name, value in values.items() if value is not None}


def _telling(*, quiet: bool) -> Any:  # a function of an event
    def tell(event: "StackEvent") -> None:
        if quiet:
            return
        reason = f"  {event.reason}" if event.reason else ""
        line = f"{event.at.astimezone():%H:%M:%S}  {event.status:<28} {event.resource} ({event.kind}){reason}"
        click.echo(printable(line), err=True)

    return tell


def _telling_lines(*, quiet: bool) -> Any:  # a function of a line
    return lambda line: None if quiet else click.echo(printable(line), err=True)


def _print_image(made: "Image", *, as_json: bool) -> None:
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    done = "Pushed" if made.pushed else "Built" if made.built else "There already:"
    click.echo(f"{done} {printable(made.image)}")
    if made.warning:
        click.echo(f"Warning: {printable(made.warning)}", err=True)


def _print_account(account: "AwsSettings", *, as_json: bool) -> None:
    from orchestrator.infra.account import BILLED

    values = account.model_dump(mode="json")
    if as_json:
        print_json({**values, "billed": [bill.model_dump() for bill in BILLED]})
        return
    facts = [(name.replace("_", " "), value) for name, value in values.items() if value]
    print_facts([(name, ", ".join(value) if isinstance(value, list) else value) for name, value in facts])
    click.echo()
    print_table(("BILLED", "PRICE"), [(bill.what, bill.price) for bill in BILLED])
