"""A base model, or a scorer, as a tree: the files a run reads, and no others of its folder."""

from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.model_layout import checker_files, clip_files, model_files
from orchestrator.storage.tree import Tree, tree_of_files

_KIND = "models"


def model_name(sha256: str) -> str:
    """Return the name of the tree with that hash in a store: `models/<sha256>/`."""
    return f"{_KIND}/{sha256}/"


def model_tree(folder: Path, hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree:
    """Hash the files of the model in `folder`; the hash of the tree is part of a job's identity."""
    return _tree(folder, model_files(folder), hash_of)


def served_tree(
    folder: Path,
    hash_of: Callable[[Path], FileDigest] = hash_file,
    *,
    checker: bool = True,
) -> Tree:
    """Hash the files that a server reads of the model in `folder`: with `checker`, its safety checker's too."""
    paths = model_files(folder)
    if checker:
        paths += checker_files(folder)
    return _tree(folder, paths, hash_of)


def scorer_tree(folder: Path, hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree:
    """Hash the files of the CLIP in `folder`, which measures a job's figures."""
    return _tree(folder, clip_files(folder), hash_of)


def _tree(folder: Path, paths: Iterable[Path], hash_of: Callable[[Path], FileDigest]) -> Tree:
    sources = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        sources[name] = path
    return tree_of_files(_KIND, sources, hash_of)
