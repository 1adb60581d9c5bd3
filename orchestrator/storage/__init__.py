"""Content-addressed folders, on this machine or in a bucket: what a job needs is stored once, under its own hash."""

from orchestrator.storage.folder import (
    DryStore,
    FolderStore,
    folder_of,
    scratch_folder,
    sweep,
    sync_tree,
    write_atomically,
)
from orchestrator.storage.s3 import DryS3Store, S3Store
from orchestrator.storage.store import Listed, Progress, Store, TreeStore

__all__ = [
    "DryS3Store",
    "DryStore",
    "FolderStore",
    "Listed",
    "Progress",
    "S3Store",
    "Store",
    "TreeStore",
    "folder_of",
    "scratch_folder",
    "sweep",
    "sync_tree",
    "write_atomically",
]
