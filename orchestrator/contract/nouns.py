"""What a prompt is about: the noun with which it says what something is, "brown dog" of "my brown dog in the park"."""

import re
import unicodedata

from orchestrator.contract.words import DETERMINERS, words_around

# Those of German, French, Spanish, Italian, Portuguese and Dutch, without what is an English noun too.
_ARTICLES_ELSEWHERE = {
    *("ein", "eine", "einen", "einem", "einer", "eines", "der", "das", "dem"),
    *("un", "une", "le", "la", "les", "el", "los", "las", "il", "uno", "una", "um", "uma", "het", "een"),
}
_PREPOSITIONS = {
    *("in", "on", "at", "by", "with", "without", "for", "from", "to", "into", "onto", "as", "like", "near", "beside"),
    *("behind", "under", "over", "above", "below", "between", "beneath", "inside", "outside", "against", "around"),
    *("across", "along", "through", "among", "before", "after", "during", "while", "next", "and", "or"),
}
_PREPOSITIONS_ELSEWHERE = {
    *("im", "am", "auf", "mit", "ohne", "vor", "hinter", "unter", "neben", "aus", "bei", "beim", "zu", "zum", "zur"),
    *("und", "dans", "sur", "avec", "sans", "sous", "devant", "derri\u00e8re", "pr\u00e8s", "chez", "et", "\u00e0"),
    *("au", "aux", "en", "con", "sin", "sobre", "bajo", "junto", "y", "su", "nel", "nella", "sulla", "sul", "senza"),
    *("sotto", "davanti", "em", "na", "com", "sem", "sob", "numa", "num", "op", "met", "zonder", "naast", "voor"),
}
# What somebody does, which is seldom a part of a noun as "running" is of "running shoes".
_VERBS = {
    *("is", "are", "was", "were", "has", "that", "which", "who"),
    *("standing", "sitting", "lying", "wearing", "holding", "looking"),
}
# What says how something is or is shown, alone or with others of these: "sks, highly detailed".
_MANNERS = {
    *("running", "walking", "jumping", "sleeping", "playing", "smiling", "laughing", "eating", "drinking", "swimming"),
    *("flying", "dancing", "posing", "riding", "driving", "resting", "waiting", "alone", "together", "asleep", "awake"),
    *("here", "there", "outdoors", "indoors", "highly", "very", "detailed", "realistic", "photorealistic", "hd", "uhd"),
    *("masterpiece", "best", "high", "quality", "sharp", "focus", "cinematic", "bokeh", "closeup", "close-up"),
}
_OF = {"of", "de", "du", "des", "del", "di", "von", "vom", "van"}
"""What goes on with the noun: "bottle of wine"."""
_DETERMINERS = DETERMINERS | _ARTICLES_ELSEWHERE
_NAMELESS = _DETERMINERS | _PREPOSITIONS | _PREPOSITIONS_ELSEWHERE | _VERBS | _OF
"""Words that name nothing."""
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
            return _first_noun(words[place + 1 :]) or _first_noun(words)
    return _first_noun(words)


def bare(word: str) -> str:
    """Return a word without the signs around it: "dog" of "(dog)," and none of "-"."""
    while word and _is_sign(word[0]):
        word = word[1:]
    while word and _is_sign(word[-1]):
        word = word[:-1]
    return word


def _first_noun(words: list[str]) -> list[str]:
    """Return the noun that `words` begin with, up to a sign or a word that names nothing."""
    text = _COMMA.sub(r"\g<0> ", " ".join(words))
    found: list[str] = []
    previous = "of"
    for word in text.split():
        plain = bare(word)
        lower = plain.lower()
        article = lower in _DETERMINERS and previous in _OF
        linked = lower in _OF and bool(found)
        if lower in _NAMELESS | {""} and not article and not linked:
            break
        opened = word[0] != plain[0]
        if opened and found:  # "dog (brown)"
            break
        if found or not article:
            found.append(plain)
        previous = lower
        if _ends(word, plain) and not opened:  # "[old] dog" goes on
            break
    while found and found[-1].lower() in _NAMELESS:
        found.pop()
    if not any(_names(word) for word in found):
        return []
    return found


def _ends(word: str, plain: str) -> bool:
    """Return whether a sign behind a word ends what it is a part of."""
    if len(plain) <= _ABBREVIATED and word.endswith("."):
        return False
    return _is_sign(word[-1])


def _is_sign(character: str) -> bool:
    """Return whether a character is a punctuation mark or a symbol: "," or an emoji."""
    return unicodedata.category(character)[0] in "PS"


def _names(word: str) -> bool:
    """Return whether a word can name a thing: not "123", "4k", "running" or "detailed"."""
    return word[0].isalpha() and word.lower() not in _MANNERS
