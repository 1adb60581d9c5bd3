"""Find an endpoint by its name, whichever host it runs on."""

from collections.abc import Iterable, Sequence

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import did_you_mean
from orchestrator.endpoints.hosts import EndpointDescription, Host
from orchestrator.errors import EndpointError, OrchestratorError


class NoEndpointError(EndpointError):
    """No endpoint has the name."""


def no_endpoint(name: str, known: Iterable[str]) -> NoEndpointError:
    """Return the error for a name that no endpoint has, with the closest name."""
    message = f'There is no endpoint "{name}"'
    names = sorted(known)
    hint = did_you_mean(name, names)
    if hint:
        return NoEndpointError(
            f"{message}; {hint}",
            next_step=command("endpoints", "list"),
        )
    if names:
        return NoEndpointError(
            f"{message}.",
            next_step=command("endpoints", "list"),
        )
    return NoEndpointError(
        f"{message}; nothing is deployed.",
        next_step=command("deploy", name),
    )


def find_endpoint(name: str, hosts: Sequence[Host]) -> tuple[Host, EndpointDescription]:
    """Return an endpoint and the first of the hosts that runs it.

    Raises EndpointError, with a suggestion, when none does, and what a host raises that cannot be asked.
    """
    refusals: list[OrchestratorError] = []
    for host in hosts:
        try:
            return host, host.describe(name)
        except OrchestratorError as error:
            refusals.append(error)
    for refusal in refusals:
        if len(refusals) == 1 or not isinstance(refusal, NoEndpointError):
            raise refusal
    known = []
    for host in hosts:
        for summary in host.summaries():
            if isinstance(summary, EndpointDescription):
                known.append(summary.name)
    raise no_endpoint(name, known)
