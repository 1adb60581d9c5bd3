"""Whether a model's vocabulary suits the word that is to be learned."""

from collections.abc import Sequence

from orchestrator.contract.tokens import Token, Tokenizer
from orchestrator.contract.words import composed

MOST_PIECES = 4
"""Tokens of a rare token that is still short enough to mean one thing."""
COMMON_IDS = 20_000
"""Ids of common words: a vocabulary is in the order of frequency. Of CLIP's, "dog" has 1929, "sks" 48136."""

_SIGNS = "<>|[](){}/\\"
"""What people and vocabularies put around words that are none of a language."""

Fault = tuple[str, str]
"""What is wrong with a word, and what to do."""


def placeholder_fault(tokenizer: Tokenizer, placeholder: str, vectors: int) -> Fault | None:
    """Return why a placeholder cannot be added to a vocabulary, and what to do; None when it can.

    Its tokens are "<x>", "<x>_1", "<x>_2", ..., one for each of its vectors.
    """
    for word in placeholder_tokens(placeholder, vectors):
        if _is_known(tokenizer, word):
            bare = placeholder.strip(_SIGNS) or "word"
            what = f'The placeholder "{word}" is in the vocabulary of this model already.'
            advice = f'Choose a new word, for example placeholder_token="<my-{bare}>".'
            return what, advice
    # A prompt is read in lower case, and only a word that is found there is replaced by all its tokens.
    lower = composed(placeholder).lower()
    if vectors > 1 and placeholder != lower:
        bare = lower.strip(_SIGNS) or "word"
        what = f'This model does not read "{placeholder}" as a word of its own.'
        advice = f'Write it in lower case and angle brackets: placeholder_token="<{bare}>".'
        return what, advice
    return None


def _is_known(tokenizer: Tokenizer, word: str) -> bool:
    """Return whether a word is one token already: CLIP lowers the case, and marks the end of a word with "</w>"."""
    lower = word.lower()
    spellings = (word, lower, f"{lower}</w>")
    return any(tokenizer.knows(spelling) for spelling in spellings)


def placeholder_tokens(placeholder: str, vectors: int) -> list[str]:
    """Return the tokens of a placeholder, as diffusers names those of a learned word."""
    tokens = [placeholder]
    for number in range(1, vectors):
        tokens.append(f"{placeholder}_{number}")
    return tokens


def initializer_fault(tokenizer: Tokenizer, word: str) -> Fault | None:
    """Return why new vectors cannot start from a word, and what to do; None when it is one token."""
    text = composed(word)
    tokens = tokenizer.read(text)
    count = len(tokens)
    advice = "Choose a plain word for the subject, for example initializer_token=toy."
    if count != 1:
        pieces = _pieces(text, tokens)
        what = f'The initializer "{word}" is {count} tokens of this model ({pieces}); it must be one.'
        return what, advice
    if tokens[0].id == tokenizer.unknown:
        what = f'The initializer "{word}" is not in the vocabulary of this model.'
        return what, advice
    return None


def rare_token_doubt(tokenizer: Tokenizer, rare: str) -> Fault | None:
    """Return why a rare token may be learned badly, and what to do; None for a good one.

    A word that is one long token has a meaning of its own, which training works against; one that is many pieces
    is spelled, not named (DreamBooth, arXiv 2208.12242, sec. 3.1).
    """
    text = composed(rare)
    tokens = tokenizer.read(text)
    count = len(tokens)
    advice = "a word of three or four letters that means nothing, such as sks, is learned best"
    if count > MOST_PIECES:
        pieces = _pieces(text, tokens)
        what = f'"{rare}" is {count} tokens of this model ({pieces})'
        return what, advice
    if count == 1 and tokens[0].id < COMMON_IDS:
        what = f'"{rare}" is a common word of this model, whose meaning gets in the way'
        return what, advice
    return None


def _pieces(text: str, tokens: Sequence[Token]) -> str:
    """Return the characters of each token of a text, with spaces between them."""
    pieces = [text[token.start : token.end] for token in tokens]
    return " ".join(pieces)
