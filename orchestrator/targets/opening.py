"""Open a target by its name."""

from collections.abc import Callable, Mapping

from orchestrator.aws.client import Aws
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from orchestrator.storage import Progress, S3Store, Store
from orchestrator.targets.base import Target
from orchestrator.targets.local.container import ContainerTarget
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.local.queue import Turn
from orchestrator.targets.names import TargetName
from orchestrator.targets.sagemaker.target import SageMakerTarget


def open_target(
    name: TargetName,
    settings: Settings,
    progress: Progress | None = None,
    turn: Turn = Turn.TOGETHER,
) -> Target:
    """Return the target of that name.

    `progress` is called with the bytes that are transferred to and from its store. `turn` is when jobs on this machine
    start.
    Raises AccountError for SageMaker before `infra up`.
    """
    return _OPENERS[name](settings, progress, turn)


def open_targets(
    settings: Settings,
    report: Callable[[OrchestratorError], None],
    turn: Turn = Turn.TOGETHER,
) -> list[Target]:
    """Return every target that can be used: SageMaker only once an account is set up.

    Settings of the account that cannot be read are reported, and do not keep anyone from this machine's own jobs.
    """
    targets = [open_target(name, settings, turn=turn) for name in (TargetName.LOCAL, TargetName.CONTAINER)]
    try:
        if settings.aws() is not None:
            targets.append(open_target(TargetName.SAGEMAKER, settings))
    except OrchestratorError as error:
        report(error)
    return targets


def open_stores(
    settings: Settings,
    report: Callable[[OrchestratorError], None],
) -> list[Store]:
    """Return every store that adapters may lie in; the targets of this machine share one."""
    stores = []
    for target in open_targets(settings, report):
        if target.name is not TargetName.CONTAINER:
            stores.append(target.store)
    return stores


def _open_local(settings: Settings, _progress: Progress | None, turn: Turn) -> Target:
    return ProcessTarget(settings, turn)  # its store is a folder: nothing is transferred


def _open_container(settings: Settings, _progress: Progress | None, turn: Turn) -> Target:
    return ContainerTarget(settings, turn)


def _open_sagemaker(settings: Settings, progress: Progress | None, _turn: Turn) -> Target:
    account = settings.account()
    aws = Aws(account.region)
    store = S3Store(aws, account.bucket, account.account_id, progress=progress)
    return SageMakerTarget(aws, store)


_OPENERS: Mapping[TargetName, Callable[[Settings, Progress | None, Turn], Target]] = {
    TargetName.LOCAL: _open_local,
    TargetName.CONTAINER: _open_container,
    TargetName.SAGEMAKER: _open_sagemaker,
}
