"""What is known of the copies of Hub models in a bucket; values only, `mirror` makes the calls."""

from pydantic import AwareDatetime, BaseModel, ConfigDict


class MirroredModel(BaseModel):
    """A model of the Hub that has a copy in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    id: str
    """Its name on the Hub, as a job's `base_model` says it: "org/model"."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """What that was when it was mirrored."""
    uri: str
    """Where the copy is."""
    sha256: str
    """Hash over its files, as a job's identity has it for a model in a folder."""
    bytes: int
    """Size of all of them."""
    mirrored: AwareDatetime
    """When."""

    def describe(self) -> str:
        """Return it as a person says it."""
        return f"{self.id} at {self.commit[:12]}, mirrored {self.mirrored.astimezone():%Y-%m-%d %H:%M}"


class MirrorAnswer(BaseModel):
    """Whether the bucket was asked for a copy of a job's base model, and what it has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    asked: bool
    """False for a dry run, which makes no call."""
    model: MirroredModel | None = None
    """The copy, when there is one."""


NOT_ASKED = MirrorAnswer(asked=False)
