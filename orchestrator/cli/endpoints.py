"""`endpoints`: the servers that were deployed, on this machine and in the account."""

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import adapter_lists, adapters_of_endpoint
from orchestrator.cli.endpoint_options import (
    INSTANCES,
    deployment_of,
    deployment_options,
    endpoint_argument,
    fields_of,
    find,
    hosts,
    listed,
)
from orchestrator.cli.output import json_option, print_json, print_table, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.endpoints.names import HostName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.endpoints.deployment import Deployment
    from orchestrator.endpoints.hosts import EndpointDescription


@click.group()
def endpoints() -> None:
    """List, show, update, scale and delete endpoints."""


@endpoints.command("list")
@click.option(
    "--host", type=click.Choice([host.value for host in HostName]), help="Where to look; everywhere when left out."
)
@json_option
def list_endpoints(host: str | None, as_json: bool) -> None:
    """List the endpoints of this machine and of the account."""
    from orchestrator.cli.deploying import endpoint_json

    found = _summaries(host)
    if as_json:
        print_json([endpoint_json(endpoint) for endpoint in found])
        return
    if not found:
        say(f"No endpoints yet. Begin with: {command('deploy', 'NAME')}")
        return
    rows = []
    for endpoint in found:
        price = "-" if endpoint.usd_per_hour is None else f"${endpoint.usd_per_hour:.2f}/h"
        status = f"{endpoint.status.value}, expired" if endpoint.expired else endpoint.status.value
        where = endpoint.region or endpoint.host.value
        rows.append((endpoint.name, status, where, endpoint.base_model, str(len(endpoint.adapters)), price))
    print_table(("ENDPOINT", "STATUS", "HOST", "BASE MODEL", "ADAPTERS", "COST"), rows)
    if any(endpoint.expired for endpoint in found):
        say(
            f"The time of those that are expired is over; delete them: {command('endpoints', 'gc')}",
            err=True,
        )


def _summaries(host: str | None) -> "list[EndpointDescription]":
    """Return the endpoints of some hosts; a damaged one or an unreachable host hides no other."""
    from orchestrator.errors import OrchestratorError

    found: list[EndpointDescription] = []
    for one in hosts(host):
        try:
            for summary in one.summaries():
                if isinstance(summary, OrchestratorError):
                    print_warning(summary)
                else:
                    found.append(summary)
        except OrchestratorError as error:
            print_warning(error)
    return found


@endpoints.command()
@endpoint_argument
@json_option
def show(name: str, host: str | None, as_json: bool) -> None:
    """Show an endpoint: its state, its adapters, what it costs, and when it ends."""
    from orchestrator.cli.deploying import show as show_endpoint

    _, found = find(name, host)
    show_endpoint(found, as_json=as_json)


@endpoints.command()
@endpoint_argument
@click.option("-f", "--follow", is_flag=True, help="Print new lines until it ends.")
@json_option
def logs(
    name: str,
    host: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print what the server of an endpoint logged; with --json each line as it is in a JSON string."""
    import json

    from orchestrator.cli.log_line import log_text
    from orchestrator.cli.program import as_called

    chosen, _ = find(name, host)
    is_empty = True
    for line in chosen.log_lines(name, follow=follow):
        is_empty = False
        click.echo(json.dumps(line) if as_json else as_called(log_text(line)))
    if is_empty:
        say(f"{name} has logged nothing yet.", err=True)


@endpoints.command()
@endpoint_argument
@click.option("--add", metavar="A,B", multiple=True, shell_complete=adapter_lists, help="Adapters that it learns.")
@click.option(
    "--remove", metavar="A,B", multiple=True, shell_complete=adapters_of_endpoint, help="Adapters that it forgets."
)
@deployment_options
@json_option
def update(
    name: str,
    host: str | None,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Change an endpoint; what is not named stays as it is.

    Adapters change without a restart. For anything else a new server is started, and takes over once it serves.

    \b
    endpoints update mine --add cat --remove dog
    endpoints update mine --ttl 8h --slots 32
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.deploying import Begin, begin

    chosen, _ = find(name, host)
    fields = fields_of(given)
    changed = _changed(
        chosen.deployment(name),
        fields,
        listed(add),
        listed(remove),
    )
    is_same_base = not {"base_model", "base_revision"} & fields.keys()
    begin(
        chosen,
        changed,
        Begin.of(given, as_json=as_json),
        keeps_base=is_same_base,
    )


def _changed(
    known: "Deployment", fields: dict[str, Any], add: "Sequence[str]", remove: "Sequence[str]"
) -> "Deployment":
    """Return a deployment with what was typed; raises SpecError for an adapter to remove that it does not have."""
    from orchestrator.contract.problem import did_you_mean
    from orchestrator.errors import SpecError

    lease = {**known.lease.model_dump(), **fields.pop("lease", {})}
    values = {**known.model_dump(), **fields, "lease": lease}
    adapters = [*values["adapters"], *add]
    for name in remove:
        if name not in adapters:
            hint = did_you_mean(name, adapters)
            message = f'{known.name} has no adapter "{name}"; {hint}'.rstrip("; ")
            raise SpecError(
                f"Nothing was changed: {message}",
                next_step=command("endpoints", "show", known.name),
            )
    values["adapters"] = [name for name in dict.fromkeys(adapters) if name not in remove]
    return deployment_of(values, "Nothing was changed.")


@endpoints.command()
@endpoint_argument
@click.argument(
    "instances",
    type=INSTANCES,
    metavar="MIN:MAX",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before money is spent.")
@json_option
def scale(
    name: str,
    host: str | None,
    instances: tuple[int, int],
    yes: bool,
    as_json: bool,
) -> None:
    """Change the numbers of instances that an endpoint scales between. SageMaker only."""
    from orchestrator.cli.deploying import ask_to_grow
    from orchestrator.cli.deploying import show as show_endpoint

    chosen, found = find(name, host)
    fewest, most = instances
    ask_to_grow(found, most, yes=yes)
    chosen.scale(name, fewest, most)
    show_endpoint(chosen.describe(name), as_json=as_json)


@endpoints.command()
@endpoint_argument
@click.option("--keep-logs", is_flag=True, help="On SageMaker: leave what its servers logged in CloudWatch.")
@json_option
def delete(
    name: str,
    host: str | None,
    keep_logs: bool,
    as_json: bool,
) -> None:
    """Delete an endpoint and everything that was created for it; requests that it has admitted are answered first."""
    from orchestrator.endpoints.local.host import LocalHost
    from orchestrator.errors import EndpointError

    try:
        chosen, _ = find(name, host)
    except EndpointError:
        damaged = [one for one in hosts(host) if isinstance(one, LocalHost) and one.has(name)]
        if not damaged:
            raise
        chosen = damaged[0]
    gone = chosen.delete(name, keep_logs=keep_logs)
    _print_gone(gone, as_json=as_json)


@endpoints.command()
@click.option(
    "--host", type=click.Choice([host.value for host in HostName]), help="Where to look; everywhere when left out."
)
@json_option
def gc(host: str | None, as_json: bool) -> None:
    """Delete the endpoints whose time is over (--ttl, --idle), and what interrupted commands left; finish deployments.

    An endpoint of SageMaker for which nobody waited (--detach, Ctrl-C) gets its components and its scaling here, a
    step each time; one that failed before it ever served is deleted after three hours.
    """
    from orchestrator.errors import OrchestratorError

    gone: list[str] = []
    advanced: list[EndpointDescription] = []
    failed = []
    for one in hosts(host):
        try:
            gone += one.collect()
            advanced += one.finish()
        except OrchestratorError as error:
            failed.append(error)
    if gone or advanced or not failed:
        _print_collected(gone, advanced, as_json=as_json)
    if failed:
        raise failed[0]


def _print_collected(
    gone: "Sequence[str]",
    advanced: "Sequence[EndpointDescription]",
    *,
    as_json: bool,
) -> None:
    finished = [one.name for one in advanced if one.finished]
    waiting = [one for one in advanced if not one.finished]
    if as_json:
        print_json({"deleted": list(gone), "finished": finished, "unfinished": [one.name for one in waiting]})
        return
    if gone or not advanced:
        _print_gone(gone, as_json=False)
    for name in finished:
        say(f"finished: endpoint {name}")
    for one in waiting:
        say(f"not finished yet: endpoint {one.name}, {one.status.value}; {one.next_step}")


def _print_gone(gone: "Sequence[str]", *, as_json: bool) -> None:
    if as_json:
        print_json({"deleted": list(gone)})
        return
    if not gone:
        say("There was nothing to delete.")
    for what in gone:
        say(f"deleted: {what}")
