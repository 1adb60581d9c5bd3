"""Adapters as jobs write them, on this machine and in the bucket: found, and fetched completely or not at all."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.registry import Registry, fetch, inspect, read_manifest
from orchestrator.aws.client import Aws
from orchestrator.contract.digest import hash_files
from orchestrator.errors import JobError, MissingError, OrchestratorError
from orchestrator.storage import FolderStore, S3Store, Store
from tests.storage.conftest import BUCKET, aws, store, wire

__all__ = ["aws", "store", "wire"]  # fixtures of a bucket on moto
PREFIXES = {"folder": "adapters/fox/", "s3": "adapters/fox/fox-0123456789/output/model/"}
FILES = {"weights.safetensors": b"weights", "samples/1.png": b"png"}


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "home") if request.param == "folder" else request.getfixturevalue("store")


Leave = Callable[..., str]


def _manifest() -> bytes:
    digests = {}
    for name, content in FILES.items():
        digests[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
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
    return json.dumps(manifest).encode()


MANIFEST = _manifest()


def prefix_of(store: Store, name: str = "fox") -> str:
    kind = "folder" if isinstance(store, FolderStore) else "s3"
    return PREFIXES[kind].replace("adapters/fox/", f"adapters/{name}/")


def write(store: Store, aws: Aws, key: str, content: bytes) -> None:
    if isinstance(store, FolderStore):
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    else:
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)


@pytest.fixture
def leave(any_store: Store, aws: Aws) -> Leave:
    """Write an adapter where a job writes it, changed as a test needs, and return its prefix."""

    def leave(changes: dict[str, bytes | None], name: str = "fox") -> str:
        prefix = prefix_of(any_store, name)
        for file, content in {**FILES, "adapter.json": MANIFEST, **changes}.items():
            if content is not None:
                write(any_store, aws, f"{prefix}{file}", content)
        return prefix

    return leave


def test_an_adapter_is_found_by_name_and_pulled_as_its_job_wrote_it(
    any_store: Store, leave: Leave, tmp_path: Path
) -> None:
    prefix = leave({})
    registry = Registry([any_store])
    adapter = registry.find("fox", pytest.fail)
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
        Registry([any_store, store]).find("fox", pytest.fail)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"{", "python -m orchestrator jobs remove JOB  # then submit it again"),
        (b"", "python -m orchestrator jobs remove JOB  # then submit it again"),
        (bytes(range(256)), "python -m orchestrator jobs remove JOB  # then submit it again"),
        (b"[" * 100_000, "python -m orchestrator jobs remove JOB  # then submit it again"),
        (None, "python -m orchestrator jobs remove JOB  # then submit it again"),
        (b'{"format": 2}', "upgrade orchestrator"),
    ],
    ids=["cut", "empty", "binary", "deep", "gone", "newer"],
)
def test_an_unreadable_adapter_does_not_hide_the_others(
    any_store: Store, leave: Leave, manifest: bytes | None, words: str
) -> None:
    leave({"adapter.json": manifest}, "ant")
    leave({})
    registry = Registry([any_store])
    errors: list[OrchestratorError] = []
    assert [adapter.name for adapter in registry.newest(errors.append)] == ["fox"]
    (error,) = errors
    assert error.next_step == words
    assert registry.find("fox", pytest.fail).name == "fox"
    with pytest.raises(OrchestratorError) as raised:
        registry.find("ant", pytest.fail)
    assert raised.value.next_step == words


def test_an_older_adapter_stands_in_for_one_of_its_name_that_cannot_be_read(
    store: S3Store, aws: Aws, tmp_path: Path
) -> None:
    here = FolderStore(tmp_path / "home")
    for root, manifest in ((here, MANIFEST), (store, b"{")):
        write(root, aws, f"{prefix_of(root)}adapter.json", manifest)
        write(root, aws, f"{prefix_of(root)}weights.safetensors", b"weights")
        write(root, aws, f"{prefix_of(root)}samples/1.png", b"png")
    errors: list[OrchestratorError] = []
    assert Registry([here, store]).find("fox", errors.append).uri.startswith("file:")
    assert ["s3://" in error.message for error in errors] == [True]


def test_the_newest_readable_adapter_of_a_name_is_the_one_that_is_used(tmp_path: Path, aws: Aws) -> None:
    bucket = FolderStore(tmp_path)  # laid out as a bucket is; its files have the times that a test gives them
    for age, (job, manifest) in enumerate((("fox-3", b"{"), ("fox-2", MANIFEST), ("fox-1", MANIFEST))):
        name = f"adapters/fox/{job}/output/model/adapter.json"
        write(bucket, aws, name, manifest)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    errors: list[OrchestratorError] = []
    registry = Registry([bucket])
    assert registry.find("fox", errors.append).job == "fox-2"
    assert [adapter.job for adapter in registry.newest(errors.append)] == ["fox-2"]
    assert all("fox-3" in error.message for error in errors)


def test_a_store_that_cannot_be_reached_does_not_hide_the_adapters_of_another(
    store: S3Store, aws: Aws, tmp_path: Path
) -> None:
    here = FolderStore(tmp_path / "home")
    for name, content in {**FILES, "adapter.json": MANIFEST}.items():
        write(here, aws, f"{prefix_of(here)}{name}", content)
    aws.client("s3").delete_bucket(Bucket=BUCKET)
    registry = Registry([store, here])
    errors: list[OrchestratorError] = []
    assert [adapter.name for adapter in registry.newest(errors.append)] == ["fox"]
    assert registry.find("fox", errors.append).name == "fox"
    assert [type(error) for error in errors] == [MissingError, MissingError]
    with pytest.raises(MissingError):
        registry.find("ant", pytest.fail)


@pytest.mark.parametrize(
    ("changes", "damage"),
    [
        ({"weights.safetensors": b"weig"}, "weights.safetensors has 4 bytes instead of 7"),
        ({"weights.safetensors": None}, "weights.safetensors is missing"),
        ({"samples/1.png": b""}, "samples/1.png has 0 bytes instead of 3"),
        ({"notes.txt": b"mine"}, "notes.txt is not in its manifest"),
    ],
    ids=str,
)
def test_files_that_are_missing_cut_or_foreign_are_named_wherever_an_adapter_is_looked_at(
    any_store: Store, leave: Leave, changes: dict[str, bytes | None], damage: str, tmp_path: Path
) -> None:
    prefix = leave(changes)
    registry = Registry([any_store])
    (listed,) = registry.newest(pytest.fail)
    found = registry.find("fox", pytest.fail)
    assert listed.damage == found.damage == (damage,)
    manifest, problem = inspect(any_store, prefix.rstrip("/"))
    assert manifest == found.manifest
    assert problem is not None
    assert damage in problem.message
    assert problem.next_step
    with pytest.raises(OrchestratorError, match=damage):
        registry.pull(found, tmp_path / "back")


def test_content_that_changed_without_its_size_is_found_where_it_is_read(any_store: Store, leave: Leave) -> None:
    leave({"weights.safetensors": b"weightz"})
    registry = Registry([any_store])
    found = registry.find("fox", pytest.fail)
    assert found.damage == ()
    in_a_bucket = isinstance(any_store, S3Store)
    assert registry.verified(found).damage == (() if in_a_bucket else ("weights.safetensors was changed",))


def test_files_that_a_system_hides_are_no_damage(any_store: Store, leave: Leave, tmp_path: Path) -> None:
    leave({".DS_Store": b"finder", "samples/.thumbnails": b"more"})
    registry = Registry([any_store])
    found = registry.verified(registry.find("fox", pytest.fail))
    assert found.damage == ()
    registry.pull(found, tmp_path / "back")
    assert set(hash_files(tmp_path / "back")) == {"adapter.json", *FILES}


@pytest.mark.parametrize("name", ["", ".", "..", "../adapters/fox", "fox/", "/fox"])
def test_a_path_is_no_name(any_store: Store, leave: Leave, name: str) -> None:
    leave({})
    with pytest.raises(JobError, match="There is no adapter"):
        Registry([any_store]).find(name, pytest.fail)
