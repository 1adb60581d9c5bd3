"""Find an endpoint by its name, whichever host it runs on."""

from collections.abc import Iterable, Sequence

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import did_you_mean
from orchestrator.endpoints.hosts import EndpointDescription, Host
from orchestrator.errors import EndpointError, OrchestratorError


def no_endpoint(name: str, known: Iterable[str]) -> EndpointError:
    """Return the error for a name that no endpoint has, with the closest name."""
    message = f'There is no endpoint "{name}"'
    names = sorted(known)
    hint = did_you_mean(name, names)
    if hint:
        return EndpointError(f"{message}; {hint}", next_step=command("endpoints", "list"))
    if names:
        return EndpointError(f"{message}.", next_step=command("endpoints", "list"))
    return EndpointError(f"{message}; nothing is deployed.", next_step=command("deploy", name))


def find_endpoint(name: str, hosts: Sequence[Host]) -> tuple[Host, EndpointDescription]:
    """Return an endpoint and the host that runs it.

    Raises EndpointError when none does, when several do, and what the only host raises that was asked.
    """
    found = []
    refusals: list[OrchestratorError] = []
    for host in hosts:
        try:
            found.append((host, host.describe(name)))
        except OrchestratorError as error:
            refusals.append(error)
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(description.host for _, description in found)
        message = f"There are endpoints {name} on several hosts: {places}."
        raise EndpointError(message, next_step=f"say which one you mean: --host {found[0][1].host}")
    raise _why_none(name, hosts, refusals)


def _why_none(name: str, hosts: Sequence[Host], refusals: Sequence[OrchestratorError]) -> OrchestratorError:
    """Return the error for a name that no host could describe."""
    for refusal in refusals:
        if len(refusals) == 1 or not isinstance(refusal, EndpointError):
            return refusal
    known = []
    for host in hosts:
        for summary in host.summaries():
            if isinstance(summary, EndpointDescription):
                known.append(summary.name)
    return no_endpoint(name, known)
