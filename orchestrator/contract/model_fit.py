"""Whether the parts of a model are what their configurations say, and fit one another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from orchestrator.contract.model_configs import AutoencoderConfig, ClipConfig, Config, DenoiserConfig, TextEncoderConfig
from orchestrator.contract.model_file import ANOTHER, ONE_MODEL, model_problem
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.contract.safetensors_header import FLOATS, Header, TensorEntry

_MOST_LAYERS = 1000  # that are looked for
_MOST_NAMED = 3  # tensors that one message names
_TEXT_PREFIX = "text_model."
"""What transformers 4 begins the names of a text encoder's tensors with."""
_PROMPT_READER = ".attn2.to_k.weight"
"""How the names of the cross-attention's keys end, which are computed from the prompt's states."""
_SIZE_NUMBERS = 6  # height and width of the original and of the image, top and left of the crop

Shapes = Mapping[str, Sequence[int]]
"""Tensor name to the shape that the configuration gives it."""


_ConfigT = TypeVar("_ConfigT", bound=Config)


class Part(NamedTuple, Generic[_ConfigT]):
    """A part of a model as its files describe it."""

    name: str
    """Name of its folder."""
    config: _ConfigT
    """What its configuration says."""
    tensors: Header | None
    """What its weight files hold; None when they cannot be read."""


Denoiser = Part[DenoiserConfig]
Autoencoder = Part[AutoencoderConfig]
TextEncoder = Part[TextEncoderConfig]
Clip = Part[ClipConfig]


def denoiser_problems(denoiser: Denoiser) -> Iterator[Problem]:
    """Yield what its weights lack or have in another shape."""
    part, config, tensors = denoiser
    if tensors is None:
        return
    channels = config.block_out_channels
    first = channels[0]
    # Convolutions: outputs, inputs, height and width of the kernel.
    kernel_in = config.conv_in_kernel
    kernel_out = config.conv_out_kernel
    expected: dict[str, Sequence[int]] = {
        "conv_in.weight": [first, config.in_channels, kernel_in, kernel_in],
        "conv_out.weight": [config.out_channels, first, kernel_out, kernel_out],
    }
    width = config.projection_class_embeddings_input_dim
    if config.addition_embed_type is not None and width is not None:
        embedded = 4 * first  # width of the timestep's embedding, which the others are added to
        expected["add_embedding.linear_1.weight"] = [embedded, width]
    expected |= _prompt_reader_shapes(config, tensors)
    begins = []
    for level in range(len(channels)):
        begins.append(f"down_blocks.{level}")
        begins.append(f"up_blocks.{level}")
    yield from _tensor_problems(part, tensors, expected, begins)


def _prompt_reader_shapes(config: DenoiserConfig, tensors: Header) -> Shapes:
    """Return the first key projection that reads prompts of a width the configuration does not name, and its shape.

    Where there are none at all, return a pattern of their names, which no tensor has.
    """
    widths = config.cross_attention_dim
    if isinstance(widths, int):
        widths = [widths]
    has_readers = False
    for name, entry in tensors.items():
        if not name.endswith(_PROMPT_READER):
            continue
        has_readers = True
        rows = entry.shape[:1]
        columns = entry.shape[1:]
        is_known = len(columns) == 1 and columns[0] in widths
        if not is_known:
            return {name: [*rows, widths[0]]}
    if not has_readers:
        return {f"*{_PROMPT_READER}": widths}
    return {}


def autoencoder_problems(autoencoder: Autoencoder) -> Iterator[Problem]:
    """Yield what its weights lack or have in another shape."""
    part, config, tensors = autoencoder
    if tensors is None:
        return
    first = config.block_out_channels[0]
    last = config.block_out_channels[-1]
    latents = config.latent_channels
    expected = {
        "encoder.conv_in.weight": [first, config.in_channels, 3, 3],
        "encoder.conv_out.weight": [2 * latents, last, 3, 3],  # mean and variance
        "decoder.conv_in.weight": [last, latents, 3, 3],
        "decoder.conv_out.weight": [config.out_channels, first, 3, 3],
    }
    yield from _tensor_problems(part, tensors, expected)


def text_encoder_problems(encoder: TextEncoder, *, pools: bool) -> Iterator[Problem]:
    """Yield what its weights lack or have in another shape; one that `pools` projects one state of the prompt too."""
    part, config, found = encoder
    if found is None:
        return
    tensors: dict[str, TensorEntry] = {}
    for name, entry in found.items():
        short_name = name.removeprefix(_TEXT_PREFIX)
        tensors[short_name] = entry
    width = config.hidden_size
    expected = {
        "embeddings.token_embedding.weight": [config.vocab_size, width],
        "embeddings.position_embedding.weight": [config.max_position_embeddings, width],
        "final_layer_norm.weight": [width],
    }
    if pools:
        expected["text_projection.weight"] = [config.projection_dim, width]
    begins = _layer_names("encoder", config.num_hidden_layers)
    yield from _tensor_problems(part, tensors, expected, begins)


def _layer_names(encoder: str, layers: int) -> list[str]:
    """Return what the names of the tensors of each layer of an encoder begin with."""
    begins = []
    for layer in range(min(layers, _MOST_LAYERS)):
        begins.append(f"{encoder}.layers.{layer}")
    return begins


def clip_problems(clip: Clip) -> Iterator[Problem]:
    """Yield what the weights of the CLIP that judges images lack or have in another shape."""
    part, config, tensors = clip
    if tensors is None:
        return
    text = config.text_config
    text_width = text.hidden_size
    vision = config.vision_config
    vision_width = vision.hidden_size
    patch = vision.patch_size
    patches_a_side = vision.image_size // patch
    places = patches_a_side**2 + 1  # the class token has one too
    projected = config.projection_dim
    expected = {
        "text_model.embeddings.token_embedding.weight": [text.vocab_size, text_width],
        "text_model.embeddings.position_embedding.weight": [text.max_position_embeddings, text_width],
        "text_projection.weight": [projected, text_width],
        "vision_model.embeddings.patch_embedding.weight": [vision_width, vision.num_channels, patch, patch],
        "vision_model.embeddings.position_embedding.weight": [places, vision_width],
        "visual_projection.weight": [projected, vision_width],
    }
    begins = _layer_names("text_model.encoder", text.num_hidden_layers)
    begins += _layer_names("vision_model.encoder", vision.num_hidden_layers)
    yield from _tensor_problems(part, tensors, expected, begins)


def _tensor_problems(
    part: str,
    tensors: Header,
    expected: Shapes,
    begins: Sequence[str] = (),
) -> Iterator[Problem]:
    """Yield the tensors that are missing, by name or by what names begin with, and those of another shape or type.

    `expected` are tensors with their shapes; `begins` is what some tensors' names have to begin with. Where the weights
    are those of a LoRA, that alone is reported.
    """
    if _is_lora(tensors):
        what = f"{part}/ holds a LoRA where its weights should be"
        yield model_problem(what, "name a whole model; a LoRA is added to one")
        return
    missing = _missing(tensors, expected, begins)
    if missing:
        named = ", ".join(missing[:_MOST_NAMED])
        more = len(missing) - _MOST_NAMED
        if more > 0:
            named = f"{named} and {more} more"
        yield model_problem(f"the weights in {part}/ lack {named}")
    for name, expected_shape in expected.items():
        entry = tensors.get(name)
        if entry is None:
            continue
        shape = list(expected_shape)
        where = f"{part}/: {name}"
        if entry.shape != shape:
            what = f"{where} has the shape {entry.shape}, and its config.json says {shape}"
            yield model_problem(what, "take config and weights of one model")
        elif entry.dtype not in FLOATS:
            what = f"{where} is of type {entry.dtype}, and packed weights cannot be trained"
            yield model_problem(what, "take the weights in float16 or float32")
            return  # the others are too


def _is_lora(tensors: Header) -> bool:
    """Whether all tensors, of which there is one at least, are named as those of a LoRA."""
    for name in tensors:
        if "lora" not in name.lower():
            return False
    return len(tensors) > 0


def _missing(tensors: Header, expected: Shapes, begins: Sequence[str]) -> list[str]:
    """Return the names that no tensor has, then what no name begins with, as "begin.*"."""
    missing = []
    for name in expected:
        if name not in tensors:
            missing.append(name)
    groups = _groups(tensors)
    for begin in begins:
        if begin not in groups:
            missing.append(f"{begin}.*")
    return missing


def _groups(tensors: Header) -> set[str]:
    """Return what names begin with, of two to four words: "down_blocks.0", "text_model.encoder.layers.0"."""
    groups = set()
    for name in tensors:
        first, *words = name.split(".")
        group = first
        for word in words[:3]:
            group = f"{group}.{word}"
            groups.add(group)
    return groups


def channel_problems(denoiser: Denoiser, autoencoder: Autoencoder) -> Iterator[Problem]:
    """Yield why the denoiser cannot be given the autoencoder's latents alone.

    Its channels tell what it was made for: a model for inpainting, for one, takes the latents, those of the picture
    around the hole, and one channel for the mask.
    """
    latents = autoencoder.config.latent_channels
    part, config, _ = denoiser
    takes = config.in_channels
    purposes = {
        latents + 1: "made for depth maps",
        2 * latents: "made to edit images by instruction",
        2 * latents + 1: "made for inpainting",
    }
    if takes != latents:
        purpose = purposes.get(takes, "of another model")
        what = f"{part}/ is {purpose}: it takes {takes} channels, and the latents of vae/ have {latents}"
        yield model_problem(what, "choose a model that draws from a prompt alone")
    if config.out_channels != latents:
        what = f"{part}/ predicts {counted(config.out_channels, 'channel')}, and the latents of vae/ have {latents}"
        yield model_problem(what, ANOTHER)


def width_problems(denoiser: Denoiser, encoders: Sequence[TextEncoder]) -> Iterator[Problem]:
    """Yield why the denoiser cannot read what the text encoders make of a prompt."""
    part, config, _ = denoiser
    given = 0
    names = []
    for encoder in encoders:
        given += encoder.config.hidden_size  # their states stand side by side
        names.append(f"{encoder.name}/")
    widths = config.encoder_hid_dim or config.cross_attention_dim
    if isinstance(widths, int):
        widths = [widths]
    wanted = sorted(set(widths))
    if wanted != [given]:
        widths_read = [str(width) for width in wanted]
        reads = " or ".join(widths_read)
        named = " and ".join(names)
        verb = "give"
        if len(names) == 1:
            verb = "gives"
        what = f"{part}/ reads prompts of width {reads} (cross_attention_dim), and {named} {verb} {given}"
        yield model_problem(what, ONE_MODEL)


def pooled_problems(denoiser: Denoiser, encoder: TextEncoder) -> Iterator[Problem]:
    """Yield why the denoiser cannot be told the pooled prompt of this text encoder and the size of the image.

    It reads both as one vector: the pooled prompt, and behind it an embedding of each number of the size (SDXL, arXiv
    2307.01952, sec. 2.2).
    """
    part, config, _ = denoiser
    pooled = encoder.config.projection_dim
    size_width = config.addition_time_embed_dim or 0
    expected = pooled + _SIZE_NUMBERS * size_width
    found = config.projection_class_embeddings_input_dim
    if found != expected:
        what = (
            f"{part}/ reads {found} numbers beside the prompt (projection_class_embeddings_input_dim), "
            f"and the pooled prompt with the image's size gives {expected}"
        )
        yield model_problem(what, ONE_MODEL)
