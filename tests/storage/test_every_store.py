"""What every store does, in a folder and in a bucket."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.contract.digest import FileDigest, hash_files
from orchestrator.errors import ConflictError, MachineError, MissingError, OrchestratorError, SpecError
from orchestrator.storage import FolderStore, Store
from orchestrator.storage.store import MAX_TEXT_BYTES
from orchestrator.storage.tree import Tree, tree_of_folder

EXAMPLE = {"name": "Füchslein", "tags": ["a", "b"], "rank": 4}


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("store")


def test_a_tree_comes_back_as_it_was(any_store: Store, tree: Tree, tmp_path: Path) -> None:
    any_store.put_tree(tree)
    any_store.get_files(tree.name, tree.files, tmp_path / "back")
    assert hash_files(tmp_path / "back") == tree.files


def test_the_uri_of_a_tree_is_known_before_it_is_stored(any_store: Store, tree: Tree) -> None:
    assert any_store.list_prefix(tree.name) == {}
    assert any_store.put_tree(tree) == any_store.uri(tree.name)
    assert set(any_store.list_prefix(tree.name)) == {tree.name + name for name in tree.files}


def test_the_files_of_a_tree_may_be_anywhere(any_store: Store, tree: Tree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(tree.sources["a.txt"].read_bytes())
    moved = tree.model_copy(update={"sources": {**tree.sources, "a.txt": elsewhere}})
    tree.sources["a.txt"].unlink()
    any_store.put_tree(moved)
    any_store.get_files(tree.name, tree.files, tmp_path / "back")
    assert elsewhere.exists()


def test_equal_content_has_one_name_and_other_content_another(
    any_store: Store,
    tree: Tree,
    tmp_path: Path,
) -> None:
    first = any_store.put_tree(tree)
    assert any_store.put_tree(tree_of_folder("data", tmp_path / "tree")) == first
    (tmp_path / "tree" / "a.txt").write_bytes(b"b")
    assert any_store.put_tree(tree_of_folder("data", tmp_path / "tree")) != first


def test_a_file_that_changed_since_it_was_hashed_is_not_stored(tree: Tree, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")  # in a bucket S3 refuses it, which moto does not
    tree.sources["unet/weights"].write_bytes(b"W" * 3000)
    with pytest.raises(MachineError, match="changed while it was stored"):
        store.put_tree(tree)
    assert list(store.root.rglob("*")) == []
    tree.sources["unet/weights"].write_bytes(b"w" * 3000)
    store.put_tree(tree)


def test_missing_files_are_reported(any_store: Store, tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        any_store.get_files(tree.name, tree.files, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_existing_folder_is_not_overwritten(
    any_store: Store,
    tree: Tree,
    tmp_path: Path,
) -> None:
    any_store.put_tree(tree)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").touch()
    with pytest.raises(MachineError, match="exists and is not empty"):
        any_store.get_files(tree.name, tree.files, tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../escaped", "/var/escaped", "a/../../escaped"])
def test_no_file_is_written_outside_the_folder(
    any_store: Store, name: str, tmp_path: Path, digest_of: Callable[[bytes], FileDigest]
) -> None:
    with pytest.raises(OrchestratorError) as raised:
        any_store.get_files("data", {name: digest_of(b"evil")}, tmp_path / "deep" / "back")
    assert [problem.where for problem in raised.value.problems] == [name]


def test_a_folder_is_named_with_and_without_its_slash(
    any_store: Store,
    tree: Tree,
    tmp_path: Path,
) -> None:
    any_store.put_tree(tree)
    for number, prefix in enumerate((tree.name, tree.name.rstrip("/"), any_store.name(any_store.uri(tree.name)))):
        any_store.get_files(prefix, tree.files, tmp_path / f"back-{number}")


def test_the_bytes_of_a_small_file_are_returned(any_store: Store, tree: Tree) -> None:
    any_store.put_tree(tree)
    assert any_store.get_bytes(f"{tree.name}a.txt") == b"a"
    with pytest.raises(MissingError):
        any_store.get_bytes(f"{tree.name}b.txt")


def test_one_file_is_verified(
    any_store: Store,
    tree: Tree,
    digest_of: Callable[[bytes], FileDigest],
) -> None:
    any_store.put_tree(tree)
    assert any_store.get_file(f"{tree.name}a.txt", digest_of(b"a")) == b"a"
    for other in (b"b", b"a and more"):
        with pytest.raises(OrchestratorError):
            any_store.get_file(f"{tree.name}a.txt", digest_of(other))
    with pytest.raises(MissingError):
        any_store.get_file(f"{tree.name}b.txt", digest_of(b"a"))


def test_a_value_comes_back_and_can_be_replaced(any_store: Store) -> None:
    any_store.put_json("registry/fox.json", EXAMPLE)
    any_store.put_json("registry/fox.json", {**EXAMPLE, "rank": 8})
    assert any_store.get_json("registry/fox.json") == {**EXAMPLE, "rank": 8}


def test_bytes_come_back_as_they_were_and_can_be_replaced(any_store: Store) -> None:
    any_store.put_bytes("labels/ada.jsonl", b"\xff one")
    any_store.put_bytes("labels/ada.jsonl", b"\xff one\ntwo")
    assert any_store.get_bytes("labels/ada.jsonl") == b"\xff one\ntwo"


def test_a_new_value_never_replaces_another_one(any_store: Store) -> None:
    any_store.put_json("registry/fox.json", EXAMPLE, new=True)
    any_store.put_json("registry/fox.json", EXAMPLE, new=True)  # idempotent
    with pytest.raises(ConflictError):
        any_store.put_json("registry/fox.json", {}, new=True)
    assert any_store.get_json("registry/fox.json") == EXAMPLE


def test_a_missing_value_is_reported(any_store: Store) -> None:
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


def test_a_listing_is_of_names_that_begin_with_the_prefix_and_of_no_others(any_store: Store) -> None:
    for name in ("adapters/a.json", "adapters/ab/c.json", "adapters/b.json", "manifests/a.json"):
        any_store.put_json(name, 1)
    assert list(any_store.list_prefix("adapters/a")) == ["adapters/a.json", "adapters/ab/c.json"]
    assert list(any_store.list_prefix("adapters/ab/")) == ["adapters/ab/c.json"]
    assert list(any_store.list_prefix("a")) == ["adapters/a.json", "adapters/ab/c.json", "adapters/b.json"]


def test_a_uri_of_another_store_has_no_name_in_this_one(any_store: Store, tmp_path: Path) -> None:
    for uri in ((tmp_path / "elsewhere").as_uri(), "s3://another-bucket/adapters/"):
        with pytest.raises(SpecError, match="is not in"):
            any_store.name(uri)


def test_a_tree_whose_files_were_deleted_is_stored_again(tree: Tree, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put_tree(tree)
    stored = store.root / tree.name
    for damage in ((stored / "a.txt").unlink, lambda: (stored / "a.txt").write_bytes(b"longer")):
        damage()
        store.put_tree(tree)
        assert hash_files(stored) == tree.files
    shutil.rmtree(stored)
    stored.write_bytes(b"a file in its place")
    store.put_tree(tree)
    assert hash_files(stored) == tree.files


def test_odd_files_in_a_folder_are_neither_listed_nor_fatal(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put_json("adapters/a.json", 1)
    (tmp_path / "adapters" / ".hidden").touch()
    (tmp_path / "adapters" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "adapters" / "round").symlink_to(tmp_path / "adapters" / "round")
    (tmp_path / "adapters" / "folder.json").mkdir()
    assert list(store.list_prefix("adapters/")) == ["adapters/a.json"]
    with pytest.raises(MachineError, match="cannot be read: Is a directory"):
        store.get_bytes("adapters/folder.json")
    with pytest.raises(MissingError):
        store.get_bytes("adapters/a.json/b.json")


def test_no_more_is_read_of_a_text_than_one_may_have(tmp_path: Path) -> None:
    (tmp_path / "adapter.json").touch()
    os.truncate(tmp_path / "adapter.json", MAX_TEXT_BYTES + 1)
    with pytest.raises(MachineError, match="has more than"):
        FolderStore(tmp_path).get_bytes("adapter.json")


def test_a_file_that_is_gone_since_it_was_hashed_is_named(any_store: Store, tree: Tree) -> None:
    tree.sources["a.txt"].unlink()
    with pytest.raises(MachineError, match=r"a\.txt is gone since it was read"):
        any_store.put_tree(tree)
