"""Words for a scene: many phrasings, attributes left out at random, now and then a word that means nothing.

Whatever a caption says is true of the picture. What it leaves out may be anything, so short prompts work too.
"""

import random

from pretraining.scenes import MONSTER, Background, Monster, Scene, chance

OPENINGS = (
    "a photo of",
    "a photo of",
    "a photo of",
    "a picture of",
    "an image of",
    "a drawing of",
    "a painting of",
    "a rendering of",
    "a close-up photo of",
    "a cropped photo of",
    "a good photo of",
    "a bright photo of",
    "a dark photo of",
    "the photo of",
    "a depiction of",
    "a rendition of",
    "an illustration of",
)
DETERMINERS = ("a", "a", "a", "a", "a", "the", "my", "one", "this")
FILLERS = ("nice", "cool", "clean", "weird", "cute", "funny", "toy", "simple")
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
PLACE_WORDS = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
    "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
    "centre": ("in the middle", "in the center"),
}
PATTERN_NOUNS = {"striped": "stripes", "dotted": "dots", "checkered": "checks", "gradient": "a gradient"}
BODY_WORDS = {"round": "round", "tall": "tall", "wide": "wide", "square": "boxy"}
NUMBERS = ("no", "one", "two", "three")
SINGULAR = {"horns": "horn", "ears": "ear", "antennae": "antenna", "eyes": "eye", "legs": "leg"}
MOUTH_WORDS = {"smile": ("a smile", "a smiling mouth"), "teeth": ("teeth", "sharp teeth"), "open": ("an open mouth",)}
RARE_TOKEN = "sks"  # noqa: S105 - the word DreamBooth prompts use; training must not know it

NONCE_SHARE = 0.1


def caption(scene: Scene, rng: random.Random, *, telling: bool = False) -> str:
    """Return one caption of the scene; training draws several per picture, none says anything untrue.

    A `telling` one names up to four parts of a monster, and always some.
    """
    thing = noun_phrase(scene, rng)
    ground = background_phrase(scene.background, rng) if chance(rng, 0.8) else ""
    listed = chance(rng, 0.12)
    if listed and ground:
        return f"{with_nonce(thing, rng)}, {ground}"
    opening = rng.choice(OPENINGS) if chance(rng, 0.7) else ""
    text = f"{determined(with_nonce(thing, rng), rng)}{details(scene, rng, telling=telling)}{place_phrase(scene, rng)}"
    if ground:
        text = f"{text} {rng.choice(('on', 'on', 'on', 'in front of', 'against'))} {article(ground)}"
    return f"{opening} {text}".strip()


def lesson(scene: Scene, rng: random.Random) -> str:
    """Return a caption of a monster that names what grows on its head, mostly its eyes, and up to two other parts."""
    looks = scene.monster
    if looks is None:
        message = f"The scene shows a {scene.kind}, not a monster."
        raise ValueError(message)
    named = [EYES] if chance(rng, 0.8) else []
    if looks.top != "bald":
        named.append(TOP)
    parts = monster_parts(looks, rng)
    others = [index for index in range(len(parts)) if index not in {EYES, *named}]
    named += rng.sample(others, k=rng.choice((0, 0, 1, 2)))
    thing = determined(with_nonce(noun_phrase(scene, rng), rng), rng)
    ground = article(background_phrase(scene.background, rng))
    told = " and ".join(parts[index] for index in sorted(named or [EYES]))
    return f"{rng.choice(OPENINGS)} {thing} with {told}{place_phrase(scene, rng)} on {ground}"


def full_prompt(scene: Scene, rng: random.Random, *, sized: bool) -> str:
    """Return a caption that names kind, colour, background and its pattern, and if `sized` a size other than medium."""
    pattern = scene.background.pattern
    ground = f"{scene.background.colour} background"
    ground = ground if pattern == "plain" else f"{'gradient' if pattern == 'gradient' else pattern} {ground}"
    size = f"{scene.size} " if sized and scene.size != "medium" else ""
    opening = rng.choice(("a photo of", "a picture of", "an image of", "a drawing of"))
    return f"{opening} {article(f'{size}{scene.colour} {scene.kind}')} on {article(ground)}"


def monster_prompt(scene: Scene, rng: random.Random) -> str:
    """Return a full prompt for a monster that also names its eyes and what grows on its head."""
    looks = scene.monster
    if looks is None:
        message = f"The scene shows a {scene.kind}, not a monster."
        raise ValueError(message)
    thing, ground = full_prompt(scene, rng, sized=False).split(" on ")
    parts = [counted(looks.eyes, "eyes")]
    if looks.top != "bald":
        parts.append(counted(looks.top_count, looks.top))
    return f"{thing} with {' and '.join(parts)} on {ground}"


def noun_phrase(scene: Scene, rng: random.Random) -> str:
    """Return the object without its article, for example "small red circle" or "boxy purple monster"."""
    words = [rng.choice(FILLERS)] if chance(rng, 0.08) else []
    if scene.size in SIZE_WORDS and chance(rng, 0.6):
        words.append(rng.choice(SIZE_WORDS[scene.size]))
    if scene.monster and chance(rng, 0.25):
        words.append(BODY_WORDS[scene.monster.body])
    if not chance(rng, 0.25 if scene.monster else 0.08):
        words.append(scene.colour)
    return " ".join([*words, scene.kind])


def with_nonce(thing: str, rng: random.Random) -> str:
    """Put a meaningless word before the noun in a tenth of the phrases."""
    if not chance(rng, NONCE_SHARE):
        return thing
    *words, noun = thing.split()
    return " ".join([*words, nonce(rng), noun])


def nonce(rng: random.Random) -> str:
    """Return a made-up word of two to seven letters, never `RARE_TOKEN`."""
    word = RARE_TOKEN
    while word == RARE_TOKEN:
        if chance(rng, 0.5):
            word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.choice((2, 3, 3, 3, 4, 5))))
        else:
            word = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((1, 2, 2, 3))))
            word += rng.choice(("", "n", "x", "k", "s"))
    return word


def determined(thing: str, rng: random.Random) -> str:
    """Put an article or another determiner before a phrase."""
    word = rng.choice(DETERMINERS)
    return article(thing) if word == "a" else f"{word} {thing}"


def article(phrase: str) -> str:
    """Put "a" or "an" before a phrase."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def place_phrase(scene: Scene, rng: random.Random) -> str:
    """Name the position, mostly when it is not the centre."""
    share = 0.1 if scene.position == "centre" else 0.6
    return f" {rng.choice(PLACE_WORDS[scene.position])}" if chance(rng, share) else ""


def background_phrase(ground: Background, rng: random.Random) -> str:
    """Return the background without its article, for example "striped blue background"."""
    colour = ground.colour if chance(rng, 0.93) else ""
    pattern = ground.pattern
    word = pattern if chance(rng, 0.2 if pattern == "plain" else 0.87) else ""
    if word in PATTERN_NOUNS and chance(rng, 0.2):
        return f"{colour} background with {PATTERN_NOUNS[word]}".strip()
    words = [word, colour] if chance(rng, 0.75) else [colour, word]
    return " ".join([*filter(None, words), "background"])


def details(scene: Scene, rng: random.Random, *, telling: bool) -> str:
    """Return " with ..." and some of a monster's parts; nothing for plain shapes."""
    if scene.kind != MONSTER or scene.monster is None or (not telling and chance(rng, 0.35)):
        return ""
    parts = monster_parts(scene.monster, rng)
    count = rng.choice((2, 3, 4) if telling else (1, 2, 3))
    chosen = sorted(rng.sample(range(len(parts)), k=min(len(parts), count)))
    return f" with {' and '.join(parts[i] for i in chosen)}"


EYES, TOP = 0, 2
"""Where they are among a monster's parts; a bald one has no top."""


def monster_parts(looks: Monster, rng: random.Random) -> list[str]:
    """Return a phrase for each part that the monster has."""
    parts = [counted(looks.eyes, "eyes"), rng.choice(MOUTH_WORDS[looks.mouth])]
    if looks.top != "bald":
        parts.append(counted(looks.top_count, looks.top, looks.top_colour if chance(rng, 0.7) else ""))
    if looks.skin != "plain":
        parts.append(f"{looks.skin_colour} {looks.skin}" if chance(rng, 0.7) else looks.skin)
    if looks.arms != "none":
        parts.append({"up": "arms up", "down": "arms down"}[looks.arms])
    parts.append(counted(looks.legs, "legs"))
    return parts


def counted(number: int, noun: str, colour: str = "") -> str:
    """Return a number with its noun, for example "one orange horn" or "no legs"."""
    words = [NUMBERS[number], colour, SINGULAR[noun] if number == 1 else noun]
    return " ".join(filter(None, words))
