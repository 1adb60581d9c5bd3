"""Pictures of the held-out prompts by the program that drew what the built-in model was trained on.

Their scores tell how much of a reward there is to gain: hardly any model shows a prompt better than they do.
"""

import re
from collections.abc import Sequence

from PIL import Image

from pretraining.pictures import draw
from pretraining.scenes import Background, generator, place

_PROMPT = re.compile(r".* of an? (\w+) (\w+) on an? (?:(\w+) )?(\w+) background")
"""Colour and kind of the thing, pattern and colour of its ground."""
_PLAIN = "plain"
_ANGLE = 45.0
_PITCH = 0.2


def true_pictures(prompts: Sequence[str], of_each: int) -> list[Image.Image]:
    """Draw so many pictures of each prompt, which differ in what it leaves open: size, position, looks of a monster.

    Raises ValueError for a prompt that does not name a thing and its ground.
    """
    pictures = []
    for prompt in prompts:
        named = _PROMPT.fullmatch(prompt)
        if named is None:
            raise ValueError(f'"{prompt}" does not name a thing and its ground')
        colour, kind, pattern, ground = named.groups()
        background = Background(pattern or _PLAIN, ground, _ANGLE, _PITCH)
        for number in range(of_each):
            rng = generator("true", prompt, number)
            scene = place(rng, kind, colour, background)
            pictures.append(draw(scene))
    return pictures
