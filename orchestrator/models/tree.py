"""A base model as a tree: the files a run reads, and no others of its folder."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.model_layout import model_files
from orchestrator.storage.tree import Tree, tree_of_files


def model_tree(folder: Path, hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree:
    """Hash the files of the model in `folder`; the hash of the tree is part of a job's identity."""
    sources = {}
    for path in model_files(folder):
        name = path.relative_to(folder).as_posix()
        sources[name] = path
    return tree_of_files("models", sources, hash_of)
