"""The members of a stored request that running a job here reads, and their types: the file may have been changed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from orchestrator.requests import Request, channel_uris, identity_of
from orchestrator.storage import folder_of


class _Members(BaseModel):
    """A structure of the request; its fields are the service's members."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        alias_generator=to_pascal,
    )


class _Algorithm(_Members):
    container_entrypoint: Annotated[list[str], Field(min_length=1)]
    """The program and its arguments."""


class _Location(_Members):
    s3_uri: str
    """URI of a folder."""


class _Source(_Members):
    s3_data_source: _Location
    """Where a channel's files are."""


class _Channel(_Members):
    channel_name: str
    """Its folder below `/opt/ml/input/data`."""
    data_source: _Source
    """What lies there."""


class _Output(_Members):
    s3_output_path: str
    """URI of the adapter's folder."""


class _Tag(_Members):
    key: str
    """Name of the tag."""
    value: str
    """Its text."""


class _StoredRequest(_Members):
    algorithm_specification: _Algorithm
    """What is run."""
    hyper_parameters: dict[str, str]
    """The recipe."""
    input_data_config: list[_Channel]
    """What it reads."""
    output_data_config: _Output
    """Where its adapter is published."""
    environment: dict[str, str] = {}
    """Variables of its process."""
    tags: list[_Tag]
    """Among them the job's identity."""


def require_usable(request: Request) -> None:
    """Raise ValueError or KeyError for a request that no job can be run, described or listed with."""
    _StoredRequest.model_validate(request)
    identity_of(request)
    folder_of(request["OutputDataConfig"]["S3OutputPath"])
    for uri in channel_uris(request).values():
        folder_of(uri)
