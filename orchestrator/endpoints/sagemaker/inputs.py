"""Find what a deployment names: its base model, and its adapters, which are brought to this machine."""

from orchestrator.adapters.registry import Registry
from orchestrator.contract.adapter import CONTROLNET, FULL, MANIFEST_FILE, AdapterManifest
from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import hash_file
from orchestrator.contract.problem import Problem
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.artifacts import ServedAdapter, archive, model_data
from orchestrator.endpoints.sagemaker.names import hash_of
from orchestrator.endpoints.sagemaker.plan import Artifacts
from orchestrator.errors import OrchestratorError, SpecError
from orchestrator.models.mirror import find_mirrored
from orchestrator.models.mirrored import MirroredModel
from orchestrator.models.tree import model_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.base_model import Folder, Hub, base_model_problems, known_family, parse_base_model
from orchestrator.storage import FolderStore, Store, folder_of
from orchestrator.storage.hash_cache import HashCache
from orchestrator.storage.uris import s3_uri


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

    def gather(self, deployment: Deployment) -> Artifacts:
        """Return the files of an endpoint as trees; raises SpecError, JobError or a store's error for what is amiss."""
        _require_base_model(deployment)
        manifests: dict[str, AdapterManifest] = {}
        adapters = {name: self._adapter(name, manifests) for name in deployment.adapters}
        _require_servable(deployment, manifests)
        named = deployment.model_copy(update={"base_model": base_model_name(deployment)})
        model = model_data(named, adapters, self._scratch)
        code = bundle_tree(BundleKind.SERVING)
        archives = {}
        hashes = {}
        if deployment.mode is Mode.COMPONENTS:
            for name, adapter in adapters.items():
                archives[name] = archive(adapter, self._scratch)
                hashes[name] = adapter.sha256
        source = parse_base_model(deployment.base_model, deployment.base_revision)
        if isinstance(source, Hub):
            copy = self._mirrored(source)
            return Artifacts(
                model=model,
                base_model=None,
                base_model_uri=copy.uri,
                base_model_bytes=copy.bytes,
                code=code,
                archives=archives,
                adapters=hashes,
            )
        tree = model_tree(source.folder, HashCache(self._settings.cache / "hashes").digest)
        return Artifacts(
            model=model,
            base_model=tree,
            base_model_uri=s3_uri(self._account.bucket, tree.name),
            base_model_bytes=tree.bytes,
            code=code,
            archives=archives,
            adapters=hashes,
        )

    def _adapter(self, name: str, manifests: dict[str, AdapterManifest]) -> ServedAdapter:
        """Return an adapter with its files on this machine, verified, and note its manifest."""
        found = self._registry.verified(self._registry.find(name, _ignore))
        found.require_complete()
        manifests[name] = found.manifest
        if found.uri.startswith("file:"):
            folder = folder_of(found.uri)
        else:
            folder = self._scratch / "adapters" / hash_of(f"{found.uri} {found.published.isoformat()}")
            if not folder.exists():
                self._registry.pull(found, folder)
        files = {**found.manifest.files, MANIFEST_FILE: hash_file(folder / MANIFEST_FILE)}
        return ServedAdapter(name, folder, files)

    def _mirrored(self, source: Hub) -> MirroredModel:
        copy = find_mirrored(self._store, source.id, source.revision)
        if copy is None:
            raise SpecError(
                f"{source.id} has no copy in the bucket, and endpoints have no network to fetch it.",
                next_step=command("models", "mirror", source.id),
            )
        return copy


def base_model_name(deployment: Deployment) -> str:
    """Return the base model as messages call it: of a folder its name alone, and not where it lies."""
    source = parse_base_model(deployment.base_model, deployment.base_revision)
    if isinstance(source, Folder):
        return f"./{source.folder.name}"
    return deployment.base_model


def _require_base_model(deployment: Deployment) -> None:
    problems = base_model_problems(deployment.base_model, deployment.base_revision)
    if problems:
        raise SpecError(
            "The base model cannot be deployed; nothing was created.",
            problems=problems,
            next_step="name another one with --base-model",
        )


def _require_servable(deployment: Deployment, manifests: dict[str, AdapterManifest]) -> None:
    """Raise SpecError for adapters that the server would refuse, once it is paid for."""
    family = known_family(deployment.base_model)
    problems = []
    for name, manifest in manifests.items():
        what = None
        if family is not None and manifest.base_model.family != family.name:
            what = f"{name} was trained on a {manifest.base_model.family} model, and the base model is {family.name}"
        elif manifest.kind == FULL:
            what = f"{name} is a whole model; deploy it as --base-model instead"
        elif manifest.kind == CONTROLNET and deployment.mode is Mode.COMPONENTS:
            what = f"{name} is a ControlNet, which SageMaker does not take as an adapter component"
        if what is not None:
            problems.append(Problem(where="adapters", what=what))
    if problems:
        raise SpecError(
            "These adapters cannot be deployed; nothing was created.",
            problems=problems,
            next_step="leave them out and deploy again",
        )


def _ignore(_error: OrchestratorError) -> None:
    """An unreadable adapter is of no interest beside a readable one of its name."""
