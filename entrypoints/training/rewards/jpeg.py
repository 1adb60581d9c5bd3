"""How large an image is as a JPEG: DDPO's rewards that need no network (arXiv 2305.13301, sec. 5.1)."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from orchestrator.contract.rewards import JPEG_COMPRESSIBILITY, JPEG_INCOMPRESSIBILITY

QUALITY = 95
BYTES_PER_KILOBYTE = 1000


class JpegIncompressibility:
    """Kilobytes of an image as a JPEG."""

    name = JPEG_INCOMPRESSIBILITY.name
    sign = 1
    """Whether more kilobytes are better."""

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],  # noqa: ARG002 - of the protocol
        groups: Sequence[int],  # noqa: ARG002 - of the protocol
    ) -> list[float | None]:
        """Return the score of each image."""
        return [self.sign * kilobytes(image) for image in images]


class JpegCompressibility(JpegIncompressibility):
    """Minus the kilobytes of an image as a JPEG."""

    name = JPEG_COMPRESSIBILITY.name
    sign = -1


def kilobytes(image: Image.Image) -> float:
    """Return the size of an image as a JPEG, in thousands of bytes; of its pixels alone, without its metadata."""
    plain = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    file = BytesIO()
    plain.save(file, format="JPEG", quality=QUALITY)
    return len(file.getvalue()) / BYTES_PER_KILOBYTE
