"""Find what a deployment names: its base model, and its adapters, which are brought to this machine."""

from collections.abc import Iterable

from orchestrator.adapters.registry import Adapter, Registry
from orchestrator.contract.adapter import CONTROLNET, FULL, MANIFEST_FILE
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import hash_file
from orchestrator.contract.problem import Problem
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.inputs import BaseModel, find_adapters, find_base
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.artifacts import ServedAdapter, archive, model_data
from orchestrator.endpoints.sagemaker.blueprint import ServedBase
from orchestrator.endpoints.sagemaker.names import hash_of
from orchestrator.endpoints.sagemaker.plan import Artifacts
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.models import size
from orchestrator.models.mirror import find_mirrored
from orchestrator.models.mirrored import MirroredModel
from orchestrator.models.tree import served_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.base_model import Folder, Hub, native_settings, parse_base_model
from orchestrator.storage import FolderStore, Store, folder_of
from orchestrator.storage.hash_cache import HashCache
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import s3_uri

_RESOLUTION = 512
"""Side in pixels of the images that memory is planned for where the model's own is not known."""


class Inputs:
    """What deployments read, on this machine and in the bucket."""

    def __init__(
        self,
        settings: Settings,
        account: AwsSettings,
        store: Store,
    ) -> None:
        self._settings = settings
        self._account = account
        self._store = store
        self._registry = Registry([FolderStore(settings.home), store])
        self._scratch = settings.cache / "endpoints"

    def gather(self, deployment: Deployment, kept: ServedBase | None) -> Artifacts:
        """Return the files of an endpoint as trees; raises EndpointError, SpecError or a store's error.

        `kept` is a base model that is in the bucket and stays; without it the one of the deployment is looked for.
        """
        tree, served = None, kept
        if served is None:
            tree, served = self._base_model(deployment)
        found = find_adapters(
            deployment,
            BaseModel(None, served.weights_sha256),
            self._registry,
            _ignore,
        )
        _require_servable(deployment, found.values())
        adapters = {name: self._fetched(adapter) for name, adapter in found.items()}
        named = deployment.model_copy(update={"base_model": served.name})
        archives = {}
        hashes = {}
        if deployment.mode is Mode.COMPONENTS:
            for name, adapter in adapters.items():
                archives[name] = archive(adapter, self._scratch)
                hashes[name] = adapter.sha256
        return Artifacts(
            model=model_data(named, adapters, self._scratch),
            base_model=tree,
            base=served,
            code=bundle_tree(BundleKind.SERVING),
            archives=archives,
            adapters=hashes,
        )

    def _base_model(self, deployment: Deployment) -> tuple[Tree | None, ServedBase]:
        """Return the tree of a base model on this machine, or None for a copy in the bucket; and what is known of it.

        Raises SpecError for one that cannot be used.
        """
        base = find_base(deployment, self._settings)
        source = parse_base_model(deployment.base_model, deployment.base_revision)
        tree = None
        if isinstance(source, Hub):
            copy = self._mirrored(source)
            uri, stored_bytes = copy.uri, copy.bytes
        else:
            hashes = HashCache(self._settings.cache / "hashes")
            tree = served_tree(source.folder, hashes.digest, checker=deployment.safety_checker)
            uri, stored_bytes = s3_uri(self._account.bucket, tree.name), tree.bytes
        served = ServedBase(
            name=f"./{source.folder.name}" if isinstance(source, Folder) else deployment.base_model,
            uri=uri,
            bytes=stored_bytes,
            weights_sha256=base.sha256,
            size=size.of_source(source),
            resolution=native_settings(deployment.base_model).get("resolution", _RESOLUTION),
        )
        return tree, served

    def _fetched(self, adapter: Adapter) -> ServedAdapter:
        """Return an adapter with its files on this machine, verified."""
        if adapter.uri.startswith("file:"):
            folder = folder_of(adapter.uri)
        else:
            folder = self._scratch / "adapters" / hash_of(f"{adapter.uri} {adapter.published.isoformat()}")
            if not folder.exists():
                self._registry.pull(adapter, folder)
        files = {**adapter.manifest.files, MANIFEST_FILE: hash_file(folder / MANIFEST_FILE)}
        return ServedAdapter(adapter.name, folder, files)

    def _mirrored(self, source: Hub) -> MirroredModel:
        copy = find_mirrored(self._store, source.id, source.revision)
        if copy is None:
            raise SpecError(
                f"{source.id} has no copy in the bucket, and endpoints have no network to fetch it.",
                next_step=command("models", "mirror", source.id),
            )
        return copy


def _require_servable(deployment: Deployment, adapters: Iterable[Adapter]) -> None:
    """Raise SpecError for adapters of kinds that the server would refuse, once it is paid for."""
    problems = []
    for adapter in adapters:
        kind = adapter.manifest.kind
        what = None
        if kind == FULL:
            what = "is a whole model; deploy it as --base-model instead"
        elif kind == CONTROLNET and deployment.mode is Mode.COMPONENTS:
            what = "is a ControlNet, which SageMaker does not take as an adapter component"
        if what is not None:
            problems.append(Problem(where=adapter.name, what=what))
    if problems:
        raise SpecError(
            "These adapters cannot be deployed; nothing was created.",
            problems=problems,
            next_step="leave them out and deploy again",
        )


def _ignore(_error: OrchestratorError) -> None:
    """An unreadable adapter is of no interest beside a readable one of its name."""
