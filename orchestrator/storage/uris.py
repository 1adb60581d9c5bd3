"""URIs of what is in a store: one rule for each kind of store; makes no call.

A name that ends in "/" is that of a folder: a tree, an adapter, a job's checkpoints. In a bucket the URI keeps the
slash, because a prefix without it would also match its neighbours; the URI of a folder on this machine has none.
"""

from pathlib import Path


def file_uri(root: Path, name: str) -> str:
    """Return the URI of a file or folder below `root`: `file:///home/ada/store/data/0123`."""
    return (root / name).as_uri()


def s3_uri(bucket: str, name: str) -> str:
    """Return the URI of an object or a prefix: `s3://bucket/data/0123/`."""
    return f"s3://{bucket}/{name}"


def folder_name(name: str) -> str:
    """Return the name of a folder with one slash at its end, with or without one in `name`."""
    return f"{name.rstrip('/')}/"
