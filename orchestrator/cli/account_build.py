"""`infra image --in-account`: an image that is built in the account, from the first question to the registry."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.job_options import ask_to_spend
from orchestrator.cli.output import say

if TYPE_CHECKING:
    from orchestrator.infra.builds import AccountBuild
    from orchestrator.infra.training_image import Image

_OF_DOCKER = ("build_only", "cpu", "base_image", "wheelhouse")


def check_options(given: Mapping[str, Any], platform: str) -> None:
    """Raise UsageError for options of a build with docker on this machine; CodeBuild builds for one `platform`."""
    typed = []
    for name in _OF_DOCKER:
        if given[name]:
            flag = name.replace("_", "-")
            typed.append(f"--{flag}")
    if given["platform"] != platform:
        typed.append("--platform")
    if typed:
        flags = " and ".join(typed)
        raise click.UsageError(f"{flags}: only for a build with docker on this machine, without --in-account.")


def build_in_account(
    build: "AccountBuild",
    *,
    yes: bool,
    report: Callable[[str], None],
    again: str,
) -> "Image":
    """Return the image, built in the account unless the registry has it; asks before a build is started.

    Ctrl+C leaves the build running: the same command goes on with it.
    """
    image = build.found()
    if image is not None:
        return image
    running = build.running()
    if running is not None:
        report(f"Follows the build {running}, which was started before.")
    else:
        _ask(yes=yes)
        running = _start(build, again)
        report(f"The build {running} is running. With Ctrl+C it goes on, and this command waits no longer.")
    try:
        return build.follow(running, report)
    except KeyboardInterrupt:
        stop = build.stop_command(running)
        text = f"The build goes on in the account, billed until it ends. Follow it: {again}\nStop it: {stop}"
        say(f"\n{text}", keep="\n", err=True)
        raise click.Abort from None


def _start(build: "AccountBuild", again: str) -> str:
    """Start the build and return its id, also that of one which somebody else has started meanwhile."""
    try:
        return build.start()
    except KeyboardInterrupt:
        say(f"\nA build may have been started; the same command finds it: {again}", keep="\n", err=True)
        raise click.Abort from None


def _ask(*, yes: bool) -> None:
    """Say what a build costs, and ask."""
    from orchestrator.infra.builds import USD_PER_MINUTE
    from orchestrator.infra.codebuild import LIMIT_MINUTES

    most = USD_PER_MINUTE * LIMIT_MINUTES
    price = f"${USD_PER_MINUTE} a minute (list price of us-east-1)"
    limit = f"{LIMIT_MINUTES} minutes: about ${most:.2f} at most, besides the stored image"
    say(f"CodeBuild bills {price} and ends a build after {limit}.", err=True)
    ask_to_spend(
        "Build it?",
        yes=yes,
        capped=False,
        what="A build",
        cap="",
    )
