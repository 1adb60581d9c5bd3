"""From a deployment to an endpoint in service: the plan, the question, the wait."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from orchestrator.cli.job_options import ask_to_spend
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.hosts import DeploymentPlan, EndpointDescription, EndpointStatus, Host
from orchestrator.endpoints.leases import duration_text
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError
from orchestrator.planning.hosting import find_hosting

_WAIT_SECONDS = {HostName.LOCAL: 1800.0, HostName.CONTAINER: 1800.0, HostName.SAGEMAKER: 3600.0}
"""A large model has to be fetched, and on SageMaker also the image."""
_STARTING = (EndpointStatus.CREATING, EndpointStatus.UPDATING)
_HOURS = 24
_TWO_MINUTES = 120

_UNFINISHED = f"Scaling and components are set up only once it is in service: then run {command('endpoints', 'gc')}"
"""Of an endpoint on SageMaker for which nobody waits; one that may scale to zero is billed until then."""

Facts = list[tuple[str, str]]
"""Labels and values."""


class Begin(NamedTuple):
    """How a deployment is begun and shown."""

    dry_run: bool
    yes: bool
    detach: bool
    as_json: bool

    @classmethod
    def of(cls, given: Mapping[str, Any], *, as_json: bool) -> "Begin":
        """Return how options say it."""
        return cls(
            given["dry_run"],
            given["yes"],
            given["detach"],
            as_json,
        )


def begin(
    host: Host,
    deployment: Deployment,
    how: Begin,
    *,
    keeps_base: bool = False,
) -> None:
    """Plan a deployment, show it, ask before money is spent, deploy it, and wait until it is in service."""
    plan = host.plan(deployment, keeps_base=keeps_base)
    if how.dry_run:
        _show_plan(plan, as_json=how.as_json)
        if not how.as_json:
            say(
                "Nothing was deployed. Without --dry-run this deploys it.",
                err=True,
            )
        return
    if not how.as_json:
        _show_plan(plan, as_json=False)
    if not deployment.host.is_here:
        limit = deployment.lease.max_usd_per_day
        ask_to_spend(
            "Deploy it?",
            yes=how.yes,
            capped=limit is not None,
            what="An endpoint",
            cap="--max-usd-per-day",
        )
    found = host.deploy(plan)
    if not how.detach:
        found = _wait(host, found)
    elif not found.host.is_here:
        say(_UNFINISHED, err=True)
    show(found, as_json=how.as_json)


def ask_to_grow(found: EndpointDescription, most: int, *, yes: bool) -> None:
    """Ask before an endpoint may have more instances than run now, with what they cost; raises SpecError or Exit."""
    running = found.instances or 0
    if found.host.is_here or most <= running:
        return
    price = counted(most, "instance")
    if found.instance_type is not None and found.region is not None:
        hosting = find_hosting(None, found.instance_type, found.region)
        price = hosting.price_of(most)
    limit = command("endpoints", "update", found.name, "--max-usd-per-day")
    capped = found.lease.max_usd_per_day is not None
    ask_to_spend(
        f"At most {price}. Scale it?",
        yes=yes,
        capped=capped,
        what="An endpoint",
        cap=f"a limit with {limit}",
    )


def _wait(host: Host, found: EndpointDescription) -> EndpointDescription:
    """Wait until an endpoint is in service; raises EndpointError when it fails or takes too long."""
    if found.status in _STARTING:
        shown = command("endpoints", "show", found.name)
        waits = f"{found.name} is starting; with Ctrl-C it goes on, and this command waits no longer ({shown})."
        if not found.host.is_here:
            waits = f"{waits} {_UNFINISHED}"
        say(waits, err=True)
    seconds = _WAIT_SECONDS[found.host]
    found = host.wait_until_in_service(found.name, seconds)
    logs = command(
        "endpoints",
        "logs",
        found.name,
    )
    if found.status in _STARTING:
        minutes = seconds / 60
        message = f"{found.name} is not in service after {minutes:g} minutes, and goes on starting."
        raise EndpointError(message, next_step=logs)
    if found.failure_reason is not None or found.status is not EndpointStatus.IN_SERVICE:
        why = found.failure_reason or f"Its status is {found.status.value}."
        raise EndpointError(
            f"{found.name}: {why}",
            next_step=found.next_step or logs,
        )
    return found


def _show_plan(plan: DeploymentPlan, *, as_json: bool) -> None:
    if not as_json:
        print_facts(plan.facts)
        click.echo()
        return
    value = {
        "deployment": plan.deployment.model_dump(mode="json"),
        "facts": dict(plan.facts),
        "usd_per_hour": plan.usd_per_hour,
    }
    print_json(value)


def show(found: EndpointDescription, *, as_json: bool) -> None:
    """Print an endpoint."""
    if as_json:
        print_json(endpoint_json(found))
        return
    print_facts(endpoint_facts(found))


def endpoint_json(found: EndpointDescription) -> dict[str, Any]:
    """Return an endpoint as the value that --json prints."""
    return found.model_dump(mode="json")


def endpoint_facts(found: EndpointDescription) -> Facts:
    """Return all that is known of an endpoint."""
    adapters = ", ".join(found.adapters)
    facts = [
        ("endpoint", found.name),
        ("status", found.status.value),
        ("host", found.region or found.host.value),
        ("mode", found.mode.value),
        ("base model", found.base_model),
        ("adapters", adapters or "none"),
        ("created", _moment(found.created)),
    ]
    if found.last_used is not None:
        facts.append(("last used", _moment(found.last_used)))
    if found.url is not None:
        facts.append(("listens on", found.url))
    facts += _cost_facts(found)
    if found.failure_reason is not None:
        facts.append(("why", found.failure_reason))
    if found.next_step is not None:
        facts.append(("next", found.next_step))
    elif found.status is EndpointStatus.IN_SERVICE:
        facts.append(("draw", _example(found)))
    return facts


def _cost_facts(found: EndpointDescription) -> Facts:
    """Return what the instances of an endpoint cost, and when that ends."""
    facts = []
    lease = found.lease
    if found.instance_type is not None:
        facts.append(("instance", f"{found.instances} x {found.instance_type}"))
    hour = found.usd_per_hour
    if hour is not None:
        day = hour * _HOURS
        facts.append(("cost", f"${hour:.2f} an hour, ${day:.2f} a day"))
    if lease.ttl_seconds is not None:
        facts.append(("ends after", duration_text(lease.ttl_seconds)))
    if lease.idle_seconds is not None:
        facts.append(("ends when idle", duration_text(lease.idle_seconds)))
    if found.expired is not None:
        collect = command("endpoints", "gc")
        facts.append(("note", f"may be deleted, because {found.expired}: {collect}"))
    return facts


def _example(found: EndpointDescription) -> str:
    """Return a command that draws on an endpoint."""
    words = ["generate", found.name, "--prompt", "a photo of ..."]
    if found.adapters:
        words += ["--adapter", found.adapters[0]]
    return command(*words)


def _moment(moment: datetime) -> str:
    """Return a time here, and how long ago it was."""
    local = moment.astimezone()
    age = datetime.now(UTC) - moment
    seconds = max(0, round(age.total_seconds()))
    ago = f"{seconds} s"
    if seconds >= _TWO_MINUTES:
        ago = f"{seconds // 60} min"
    return f"{local:%Y-%m-%d %H:%M} ({ago} ago)"
