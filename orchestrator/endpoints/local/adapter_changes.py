"""Have a server that runs learn and forget adapters."""

from urllib.parse import quote

from orchestrator.contract.command_line import command
from orchestrator.endpoints.local.calls import QUICK_SECONDS, RefusedError, ServerCalls
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder
from orchestrator.errors import EndpointError

_NOT_FOUND = 404


def change_adapters(
    endpoint: EndpointFolder,
    server: ServerFolder,
    wanted: Served,
) -> None:
    """Have a server learn and forget adapters until it has those that are wanted; idempotent.

    The server is asked what it has: a command may have been killed before it wrote down what it changed. Raises
    EndpointError for a server that does not serve yet, and for an adapter that it refuses.
    """
    progress = server.progress()
    token = endpoint.token()
    if not progress.serves or progress.port is None or token is None:
        if server.served() == wanted:
            return
        message = f"The endpoint {endpoint.name} is being started, and cannot be changed meanwhile."
        next_step = command("endpoints", "show", endpoint.name)
        raise EndpointError(message, next_step=next_step)
    calls = ServerCalls(endpoint.name, progress.port, token)
    known = known_adapters(calls)
    for name, sha256 in wanted.adapters.items():
        if known.get(name) == sha256:
            continue
        source = str(endpoint.adapter(sha256))
        calls.json("POST", "/adapters", {"name": name, "src": source})
        learned = _with(server.served(), name, sha256)
        server.write_served(learned)
    for name in known:
        if name not in wanted.adapters:
            _forget(calls, name)
    server.write_served(wanted)


def known_adapters(calls: ServerCalls) -> dict[str, str]:
    """Return the hash of the files of each adapter that a server knows, by its name."""
    answer = calls.json("GET", "/adapters", seconds=QUICK_SECONDS)
    known = {}
    for adapter in answer["adapters"]:
        known[adapter["name"]] = adapter["sha256"]
    return known


def changes_between(served: Served, wanted: Served) -> str:
    """Return in words which adapters a server is to learn and to forget."""
    added = []
    renewed = []
    for name, sha256 in wanted.adapters.items():
        if name not in served.adapters:
            added.append(name)
        elif served.adapters[name] != sha256:
            renewed.append(name)
    removed = [name for name in served.adapters if name not in wanted.adapters]
    words = ""
    for verb, names in (("adds", added), ("renews", renewed), ("removes", removed)):
        if names:
            listed = ", ".join(names)
            words += f"; {verb} {listed}"
    return words


def _with(served: Served, name: str, sha256: str) -> Served:
    """Return what a server serves once it has learned one more adapter."""
    adapters = {**served.adapters, name: sha256}
    deployment = served.deployment.model_copy(update={"adapters": tuple(adapters)})
    return served.model_copy(update={"adapters": adapters, "deployment": deployment})


def _forget(calls: ServerCalls, name: str) -> None:
    """Have a server forget an adapter, or find that it has none of that name."""
    path = quote(name, safe="")
    try:
        calls.json("DELETE", f"/adapters/{path}")
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
