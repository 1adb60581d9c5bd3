"""Start the server of an endpoint."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.serving import LOCALHOST, ServerOrder
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder
from orchestrator.errors import MachineError
from orchestrator.planning.bundle import bundle_tree
from orchestrator.settings import Settings
from orchestrator.storage import FolderStore, folder_of
from orchestrator.targets.local.detached import blocked_ctrl_c, import_path

_SUPERVISOR = "orchestrator.endpoints.local.supervisor"


def start_server(
    endpoint: EndpointFolder,
    served: Served,
    settings: Settings,
) -> ServerFolder:
    """Start another server, which replaces the one that runs once it serves, and return it.

    Raises MachineError when no process can be started.
    """
    code = store_code(settings)
    order = order_of(endpoint, served).model_dump_json()
    server = endpoint.new_server(served)
    run_supervisor(endpoint, server, code, order)
    return server


def store_code(settings: Settings) -> Path:
    """Return the folder of the server's code."""
    bundle = bundle_tree(BundleKind.SERVING)
    return folder_of(FolderStore(settings.home).put_tree(bundle))


def run_supervisor(
    endpoint: EndpointFolder,
    server: ServerFolder,
    code: Path,
    order: str,
    words: Sequence[str] = (),
) -> None:
    """Start the supervisor of a server, which has its order on stdin; the words start it elsewhere."""
    errors = server.path / "supervisor.txt"
    with server.lock() as lock, errors.open("w") as stderr, blocked_ctrl_c():
        held = lock.fileno()
        supervisor = [
            sys.executable,
            "-m",
            _SUPERVISOR,
            str(server.path),
            str(code),
            str(held),
            *words,
        ]
        started = subprocess.run(
            supervisor,
            input=order.encode(),
            env={**os.environ, "PYTHONPATH": import_path()},
            cwd=server.path,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(held,),
            start_new_session=True,  # a Ctrl-C in the terminal must not reach the server
            check=False,
        )
    if started.returncode != 0:
        path = shlex.quote(str(errors))
        message = f"The server of {endpoint.name} could not be started."
        raise MachineError(message, next_step=f"cat {path}")


def order_of(endpoint: EndpointFolder, served: Served) -> ServerOrder:
    """Return all that a server is told."""
    token = endpoint.token() or endpoint.new_token()
    endpoint.adapters.mkdir(exist_ok=True)
    asked = served.deployment
    folders = {}
    for name, sha256 in served.adapters.items():
        folders[name] = endpoint.adapter(sha256)
    return ServerOrder(
        base_model=asked.base_model,
        base_folder=served.base_folder,
        base_revision=asked.base_revision,
        adapters=folders,
        root=endpoint.adapters,
        host=LOCALHOST,
        port=0,
        token=token,
        slots=asked.slots,
        most_waiting=asked.most_waiting,
        safety_checker=asked.safety_checker,
    )
