"""Values that describe the copies of Hub models in a bucket; `mirror` makes the calls."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class MirroredModel(BaseModel):
    """A model of the Hub that has a copy in a store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    """Version of this layout."""
    id: str
    """Name on the Hub, as in a job's `base_model`: "org/model"."""
    revision: str
    """Branch, tag or commit that was requested."""
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit of that revision when it was mirrored."""
    uri: str
    """URI of the copy."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash over its files, the same as that of the model in a folder."""
    bytes: int = Field(ge=0)
    """Size of all files."""
    mirrored: AwareDatetime
    """Time of the copy."""

    def describe(self) -> str:
        """Return name, commit and local time as one text."""
        local_time = self.mirrored.astimezone()
        return f"{self.id} at {self.commit[:12]}, mirrored {local_time:%Y-%m-%d %H:%M}"


class MirrorAnswer(BaseModel):
    """Whether a copy of a job's base model was looked up in the bucket, and what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: bool
    """False for a dry run, which makes no call."""
    model: MirroredModel | None = None
    """The copy; None without one."""


NOT_ASKED = MirrorAnswer(asked=False)
