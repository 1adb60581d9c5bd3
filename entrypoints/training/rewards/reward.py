"""What a reward is to the code that trains on it."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image


class Reward(Protocol):
    """A function of images and their prompts, which changes nothing: equal images have equal scores."""

    name: str
    """What people call it."""

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],
    ) -> list[float | None]:
        """Return one number for each image; more is better, and None is no judgement.

        Images of one prompt in one round have the same number in `groups`. A pointwise reward takes no notice of it; a
        groupwise one judges the images of a group beside each other, so all of them have to be there.
        """
        ...
