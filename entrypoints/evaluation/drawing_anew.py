"""Held-out pictures are drawn anew: without a map, from their own maps, and from those of other pictures."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor, nn

from entrypoints.conditions.shown import bytes_of
from entrypoints.evaluation.comparison import Drawn
from entrypoints.evaluation.control_agreement import DrawnAnew
from entrypoints.evaluation.held_out import HeldOut
from entrypoints.evaluation.kept_drawing import KeptDrawing, Steering
from entrypoints.evaluation.samples import IndexedImage
from entrypoints.models.base import BaseModel
from entrypoints.models.image_cache import ImageCache
from entrypoints.models.sampling import DrawRequest
from orchestrator.contract.evaluation import MOST_LETTERS, Evaluation, EvaluationPrompts, Way, ways_of
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.samples import MOST_REAL, WITHOUT_WORDS, SampleImage, Source


def draw_anew(
    *,
    drawing: KeptDrawing,
    network: nn.Module,
    cache: ImageCache,
    adapter_sha256: str,
    pictures: Sequence[HeldOut],
    asked: EvaluationPrompts,
    settings: Evaluation,
) -> DrawnAnew:
    """Draw every picture with every seed in every way; `asked` has its prompts.

    `cache` is that of the base model alone.
    """
    plain = []
    steered = []
    for prompt in asked.prompts:
        for seed in settings.all_seeds:
            plain.append(DrawRequest(prompt.before, seed))
            steered.append(DrawRequest(prompt.after, seed))
    base = drawing.draw(plain, cache)
    cache = cache.with_adapter(adapter_sha256, settings.weight)
    ways = {}
    for way in ways_of(settings.conditions):
        shown = []
        for kind in way.kinds:
            maps = _shown(pictures, kind, settings.seeds, is_own=way.is_own)
            shown.append(maps)
        steering = Steering(network, settings.weight, shown)
        ways[way] = drawing.draw(steered, cache, steering)
    decoded = [_decoded(drawing.base, each.picture) for each in pictures]
    return DrawnAnew(base, ways, decoded)


def _shown(pictures: Sequence[HeldOut], kind: str, seeds: int, *, is_own: bool) -> list[Tensor]:
    """Return the map of each image: that of its own picture, or of the next one."""
    shown = []
    for number in range(len(pictures)):
        place = number
        if not is_own:
            place = (number + 1) % len(pictures)
        pixels = bytes_of(pictures[place].maps[kind].shown)
        shown += [pixels] * seeds
    return shown


def _decoded(base: BaseModel, picture: Image.Image) -> Image.Image:
    """Return a picture after its way through the autoencoder, which is all that an image can be of it."""
    moments = base.encode_images([picture])  # (1, 2, channels, height, width)
    mean = moments[:, 0]
    return base.decode(mean)[0]


def images_compared(drawn: DrawnAnew, asked: EvaluationPrompts, settings: Evaluation) -> Drawn:
    """Return the images that feature spaces compare: those without a map, and those from maps of the first kind."""
    texts = [prompt.text for prompt in asked.prompts]
    first = Way(settings.conditions[:1])
    return Drawn(texts, settings.seeds, drawn.base, drawn.ways[first])


def control_samples(
    pictures: Sequence[HeldOut],
    drawn: DrawnAnew,
    asked: EvaluationPrompts,
    settings: Evaluation,
) -> list[IndexedImage]:
    """Return the images with what the index says of them: for each picture a row of each way that shows its own maps.

    A row has what was shown, the images of the base model, and those of the ControlNet.
    """
    samples = []
    for number, each in enumerate(pictures[:MOST_REAL]):
        about = SampleImage(file=f"real-{number:02}.png", source="real")
        samples.append(IndexedImage(each.picture, about))
    row = 0
    labels: set[str] = set()
    own_ways = [way for way in drawn.ways if way.is_own]
    has_several = len(own_ways) > 1
    for number, each in enumerate(pictures):
        begin = number * settings.seeds
        of_picture = slice(begin, begin + settings.seeds)
        for way in own_ways:
            label = _label(asked.prompts[number], way, many=has_several)
            if label in labels:
                label = f"{label} (picture {number + 1})"
            labels.add(label)
            about = SampleImage(file=f"condition-{row:02}.png", source="condition", prompt=label, text=label)
            strip = _beside_each_other(each, way)
            samples.append(IndexedImage(strip, about))
            before = drawn.base[of_picture]
            after = drawn.ways[way][of_picture]
            samples += _row(row, "before", label, before, settings)
            samples += _row(row, "after", label, after, settings)
            row += 1
    return samples


def _label(prompt: EvaluationPrompt, way: Way, *, many: bool) -> str:
    """Return what a row is called."""
    label = prompt.after[:MOST_LETTERS] or WITHOUT_WORDS
    if not many:
        return label
    kinds = " and ".join(way.kinds)
    return f"{label} ({kinds})"


def _beside_each_other(picture: HeldOut, way: Way) -> Image.Image:
    """Return what a ControlNet was shown: the map, or of several a strip of each."""
    maps = [picture.maps[kind].shown for kind in way.kinds]
    together = maps[0].copy()
    width = together.width // len(maps)
    for place, one in enumerate(maps):
        left = place * width
        strip = one.crop((left, 0, left + width, one.height))
        together.paste(strip, (left, 0))
    return together


def _row(
    row: int,
    source: Source,
    label: str,
    images: Sequence[Image.Image],
    settings: Evaluation,
) -> list[IndexedImage]:
    """Return the images of a row by one model, one of each seed."""
    samples = []
    for seed, image in zip(settings.all_seeds, images, strict=True):
        about = SampleImage(
            file=f"{source}-{row:02}-{seed}.png",
            source=source,
            prompt=label,
            text=label,
            seed=seed,
        )
        samples.append(IndexedImage(image, about))
    return samples
