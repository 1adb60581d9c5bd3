"""The commands of endpoints that messages tell a person to type."""

from orchestrator.contract.command_line import command
from orchestrator.contract.recipe import BUILTIN
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.leases import duration_text
from orchestrator.endpoints.names import HostName, Mode


def deploy_command(deployment: Deployment) -> str:
    """Return the command that deploys this again."""
    words = ["deploy", deployment.name]
    if deployment.host is not HostName.LOCAL:
        words += ["--host", deployment.host]
    if deployment.mode is not Mode.REALTIME:
        words += ["--mode", deployment.mode]
    if deployment.base_model != BUILTIN:
        words += ["--base-model", deployment.base_model]
    if deployment.base_revision is not None:
        words += ["--base-revision", deployment.base_revision]
    if deployment.adapters:
        words += ["--adapters", ",".join(deployment.adapters)]
    lease = deployment.lease
    if lease.ttl_seconds is not None:
        words += ["--ttl", duration_text(lease.ttl_seconds)]
    if lease.idle_seconds is not None:
        words += ["--idle", duration_text(lease.idle_seconds)]
    slots = Deployment.model_fields["slots"].default
    if deployment.slots != slots:
        words += ["--slots", str(deployment.slots)]
    if not deployment.safety_checker:
        words.append("--no-safety-checker")
    return command(*words)
