"""What holds for a store wherever it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.contract.digest import hash_files
from orchestrator.errors import ConflictError, MachineError, MissingError, OrchestratorError
from orchestrator.storage import DryS3Store, DryStore, FolderStore, S3Store, Store

EXAMPLE = {"name": "Füchslein", "tags": ["a", "b"], "rank": 4}


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("store")


def put(store: Store, tree: Path) -> str:
    with store.staging() as folder:
        shutil.copytree(tree, folder, dirs_exist_ok=True)
        return store.put_tree("data", folder)


def test_a_tree_comes_back_as_it_was(any_store: Store, tree: Path, tmp_path: Path) -> None:
    any_store.get_tree(put(any_store, tree), tmp_path / "back")
    assert hash_files(tmp_path / "back") == hash_files(tree)


def test_equal_content_has_one_uri_and_other_content_another(any_store: Store, tree: Path) -> None:
    first = put(any_store, tree)
    assert put(any_store, tree) == first
    (tree / "a.txt").write_bytes(b"b")
    assert put(any_store, tree) != first


def test_a_tree_that_is_not_there_is_named_as_missing(any_store: Store, tree: Path, tmp_path: Path) -> None:
    uri = put(any_store, tree)
    with pytest.raises(MissingError):
        any_store.get_tree(uri.replace(uri.rstrip("/")[-64:], "0" * 64), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_nothing_that_lies_in_the_way_is_written_over(any_store: Store, tree: Path, tmp_path: Path) -> None:
    uri = put(any_store, tree)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").touch()
    with pytest.raises(MachineError, match="in the way"):
        any_store.get_tree(uri, tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["mine"]


def test_a_value_comes_back_and_can_be_replaced(any_store: Store) -> None:
    any_store.put_json("registry/fox.json", EXAMPLE)
    any_store.put_json("registry/fox.json", {**EXAMPLE, "rank": 8})
    assert any_store.get_json("registry/fox.json") == {**EXAMPLE, "rank": 8}


def test_a_new_value_never_replaces_another_one(any_store: Store) -> None:
    any_store.put_json("registry/fox.json", EXAMPLE, new=True)
    any_store.put_json("registry/fox.json", EXAMPLE, new=True)  # the same: nothing to quarrel about
    with pytest.raises(ConflictError):
        any_store.put_json("registry/fox.json", {}, new=True)
    assert any_store.get_json("registry/fox.json") == EXAMPLE


def test_a_value_that_is_not_there_is_named_as_missing(any_store: Store) -> None:
    with pytest.raises(MissingError):
        any_store.get_json("registry/none.json")


def test_names_are_listed_by_prefix_with_their_sizes(any_store: Store) -> None:
    for name in ("adapters/b.json", "adapters/a.json", "adapters-old/a.json", "other.json"):
        any_store.put_json(name, 12)
    sizes = {name: listed.size for name, listed in any_store.list_prefix("adapters/").items()}
    assert list(sizes.items()) == [("adapters/a.json", 3), ("adapters/b.json", 3)]
    assert any_store.name(any_store.uri("adapters/a.json")) == "adapters/a.json"
    assert len(any_store.list_prefix("")) == 4
    assert any_store.list_prefix("nothing/here") == {}


def adapter(folder: Path, digest_of: Callable) -> None:
    (folder / "samples").mkdir()
    files = {"weights.safetensors": b"weights", "samples/1.png": b"png"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    base = {"id": "builtin", "fingerprint": "f", "family": "sd"}
    manifest = {"recipe": "dreambooth", "config": {}, "base_model": base, "dataset_sha256": "d", "trigger": "sks",
                "bundle_sha256": "b", "libraries": {},
                "files": {name: digest_of(content).model_dump() for name, content in files.items()}}  # fmt: skip
    (folder / "adapter.json").write_text(json.dumps(manifest))


@pytest.fixture
def output(any_store: Store, tmp_path: Path, digest_of: Callable, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Leave an adapter where a job leaves it, changed as a test says."""

    def leave(**changes: bytes | None) -> str:
        folder = tmp_path / "store" / "adapters" / "fox" / "model"
        folder.mkdir(parents=True)
        adapter(folder, digest_of)
        for name, content in changes.items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content)
        if isinstance(any_store, S3Store):
            client = request.getfixturevalue("aws").client("s3")
            for name in hash_files(folder):
                client.upload_file(str(folder / name), "orchestrator-bucket", f"adapters/fox/model/{name}")
        return "adapters/fox/model"

    return leave


def test_an_adapter_comes_as_its_job_left_it(any_store: Store, output: Callable[..., str], tmp_path: Path) -> None:
    any_store.get_tree_at(output(), tmp_path / "back")
    assert set(hash_files(tmp_path / "back")) == {"adapter.json", "weights.safetensors", "samples/1.png"}


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
def test_a_damaged_adapter_does_not_come_at_all(
    any_store: Store, output: Callable[..., str], changes: dict[str, bytes | None], tmp_path: Path
) -> None:
    prefix = output(**changes)
    with pytest.raises(OrchestratorError):
        any_store.get_tree_at(prefix, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert list(tmp_path.glob(".incoming-*")) == []


def test_one_file_of_an_adapter_comes_verified(
    any_store: Store, output: Callable[..., str], digest_of: Callable
) -> None:
    prefix = output()
    assert any_store.get_file(f"{prefix}/samples/1.png", digest_of(b"png")) == b"png"
    for other in (b"pnG", b"pn", b"png and more"):
        with pytest.raises(OrchestratorError):
            any_store.get_file(f"{prefix}/samples/1.png", digest_of(other))
    with pytest.raises(MissingError):
        any_store.get_file(f"{prefix}/samples/2.png", digest_of(b"png"))


def test_a_dry_store_names_the_same_uri_and_lists_what_would_be_stored(
    store: S3Store, tree: Path, tmp_path: Path
) -> None:
    pairs = [
        (DryStore(tmp_path / "store"), FolderStore(tmp_path / "store")),
        (DryS3Store("orchestrator-bucket"), store),
    ]
    for dry, real in pairs:
        uri = dry.put_tree("data", tree)
        assert dry.trees[uri] == hash_files(tree)
        assert put(real, tree) == uri
