"""Content-addressed trees, on this machine or in a bucket: what a job needs is stored once, under its own hash."""

from orchestrator.storage.files import remove_abandoned, scratch_folder, sync_tree, write_atomically
from orchestrator.storage.folder import FolderStore, folder_of
from orchestrator.storage.s3 import S3Store
from orchestrator.storage.store import Listed, Progress, Store

__all__ = [
    "FolderStore",
    "Listed",
    "Progress",
    "S3Store",
    "Store",
    "folder_of",
    "remove_abandoned",
    "scratch_folder",
    "sync_tree",
    "write_atomically",
]
