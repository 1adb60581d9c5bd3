"""Adapters as jobs write them, on this machine and in the bucket: found, and fetched completely or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.registry import Registry, fetch, read_manifest
from orchestrator.contract.digest import FileDigest, hash_files
from orchestrator.errors import JobError, MissingError, OrchestratorError
from orchestrator.storage import FolderStore, S3Store, Store
from tests.storage.conftest import BUCKET, aws, digest_of, store, wire

__all__ = ["aws", "digest_of", "store", "wire"]  # fixtures of a bucket on moto
PREFIXES = {"folder": "adapters/fox/", "s3": "adapters/fox/fox-0123456789/output/model/"}
FILES = {"weights.safetensors": b"weights", "samples/1.png": b"png"}


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "home") if request.param == "folder" else request.getfixturevalue("store")


Leave = Callable[..., str]


@pytest.fixture
def leave(
    any_store: Store,
    digest_of: Callable[[bytes], FileDigest],
    request: pytest.FixtureRequest,
) -> Leave:
    """Write an adapter where a job writes it, changed as a test needs, and return its prefix."""
    digests = {}
    for name, content in FILES.items():
        digests[name] = digest_of(content).model_dump()
    manifest = {
        "recipe": "dreambooth",
        "config": {},
        "base_model": {"id": "builtin", "fingerprint": "f", "family": "sd"},
        "dataset_sha256": "d",
        "trigger": "sks",
        "bundle_sha256": "b",
        "libraries": {},
        "files": digests,
    }
    manifest_text = json.dumps(manifest).encode()

    def write(key: str, content: bytes) -> None:
        if isinstance(any_store, FolderStore):
            path = any_store.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            client = request.getfixturevalue("aws").client("s3")
            client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def leave(changes: dict[str, bytes | None], name: str = "fox") -> str:
        files = {**FILES, "adapter.json": manifest_text, **changes}
        prefix = PREFIXES["folder" if isinstance(any_store, FolderStore) else "s3"]
        prefix = prefix.replace("adapters/fox/", f"adapters/{name}/")
        for file, content in files.items():
            if content is not None:
                write(f"{prefix}{file}", content)
        return prefix

    return leave


def test_an_adapter_is_found_by_name_and_pulled_as_its_job_wrote_it(
    any_store: Store, leave: Leave, tmp_path: Path
) -> None:
    prefix = leave({})
    registry = Registry([any_store])
    adapter = registry.find("fox")
    assert [one.name for one in registry.newest(pytest.fail)] == ["fox"]
    assert (adapter.prefix, adapter.uri) == (prefix, any_store.uri(prefix))
    registry.pull(adapter, tmp_path / "back")
    assert set(hash_files(tmp_path / "back")) == {"adapter.json", *FILES}


def test_an_adapter_is_fetched_by_its_uri_and_by_its_prefix(
    any_store: Store,
    leave: Leave,
    tmp_path: Path,
) -> None:
    prefix = leave({})
    for number, name in enumerate((any_store.name(any_store.uri(prefix)), prefix.rstrip("/"))):
        fetch(any_store, name, tmp_path / f"back-{number}")
        assert set(read_manifest(any_store, name).files) == set(FILES)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights.safetensors": b"weightz"},  # of the same size
        {"weights.safetensors": None},
        {"pickled.bin": b"one more"},
        {"adapter.json": b"{"},
        {"adapter.json": None},
    ],
    ids=str,
)
def test_a_damaged_adapter_is_not_fetched(
    any_store: Store, leave: Leave, changes: dict[str, bytes | None], tmp_path: Path
) -> None:
    prefix = leave(changes)
    with pytest.raises(OrchestratorError):
        fetch(any_store, prefix, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert list(tmp_path.glob(".scratch-*")) == []


def test_a_missing_adapter_is_reported(any_store: Store, store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        fetch(any_store, "adapters/fox/", tmp_path / "back")
    with pytest.raises(JobError, match="nothing was published yet"):
        Registry([any_store, store]).find("fox")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"{", "submit the job again with --restart"),
        (b'{"format": 2}', "upgrade orchestrator"),
    ],
    ids=["damaged", "newer"],
)
def test_an_unreadable_adapter_does_not_hide_the_others(
    any_store: Store, leave: Leave, manifest: bytes, words: str
) -> None:
    leave({"adapter.json": manifest}, "ant")
    leave({})
    errors: list[OrchestratorError] = []
    assert [adapter.name for adapter in Registry([any_store]).newest(errors.append)] == ["fox"]
    (error,) = errors
    assert error.next_step == words
