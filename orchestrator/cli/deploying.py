"""From a deployment to an endpoint in service: the plan, the question, the wait."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from orchestrator.cli.job_options import ask_to_spend
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.contract.command_line import command
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.hosts import DeploymentPlan, EndpointDescription, EndpointStatus, Host
from orchestrator.endpoints.leases import duration_text
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError

_WAIT_SECONDS = {HostName.LOCAL: 1800.0, HostName.SAGEMAKER: 3600.0}
"""A large model has to be fetched, and on SageMaker also the image."""
_HOURS = 24


class Begin(NamedTuple):
    """How a deployment is begun and shown."""

    dry_run: bool
    yes: bool
    detach: bool
    as_json: bool

    @classmethod
    def of(cls, given: Mapping[str, Any], *, as_json: bool) -> "Begin":
        """Return how options say it."""
        return cls(given["dry_run"], given["yes"], given["detach"], as_json)


def begin(host: Host, deployment: Deployment, how: Begin) -> None:
    """Plan a deployment, show it, ask before money is spent, deploy it, and wait until it is in service."""
    plan = host.plan(deployment)
    if how.dry_run:
        _show_plan(plan, as_json=how.as_json)
        if not how.as_json:
            say("Nothing was deployed. Without --dry-run this deploys it.", err=True)
        return
    if not how.as_json:
        _show_plan(plan, as_json=False)
    if deployment.host is not HostName.LOCAL:
        capped = deployment.lease.max_usd_per_day is not None
        ask_to_spend("Deploy it?", yes=how.yes, capped=capped, what="An endpoint", cap="--max-usd-per-day")
    found = host.deploy(plan)
    if not how.detach:
        found = _wait(host, found)
    show(found, as_json=how.as_json)


def _wait(host: Host, found: EndpointDescription) -> EndpointDescription:
    """Wait until an endpoint is in service; raises EndpointError when it fails or takes too long."""
    if found.status in (EndpointStatus.CREATING, EndpointStatus.UPDATING):
        say(f"{found.name} is starting; with Ctrl-C it goes on, and this command waits no longer.", err=True)
    seconds = _WAIT_SECONDS[found.host]
    found = host.wait_until_in_service(found.name, seconds)
    logs = command("endpoints", "logs", found.name)
    if found.status in (EndpointStatus.CREATING, EndpointStatus.UPDATING):
        message = f"{found.name} is not in service after {seconds / 60:g} minutes, and goes on starting."
        raise EndpointError(message, next_step=logs)
    if found.failure_reason is not None or found.status is not EndpointStatus.IN_SERVICE:
        why = found.failure_reason or f"Its status is {found.status.value}."
        raise EndpointError(f"{found.name}: {why}", next_step=found.next_step or logs)
    return found


def _show_plan(plan: DeploymentPlan, *, as_json: bool) -> None:
    if not as_json:
        print_facts(plan.facts)
        click.echo()
        return
    print_json(
        {
            "deployment": plan.deployment.model_dump(mode="json"),
            "facts": dict(plan.facts),
            "usd_per_hour": plan.usd_per_hour,
        }
    )


def show(found: EndpointDescription, *, as_json: bool) -> None:
    """Print an endpoint."""
    if as_json:
        print_json(endpoint_json(found))
        return
    print_facts(endpoint_facts(found))


def endpoint_json(found: EndpointDescription) -> dict[str, Any]:
    """Return an endpoint as the value that --json prints."""
    return found.model_dump(mode="json")


def endpoint_facts(found: EndpointDescription) -> Sequence[tuple[str, str]]:
    """Return all that is known of an endpoint."""
    facts = [
        ("endpoint", found.name),
        ("status", found.status.value),
        ("host", found.region or found.host.value),
        ("mode", found.mode.value),
        ("base model", found.base_model),
        ("adapters", ", ".join(found.adapters) or "none"),
        ("created", _moment(found.created)),
    ]
    facts += _running_facts(found)
    if found.expired is not None:
        facts.append(("note", f"may be deleted, because {found.expired}: {command('endpoints', 'gc')}"))
    if found.failure_reason is not None:
        facts.append(("why", found.failure_reason))
    if found.next_step is not None:
        facts.append(("next", found.next_step))
    elif found.status is EndpointStatus.IN_SERVICE:
        facts.append(("draw", f"{command('generate', found.name)} --prompt 'a photo of ...'{_adapter_option(found)}"))
    return facts


def _running_facts(found: EndpointDescription) -> list[tuple[str, str]]:
    """Return what is known of the servers of an endpoint, what they cost and when they end."""
    facts = []
    if found.last_used is not None:
        facts.append(("last used", _moment(found.last_used)))
    if found.url is not None:
        facts.append(("listens on", found.url))
    if found.instance_type is not None:
        facts.append(("instance", f"{found.instances} x {found.instance_type}"))
    if found.usd_per_hour is not None:
        day = found.usd_per_hour * _HOURS
        facts.append(("cost", f"${found.usd_per_hour:.2f} an hour, ${day:.2f} a day"))
    lease = found.lease
    for label, seconds in (("ends after", lease.ttl_seconds), ("ends when idle", lease.idle_seconds)):
        if seconds is not None:
            facts.append((label, duration_text(seconds)))
    return facts


def _adapter_option(found: EndpointDescription) -> str:
    if not found.adapters:
        return ""
    return f" --adapter {found.adapters[0]}"


def _moment(moment: datetime) -> str:
    """Return a time here, and how long ago it was."""
    local = moment.astimezone()
    seconds = max(0, round((datetime.now(UTC) - moment).total_seconds()))
    ago = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"  # noqa: PLR2004
    return f"{local:%Y-%m-%d %H:%M} ({ago} ago)"
