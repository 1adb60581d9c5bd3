"""The code that a job runs, stored under the hash of its bytes.

A job keeps the bundle it was submitted with, also when it is resumed after the code has changed.
"""

from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.resources import ENTRYPOINTS, PACKAGE
from orchestrator.storage.tree import Tree, tree_of_files


def bundle_tree(kind: BundleKind) -> Tree:
    """Return the code of this installation, of one kind of bundle, as a tree."""
    return tree_of_files("code", bundle_files(kind, PACKAGE, ENTRYPOINTS))
