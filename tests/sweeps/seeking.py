"""Finding pictures and words within a larger picture, to the pixel."""

from PIL import Image, ImageDraw, ImageFont

from orchestrator.sweeps.layout import HEAD_SIZE

PAPER, SHADE = (255, 255, 255), (246, 246, 244)
INK, FAINT, BEST = (20, 20, 20), (112, 112, 112), (0, 122, 61)


def places(page: Image.Image, picture: Image.Image) -> list[tuple[int, int]]:
    """Return left and top of every place where `picture` stands in `page`."""
    found = []
    first = picture.crop((0, 0, picture.width, 1)).tobytes()
    for top in range(page.height - picture.height + 1):
        line = page.crop((0, top, page.width, top + 1)).tobytes()
        start = line.find(first)
        while start >= 0:
            left = start // 3
            box = (left, top, left + picture.width, top + picture.height)
            if start % 3 == 0 and page.crop(box).tobytes() == picture.tobytes():
                found.append((left, top))
            start = line.find(first, start + 1)
    return found


def written(
    text: str, ink: tuple[int, int, int], *, paper: tuple[int, int, int] = PAPER, size: int = 17
) -> Image.Image:
    """Return words as they look on a page."""
    font = ImageFont.load_default(HEAD_SIZE)
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    picture = Image.new("RGB", (right - left, bottom - top), paper)
    ImageDraw.Draw(picture).text((-left, -top), text, fill=ink, font=font)
    return picture
