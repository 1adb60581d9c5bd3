"""What a prompt is about: the noun with which it says what something is, "brown dog" of "my brown dog in the park"."""

import re
import unicodedata

from orchestrator.contract.words import DETERMINERS, words_around

# Those of German, French, Spanish, Italian, Portuguese and Dutch, without what is an English noun too.
_DETERMINERS = DETERMINERS | {
    *("ein", "eine", "einen", "einem", "einer", "eines", "der", "das", "dem"),
    *("un", "une", "le", "les", "el", "los", "il", "uno", "una", "um", "uma", "het", "een", "la"),
}
_OF = {"of", "de", "du", "des", "del", "di", "von", "vom"}
_AND = {"and", "or", "und", "et"}
_LINKS = _OF | _AND
"""What goes on with a noun: "bottle of wine", "black and white cat"."""
_ENDS = {
    *("in", "on", "at", "by", "with", "without", "for", "from", "to", "into", "onto", "as", "like", "near", "beside"),
    *("behind", "under", "over", "above", "below", "between", "beneath", "inside", "outside", "against", "around"),
    *("across", "along", "through", "among", "before", "during", "while"),
    *("is", "are", "was", "were", "has", "that", "which", "who", "wearing", "holding"),
    *(
        "im",
        "am",
        "auf",
        "mit",
        "ohne",
        "vor",
        "hinter",
        "unter",
        "neben",
        "dans",
        "sur",
        "avec",
        "sans",
        "sous",
        "devant",
    ),
    *("con", "sin", "sobre", "en", "nel", "nella", "sul", "sulla", "senza"),
}
"""What begins to say something else: prepositions, verbs."""
_MANNERS = {
    *("standing", "sitting", "lying", "looking", "next", "running", "walking", "jumping", "sleeping", "playing"),
    *("smiling", "laughing", "eating", "drinking", "swimming", "flying", "dancing", "posing", "riding", "driving"),
    *("resting", "waiting", "alone", "together", "asleep", "awake", "here", "there", "outdoors", "indoors"),
    *("highly", "very", "detailed", "realistic", "photorealistic", "hd", "uhd", "masterpiece", "best", "high"),
    *("quality", "sharp", "focus", "cinematic", "bokeh", "closeup", "close-up"),
}
"""What says how something is or is shown when it stands alone or last: "dog running", and not "running shoes"."""

_ABBREVIATED = 2
"""Letters of a word whose full stop may be no end of a sentence: "st. bernard"."""
_COMMA = re.compile("[,;\u3001\u3002\uff0c]")
"""Signs that end a word without a space behind them."""


def noun_behind(text: str, word: str) -> list[str]:
    """Return the words behind the first `word` of `text` that say what it is, without their article.

    "dog" of "a photo of sks dog, on a beach", "toy" of "sks, a toy", none of "a photo of sks on a beach". What stands
    before the word tells nothing: in "ein Foto von sks" that is a preposition, of a language unknown here.
    """
    _, behind = words_around(text, word)
    return _first_noun(behind)


def noun_of(prompt: str) -> list[str]:
    """Return the words of a prompt that say what is in the picture: "dog" of "a photo of a dog on a beach"."""
    words = prompt.split()
    for place, word in enumerate(words):
        if word.lower() in _OF:
            return _first_noun(words[place + 1 :])
    return _first_noun(words)


def bare(word: str) -> str:
    """Return a word without the signs around it: "dog" of "(dog)," and none of "-"."""
    while word and _is_sign(word[0]):
        word = word[1:]
    while word and _is_sign(word[-1]):
        word = word[:-1]
    return word


def _first_noun(words: list[str]) -> list[str]:
    """Return the noun that `words` begin with, up to a sign or a word that begins to say something else."""
    apart = _COMMA.sub(r"\g<0> ", " ".join(words)).split()
    found: list[str] = []
    for place, word in enumerate(apart):
        plain = bare(word)
        lower = plain.lower()
        is_enclosed = not word.startswith(plain)
        if lower in _ENDS | {""} or (is_enclosed and found):  # "dog (brown)"
            break
        if lower in _LINKS and not (found and _goes_on(lower, apart[place + 1 :])):
            break
        if lower in _DETERMINERS and found and found[-1].lower() not in _LINKS:
            break
        if found or lower not in _DETERMINERS:
            found.append(plain)
        if _ends(word, plain) and not is_enclosed:  # "[old] dog" goes on
            break
    while found and found[-1].lower() in _DETERMINERS | _LINKS | _MANNERS:
        found.pop()
    if not any(word[0].isalpha() for word in found):
        return []
    return found


def _goes_on(link: str, behind: list[str]) -> bool:
    """Return whether a linking word goes on with the noun: "of" does, "and" unless it begins another, "and a cat"."""
    if link in _OF:
        return True
    following = bare(behind[0]).lower() if behind else ""
    return following not in _DETERMINERS | _ENDS | {""}


def _ends(word: str, plain: str) -> bool:
    """Return whether a sign behind a word ends what it is a part of; not the full stop of "st." or "U.S."."""
    is_abbreviation = len(plain) <= _ABBREVIATED or "." in plain
    if is_abbreviation and word.endswith("."):
        return False
    return _is_sign(word[-1])


def _is_sign(character: str) -> bool:
    """Return whether a character is a punctuation mark or a symbol: "," or an emoji."""
    return unicodedata.category(character)[0] in "PS"
