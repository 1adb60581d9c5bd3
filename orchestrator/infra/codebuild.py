"""Builds as CodeBuild describes them: which of them run, how one is stopped, how one ended and why, and its log.

https://docs.aws.amazon.com/codebuild/latest/APIReference/API_Build.html
"""

import re
from typing import Any

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.command_line import command
from orchestrator.errors import AccountError, MissingError, OrchestratorError

LIMIT_MINUTES = 60
"""The time limit of a build, as in infra/stack.yaml."""
QUEUE_LIMIT_MINUTES = 60
"""How long a build waits for a machine at most, as in infra/stack.yaml; that is not billed."""
RUNNING = "IN_PROGRESS"
SUCCEEDED = "SUCCEEDED"

# The same template changes nothing, so CloudFormation has to remove the project, and then make it.
REMAKE = f"{command('infra', 'up', '--no-builds')}  (then: {command('infra', 'up', '--builds')})"
"""How a project that somebody deleted is made again."""
_ENDINGS = {
    SUCCEEDED: "succeeded, and yet the registry has no such image",
    "FAILED": "failed",
    "FAULT": "failed by a fault of CodeBuild itself",
    "TIMED_OUT": f"was not done within {LIMIT_MINUTES} minutes and was ended",
    "STOPPED": "was stopped",
}
_QUEUE = "QUEUED"
_QUEUE_ENDING = f"waited {QUEUE_LIMIT_MINUTES} minutes for a machine and was ended"
_RATE_LIMITED = re.compile(r"toomanyrequests|429 too many requests|pull rate limit", re.IGNORECASE)
"""How registries say that they limit pulls."""
_LAST_LINES = 100  # of a log that are searched
_LONGEST_LINE = 200  # characters of it in a message


def newest_builds(aws: Aws, project: str) -> list[dict[str, Any]]:
    """Return the newest builds of a project, 100 at most, the newest first; raises MissingError without the project."""
    client = aws.client("codebuild")
    with calling(f"look for builds of the project {project}", not_found=REMAKE):
        # Without an order: the newest come first, and a project with more than 100 builds refuses any order.
        listed = client.list_builds_for_project(projectName=project)
        ids = listed.get("ids", [])
        if not ids:
            return []
        described = client.batch_get_builds(ids=ids)
    by_id = {}
    for build in described.get("builds", []):
        by_id[build["id"]] = build
    newest_first = []
    for build_id in ids:
        if build_id in by_id:
            newest_first.append(by_id[build_id])
    return newest_first


def require_no_builds(aws: Aws, project: str | None, *, undone: str, again: str) -> None:
    """Raise AccountError while a build of the project runs, of any image; None is a stack without a project.

    `undone` says what was not done for it, and `again` is the command that does it afterwards.
    """
    if project is None:
        return
    try:
        builds = newest_builds(aws, project)
    except MissingError:  # somebody deleted the project: nothing runs in it
        return
    for build in builds:
        if build["buildStatus"] == RUNNING:
            build_id = build["id"]
            stop = stop_command(build_id, aws.region)
            raise AccountError(
                f"The build {build_id} is running. {undone}",
                next_step=f"{stop}  (or wait until it has ended; then: {again})",
            )


def stop_command(build_id: str, region: str) -> str:
    """Return the command that stops a build."""
    return f"aws codebuild stop-build --id {build_id} --region {region}"


def log_link(build: dict[str, Any]) -> str:
    """Return the address of a build's log in the console; empty before the log begins, when none is valid."""
    logs = build.get("logs", {})
    if not logs.get("streamName"):
        return ""
    link = logs.get("deepLink")
    if not link:
        return ""
    return str(link)


def log_command(build: dict[str, Any], region: str) -> str:
    """Return the command that prints a build's log; empty for one that ended before its log began."""
    logs = build.get("logs", {})
    stream = logs.get("streamName")
    if not stream:
        return ""
    group = logs["groupName"]
    return f"aws logs tail {group} --log-stream-names {stream} --since 1d --region {region}"


def ending(build: dict[str, Any]) -> str:
    """Return how a build ended that left no image, in which phase, and what CodeBuild says of it."""
    status = build["buildStatus"]
    text = _ENDINGS.get(status, f"ended as {status}")
    phase = _failed_phase(build)
    if phase is None:
        return text
    name = phase["phaseType"]
    if status == "TIMED_OUT" and name == _QUEUE:
        text = _QUEUE_ENDING
    text = f"{text} in the phase {name}"
    for context in phase.get("contexts", []):
        code = context.get("statusCode")
        message = context.get("message")
        if code:
            text = f"{text}: {code}"
        if message:
            text = f"{text}: {message}"
    return text.rstrip(" .")


def rate_limit_of(aws: Aws, build: dict[str, Any]) -> str:
    """Return the last words of a build's phases and log that say that a registry limits pulls; empty without them."""
    found = ""
    for line in (*_context_messages(build), *_log_lines(aws, build)):
        if _RATE_LIMITED.search(line):
            stripped = line.strip()
            found = stripped[:_LONGEST_LINE]
    return found


def _context_messages(build: dict[str, Any]) -> list[str]:
    """Return what CodeBuild says of the phases of a build."""
    messages = []
    for phase in build.get("phases", []):
        for context in phase.get("contexts", []):
            messages.append(context.get("message", ""))
    return messages


def _log_lines(aws: Aws, build: dict[str, Any]) -> list[str]:
    """Return the last lines of a build's log; none where it cannot be read."""
    logs = build.get("logs", {})
    if not logs.get("streamName"):
        return []
    try:
        with calling("read the log of the build"):
            answer = aws.client("logs").get_log_events(
                logGroupName=logs["groupName"],
                logStreamName=logs["streamName"],
                limit=_LAST_LINES,
                startFromHead=False,
            )
    except OrchestratorError:
        return []
    return [event["message"] for event in answer["events"]]


def _failed_phase(build: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first phase that did not succeed, which others may have failed for; None without one."""
    for phase in build.get("phases", []):
        status = phase.get("phaseStatus", RUNNING)  # the phase that goes on has none
        if status not in {SUCCEEDED, RUNNING}:
            found: dict[str, Any] = phase
            return found
    return None
