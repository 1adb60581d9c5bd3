"""Where a server stands, or how it ended, and what to do about it."""

import signal
from typing import NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.endpoints.commands import deploy_command
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.local.endpoint_folder import Progress, ServerFolder, ServerState

_NEXT_STEPS = {
    "base-model": "name a model in the diffusers layout: --base-model FOLDER",
    "gated-model": "accept its terms on its page of the Hugging Face Hub, and sign in with: hf auth login",
    "hub": "check the name and the network, or name a model that is on this machine: --base-model FOLDER",
    "disk-full": "free space, then deploy it again",
    "out-of-memory": "close what needs memory, or serve a smaller base model: --base-model MODEL",
}
"""What to do after a failure of a kind, where a job's next step does not fit."""
_LAST_LINES = 5


class Outcome(NamedTuple):
    """The status of a server."""

    status: EndpointStatus
    """Creating or updating, in service, failed or stopped."""
    reason: str | None = None
    """What happened and why, if it has ended."""
    next_step: str | None = None
    """The next command, or what to change."""


def outcome_of(newest: ServerFolder, *, is_update: bool) -> Outcome:
    """Return where the newest server of an endpoint stands; `is_update` where an older or this one answers."""
    is_alive = newest.is_alive()  # first: once nobody holds its lock, the log is complete
    progress = newest.progress()
    if is_alive and progress.serves:
        return Outcome(EndpointStatus.IN_SERVICE)
    if is_alive:  # also with a failure: it is about to end
        return Outcome(EndpointStatus.UPDATING if is_update else EndpointStatus.CREATING)
    ended = _ended(newest, progress)
    if is_update:
        reason = f"The update failed, and the server from before it still runs. {ended.reason}"
        return Outcome(EndpointStatus.IN_SERVICE, reason, ended.next_step)
    return ended


def _ended(server: ServerFolder, progress: Progress) -> Outcome:
    again = deploy_command(server.served().deployment)
    stopped = server.stop_reason()
    if stopped is not None:
        return Outcome(EndpointStatus.STOPPED, stopped, again)
    failed = progress.failed
    if failed is not None:
        next_step = _NEXT_STEPS.get(failed.kind) or failed.next_step or again
        return Outcome(EndpointStatus.FAILED, failed.message, next_step)
    state = server.state()
    if state is None:
        why = "The command that deployed it was interrupted before its server ran."
        return Outcome(EndpointStatus.FAILED, why, again)
    words = _why(state)
    if state.exit_code != -signal.SIGKILL:  # what a server said last is no cause of that
        words = " ".join([words, *server.last_words(_LAST_LINES)])
    status = EndpointStatus.FAILED
    if state.exit_code == 0 or state.ended is None:
        status = EndpointStatus.STOPPED
    if status is EndpointStatus.FAILED and not progress.serves:
        name = server.path.parents[1].name
        return Outcome(status, words, command("endpoints", "logs", name))
    return Outcome(status, words, again)


def _why(state: ServerState) -> str:
    if state.ended is None or state.exit_code is None:
        return "Its server ended without a message: it was killed from outside, or the machine was restarted."
    if state.exit_code == -signal.SIGKILL:
        return "Its server was killed: the system does that when memory runs out, or somebody has ended it."
    if state.exit_code < 0:
        return f"Its server was ended by signal {-state.exit_code}."
    if state.exit_code == 0:
        return "Its server was asked to end."
    return f"Its server ended with exit code {state.exit_code}."
