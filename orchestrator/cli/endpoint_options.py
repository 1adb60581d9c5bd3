"""What the commands of endpoints have in common: options, and a deployment out of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import adapter_lists, endpoint_names, folders
from orchestrator.cli.durations import DURATION
from orchestrator.endpoints.names import HostName, Mode

if TYPE_CHECKING:
    from orchestrator.endpoints.deployment import Deployment
    from orchestrator.endpoints.hosts import EndpointDescription, Host

_NUMBERS = ("fewest_instances", "most_instances")
_OPTIONS = {
    "name": "NAME",
    "host": "--host",
    "mode": "--mode",
    "base_model": "--base-model",
    "base_revision": "--base-revision",
    "adapters": "--adapters",
    "instance_type": "--instance-type",
    "fewest_instances": "--instances",
    "most_instances": "--instances",
    "slots": "--slots",
    "safety_checker": "--safety-checker",
    "lease.ttl_seconds": "--ttl",
    "lease.idle_seconds": "--idle",
    "lease.max_usd_per_day": "--max-usd-per-day",
}
"""Fields of a deployment, and the options that set them."""


class Instances(click.ParamType[tuple[int, int]]):
    """MIN:MAX, or one number for both."""

    name = "instances"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers."""
        if isinstance(value, tuple):
            return value
        fewest, colon, most = str(value).partition(":")
        texts = (fewest, most if colon else fewest)
        if not all(text.isascii() and text.isdecimal() for text in texts):
            self.fail(f'"{value}" is no number of instances; write 1:4, or 2', param, ctx)
        return int(texts[0]), int(texts[1])


INSTANCES = Instances()

_SETTINGS = (
    click.option(
        "--base-model", metavar="MODEL", shell_complete=folders, help="builtin, a folder, or a Hugging Face id."
    ),
    click.option("--base-revision", metavar="R", help="Commit or branch of a model of the Hub."),
    click.option(
        "--adapters",
        metavar="A,B",
        multiple=True,
        shell_complete=adapter_lists,
        help="Names of the adapters that it knows, with commas between them.",
    ),
    click.option(
        "--instance-type", metavar="TYPE", help="On SageMaker: ml.g5.xlarge, ...; the cheapest when left out."
    ),
    click.option("--instances", type=INSTANCES, metavar="MIN:MAX", help="On SageMaker: instances to scale between."),
    click.option("--slots", type=int, help="Adapters of each rank that are drawn with at the same time."),
    click.option(
        "--safety-checker/--no-safety-checker",
        default=None,
        help="Say of each image if the base model's safety checker flags it, where it has one; it does when left out.",
    ),
    click.option("--ttl", type=DURATION, metavar="8h", help="Time after which it may be deleted: 30m, 8h, 2d, never."),
    click.option("--idle", type=DURATION, metavar="30m", help="Time without a request after which it may be deleted."),
    click.option("--max-usd-per-day", type=float, metavar="USD", help="Refuse what may cost more in a day."),
)
_PLANNING = (
    click.option("--dry-run", is_flag=True, help="Show what would be created and its cost; create nothing."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask before money is spent."),
    click.option("--detach", is_flag=True, help="Do not wait until it is in service."),
)


def deployment_options(function: Any) -> Any:  # click's decorators take any function
    """Decorate a command with the settings of a deployment, and how it is begun."""
    for option in reversed((*_SETTINGS, *_PLANNING)):
        function = option(function)
    return function


def endpoint_argument(function: Any) -> Any:
    """Decorate a command with the name of an endpoint, and the host to look on."""
    return click.argument("name", shell_complete=endpoint_names)(host_option(function))


def host_option(function: Any) -> Any:
    """Decorate a command with the host that an endpoint is looked for on."""
    choice = click.option(
        "--host",
        type=click.Choice([host.value for host in HostName]),
        help="Where to look for it; first on this machine.",
    )
    return choice(function)


def mode_option(function: Any) -> Any:
    """Decorate a command with how the endpoint is called."""
    choice = click.option(
        "--mode", type=click.Choice([mode.value for mode in Mode]), help="On SageMaker: how it is called."
    )
    return choice(function)


def listed(texts: Sequence[str]) -> list[str]:
    """Return names that were typed with commas between them, each once."""
    names = []
    for text in texts:
        names += [name.strip() for name in text.split(",")]
    return [name for name in dict.fromkeys(names) if name]


def fields_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a deployment that were typed."""
    fields = {name: value for name, value in given.items() if value is not None and name in _OPTIONS}
    if given.get("adapters"):
        fields["adapters"] = listed(given["adapters"])
    else:
        fields.pop("adapters", None)
    if given.get("instances") is not None:
        fields.update(zip(_NUMBERS, given["instances"], strict=True))
    lease = {}
    for option, field in (("ttl", "ttl_seconds"), ("idle", "idle_seconds")):
        if given.get(option) is not None:
            lease[field] = given[option] or None
    if given.get("max_usd_per_day") is not None:
        lease["max_usd_per_day"] = given["max_usd_per_day"]
    if lease:
        fields["lease"] = lease
    return fields


def deployment_of(fields: Mapping[str, Any], undone: str) -> "Deployment":
    """Return the deployment of some fields; raises SpecError, which names the options."""
    from pydantic import ValidationError

    from orchestrator.contract.command_line import command
    from orchestrator.contract.problem import problems_of
    from orchestrator.endpoints.deployment import Deployment
    from orchestrator.errors import SpecError

    try:
        return Deployment.model_validate(fields)
    except ValidationError as error:
        problems = []
        for problem in problems_of(error, whole="deploy"):
            option = _OPTIONS.get(problem.where, problem.where)
            problems.append(problem.model_copy(update={"where": option}))
        raise SpecError(undone, problems=problems, next_step=command("deploy", "--help")) from error


def hosts(named: str | None) -> "list[Host]":
    """Return the host that was named, or all that can be used."""
    from orchestrator.cli.output import print_warning
    from orchestrator.endpoints.opening import open_host, open_hosts
    from orchestrator.settings import Settings

    settings = Settings.from_environment()
    if named is None:
        return open_hosts(settings, print_warning)
    return [open_host(HostName(named), settings, print_warning)]


def find(name: str, host: str | None) -> "tuple[Host, EndpointDescription]":
    """Return an endpoint and its host; raises EndpointError, with a suggestion, when there is none."""
    from orchestrator.endpoints.finding import find_endpoint

    return find_endpoint(name, hosts(host))
