"""What an endpoint reads, as trees under their hashes: its order and adapters, its base model, its code.

Adapter components read archives: a finished adapter is not compressed, and SageMaker takes one .tar.gz for each.
"""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.digest import FileDigest, hash_file, tree_sha256
from orchestrator.contract.serving import (
    ADAPTERS_FOLDER,
    BASE_MODEL_FOLDER,
    EVERYWHERE,
    ORDER_FILE,
    SOURCES_FOLDER,
    ServerOrder,
)
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.names import hash_of
from orchestrator.storage.files import write_atomically
from orchestrator.storage.tree import Tree, tree_of_files

KIND = "endpoints"
"""Of trees that only endpoints read."""
ARCHIVE_FILE = "adapter.tar.gz"
_BASE_FOLDER = Path("..") / SOURCES_FOLDER / BASE_MODEL_FOLDER
"""From the folder of the model in a container."""
ANSWER_SECONDS = 900
"""Longest that an asynchronous endpoint may take for an answer."""
_READING_SECONDS = 30.0
"""Of them for the transport of request and answer."""
_READABLE = 0o644


class ServedAdapter(NamedTuple):
    """A finished adapter on this machine."""

    name: str
    """Its name."""
    folder: Path
    """Where its files are."""
    files: Mapping[str, FileDigest]
    """All its files, its manifest too, by their paths within the folder."""

    @property
    def sha256(self) -> str:
        """Hash over the names and the content of its files."""
        return tree_sha256(self.files)


def order_of(deployment: Deployment) -> ServerOrder:
    """Return what the server in the container is told; its paths are relative to the folder of the model."""
    adapters = {}
    if deployment.mode is not Mode.COMPONENTS:  # there SageMaker brings them, one by one
        for name in deployment.adapters:
            adapters[name] = Path(ADAPTERS_FOLDER) / name
    deadline: dict[str, float] = {}
    if deployment.mode is Mode.ASYNC:
        deadline["deadline_seconds"] = ANSWER_SECONDS - _READING_SECONDS
    return ServerOrder(
        base_model=deployment.base_model,
        base_folder=_BASE_FOLDER,
        base_revision=deployment.base_revision,
        adapters=adapters,
        root=Path(".."),  # where SageMaker puts the files of adapter components is not documented
        host=EVERYWHERE,
        slots=deployment.slots,
        most_waiting=deployment.most_waiting,
        safety_checker=deployment.safety_checker,
        **deadline,
    )


def model_data(
    deployment: Deployment,
    adapters: Mapping[str, ServedAdapter],
    scratch: Path,
) -> Tree:
    """Return the tree that becomes `/opt/ml/model`: the order and the adapters that it names."""
    order = order_of(deployment)
    text = order.model_dump_json(indent=2)
    path = scratch / hash_of(text) / ORDER_FILE
    write_atomically(path, text)
    files = {ORDER_FILE: hash_file(path)}
    sources = {ORDER_FILE: path}
    for name in order.adapters:
        adapter = adapters[name]
        for file, digest in adapter.files.items():
            place = f"{ADAPTERS_FOLDER}/{name}/{file}"
            files[place] = digest
            sources[place] = adapter.folder / file
    return Tree(kind=KIND, files=files, sources=sources)


def archive(adapter: ServedAdapter, scratch: Path) -> Tree:
    """Return the tree with the archive of an adapter, for its component; equal adapters have equal bytes."""
    path = scratch / adapter.sha256 / ARCHIVE_FILE
    if not path.exists():
        write_atomically(path, _packed(adapter))
    return tree_of_files(KIND, {ARCHIVE_FILE: path})


def _packed(adapter: ServedAdapter) -> bytes:
    """Return the .tar.gz of an adapter. Weights do not compress, so nothing is; no byte depends on the clock."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(
            fileobj=packed,
            mode="wb",
            filename="",
            compresslevel=0,
            mtime=0,
        ) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as members,
    ):
        for file in sorted(adapter.files):
            content = (adapter.folder / file).read_bytes()
            member = tarfile.TarInfo(file)
            member.size = len(content)
            member.mode = _READABLE
            members.addfile(member, io.BytesIO(content))
    return packed.getvalue()
