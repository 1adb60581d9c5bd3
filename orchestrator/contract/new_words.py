"""Whether a model's vocabulary suits the word that is to be learned."""

from orchestrator.contract.tokens import Tokenizer
from orchestrator.contract.words import composed

MOST_PIECES = 4
"""Tokens of a rare token that is still short enough to mean one thing."""
COMMON_IDS = 20_000
"""Ids of common words: a vocabulary is in the order of frequency. Of CLIP's, "dog" has 1929, "sks" 48136."""


def placeholder_fault(tokenizer: Tokenizer, placeholder: str, vectors: int) -> tuple[str, str] | None:
    """Return why a placeholder cannot be added to a vocabulary, and what to do; None when it can.

    Its tokens are "<x>", "<x>_1", "<x>_2", ..., one for each of its vectors.
    """
    for word in placeholder_tokens(placeholder, vectors):
        lower = word.lower()
        # CLIP lowers the case of a prompt and marks the end of a word with "</w>".
        spellings = {word, lower, f"{lower}</w>"}
        if any(tokenizer.knows(spelling) for spelling in spellings):
            bare = placeholder.strip("<>")
            return (
                f'The placeholder "{word}" is in the vocabulary of this model already.',
                f'Choose a new word, for example placeholder_token="<my-{bare}>".',
            )
    lower = composed(placeholder).lower()
    if vectors > 1 and placeholder != lower:
        # A prompt is read in lower case, and only a word that is found there is replaced by all its tokens.
        return (
            f'This model does not read "{placeholder}" as a word of its own.',
            f'Write it in lower case and angle brackets: placeholder_token="<{lower.strip("<>")}>".',
        )
    return None


def placeholder_tokens(placeholder: str, vectors: int) -> list[str]:
    """Return the tokens of a placeholder, as diffusers names those of a learned word."""
    return [placeholder, *(f"{placeholder}_{number}" for number in range(1, vectors))]


def initializer_fault(tokenizer: Tokenizer, word: str) -> tuple[str, str] | None:
    """Return why new vectors cannot start from a word, and what to do; None when it is one token."""
    tokens = tokenizer.read(word)
    pieces = " ".join(word[token.start : token.end] for token in tokens)
    advice = "Choose a plain word for the subject, for example initializer_token=toy."
    if len(tokens) != 1:
        return f'The initializer "{word}" is {len(tokens)} tokens of this model ({pieces}); it must be one.', advice
    if tokens[0].id == tokenizer.unknown:
        return f'The initializer "{word}" is not in the vocabulary of this model.', advice
    return None


def rare_token_doubt(tokenizer: Tokenizer, rare: str) -> tuple[str, str] | None:
    """Return why a rare token may be learned badly, and what to do; None for a good one.

    A word that is one long token has a meaning of its own, which training works against; one that is many pieces
    is spelled, not named (DreamBooth, arXiv 2208.12242, sec. 3.1).
    """
    tokens = tokenizer.read(rare)
    advice = "a word of three or four letters that means nothing, such as sks, is learned best"
    if len(tokens) > MOST_PIECES:
        pieces = " ".join(composed(rare)[token.start : token.end] for token in tokens)
        return f'"{rare}" is {len(tokens)} tokens of this model ({pieces})', advice
    if len(tokens) == 1 and tokens[0].id < COMMON_IDS:
        return f'"{rare}" is a common word of this model, whose meaning gets in the way', advice
    return None
