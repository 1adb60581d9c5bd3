"""Open a host of endpoints by its name."""

import pkgutil
from collections.abc import Callable, Mapping

from orchestrator.endpoints.hosts import Host
from orchestrator.endpoints.local.container import ContainerHost
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.names import HostName
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings

Report = Callable[[OrchestratorError], None]
"""Called with the error for what cannot be used and keeps nobody from the rest."""

_SAGEMAKER = "orchestrator.endpoints.sagemaker.host:SageMakerHost"
"""Imported only when it is asked for, with what it calls AWS by."""


def _ignore(error: OrchestratorError) -> None:
    """Report nothing."""


def open_host(name: HostName, settings: Settings, report: Report = _ignore) -> Host:
    """Return the host of that name; raises AccountError for SageMaker before `infra up`."""
    return _OPENERS[name](settings, report)


def open_hosts(settings: Settings, report: Report = _ignore) -> list[Host]:
    """Return every host that can be used: SageMaker only once an account is set up.

    Settings of the account that cannot be read are reported, and do not keep anyone from this machine's own endpoints.
    """
    hosts = [open_host(name, settings, report) for name in (HostName.LOCAL, HostName.CONTAINER)]
    try:
        if settings.aws() is not None:
            hosts.append(open_host(HostName.SAGEMAKER, settings, report))
    except OrchestratorError as error:
        report(error)
    return hosts


def _open_local(settings: Settings, report: Report) -> Host:
    return LocalHost(settings, report)


def _open_container(settings: Settings, report: Report) -> Host:
    return ContainerHost(settings, report)


def _open_sagemaker(settings: Settings, report: Report) -> Host:
    settings.account()
    kind = pkgutil.resolve_name(_SAGEMAKER)
    host: Host = kind(settings, report=report)
    return host


_OPENERS: Mapping[HostName, Callable[[Settings, Report], Host]] = {
    HostName.LOCAL: _open_local,
    HostName.CONTAINER: _open_container,
    HostName.SAGEMAKER: _open_sagemaker,
}
