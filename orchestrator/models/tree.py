"""A base model as a tree: what a run reads of it and nothing else that lies in its folder."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.families import model_files
from orchestrator.storage.tree import Tree, tree_of_files


def model_tree(folder: Path, hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree:
    """Hash the files of the model in `folder`; the tree's hash is the one that a job's identity has for the model."""
    sources = {path.relative_to(folder).as_posix(): path for path in model_files(folder)}
    return tree_of_files("models", sources, hash_of)
