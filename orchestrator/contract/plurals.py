"""Numbers of things in messages."""


def counted(count: float, noun: str) -> str:
    """Return a number with its noun, in whole ones: "1 image", "3 images". The plural only adds an "s"."""
    number = f"{count:.0f}"
    if number == "1":
        return f"1 {noun}"
    return f"{number} {noun}s"
