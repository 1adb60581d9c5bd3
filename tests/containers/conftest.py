"""A bucket, as the tests of `tests/storage` have it."""

from tests.storage.conftest import aws, wire

__all__ = ["aws", "wire"]
