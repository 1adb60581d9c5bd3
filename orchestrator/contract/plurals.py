"""Numbers of things in messages."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "3 images". The noun is one whose plural only adds an "s"."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
