"""Base models of a few hundred bytes that pass every check a client can make: zeros in the shapes of a real model.

They are written without torch and cannot draw; each part is as small as its configuration allows.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

Files = dict[str, bytes]
"""Name of each file of a model to its content."""
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
CLIP = "clip/model.safetensors"
WORDS = ("a", "photo", "of", "dog", "<|startoftext|>", "<|endoftext|>")
_BYTES = {"F32": 4, "F16": 2, "U8": 1}
_WIDTH = {"text_encoder": 8, "text_encoder_2": 12}
_TOKENS = 16


def json_of(value: object) -> bytes:
    """Return a value as a JSON file."""
    return json.dumps(value).encode()


def safetensors(shapes: Mapping[str, Sequence[int]], dtype: str = "F16") -> bytes:
    """Return a file of tensors that are all zero."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return with_header(json_of(header), bytes(end))


def with_header(header: bytes, data: bytes) -> bytes:
    """Return a safetensors file with any header."""
    return len(header).to_bytes(8, "little") + header + data


def small_model(
    family: str = "sd",
    words: Sequence[str] = WORDS,
    tokens: Mapping[str, int] = MappingProxyType({}),
) -> Files:
    """Return the files of a model, "sd" or "sdxl"; `tokens` are the lengths of its text encoders by their names."""
    xl = family == "sdxl"
    encoders = ["text_encoder", "text_encoder_2"] if xl else ["text_encoder"]
    width = sum(_WIDTH[part] for part in encoders)
    config: dict[str, Any] = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4}
    config |= {"sample_size": 64, "block_out_channels": [4, 8], "layers_per_block": 1, "cross_attention_dim": width}
    config |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "addition_embed_type": None}
    config |= {"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
    if xl:
        pooled = _WIDTH["text_encoder_2"] + 6 * 2
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 2}
        config |= {"projection_class_embeddings_input_dim": pooled}
    vae = {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4}
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "beta_schedule": "scaled_linear"}
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    files = {
        "unet/config.json": json_of(config),
        UNET: safetensors(unet_shapes(config)),
        "vae/config.json": json_of({**vae, "block_out_channels": [4, 4], "scaling_factor": 0.2}),
        VAE: safetensors(_vae_shapes()),
        "scheduler/scheduler_config.json": json_of(scheduler),
    }
    for part in encoders:
        tokenizer = part.replace("text_encoder", "tokenizer")
        pools = part == "text_encoder_2"
        index[part] = ["transformers", "CLIPTextModelWithProjection" if pools else "CLIPTextModel"]
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
        files |= _text_files(part, tokenizer, words, tokens.get(part, _TOKENS))
    return {"model_index.json": json_of(index), **files}


def clip_files(**fields: Any) -> Files:
    """Return the files of the CLIP that a model is judged by, with other `fields` in its configuration."""
    text = {"vocab_size": len(WORDS), "hidden_size": 8, "max_position_embeddings": _TOKENS, "num_hidden_layers": 1}
    vision = {"hidden_size": 4, "image_size": 64, "patch_size": 32, "num_hidden_layers": 1}
    config = {"model_type": "clip", "projection_dim": 6, "text_config": text, "vision_config": vision, **fields}
    shapes = {
        "text_model.embeddings.token_embedding.weight": [len(WORDS), 8],
        "text_model.embeddings.position_embedding.weight": [_TOKENS, 8],
        "text_model.encoder.layers.0.mlp.fc1.weight": [8, 8],
        "text_projection.weight": [6, 8],
        "vision_model.embeddings.patch_embedding.weight": [4, 3, 32, 32],
        "vision_model.embeddings.position_embedding.weight": [5, 4],
        "vision_model.encoder.layers.0.mlp.fc1.weight": [4, 4],
        "visual_projection.weight": [6, 4],
    }
    kept = {name: value for name, value in config.items() if value is not None}
    return {"clip/config.json": json_of(kept), CLIP: safetensors(shapes)}


def unet_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the tensors of a U-Net of two levels."""
    width, first, last = config["cross_attention_dim"], *config["block_out_channels"]
    shapes = {
        "conv_in.weight": [first, config["in_channels"], 3, 3],
        "conv_out.weight": [config["out_channels"], first, 3, 3],
        "down_blocks.0.resnets.0.conv1.weight": [first, first, 3, 3],
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": [last, width],
        "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": [last, width],
        "up_blocks.1.resnets.0.conv1.weight": [first, first, 3, 3],
    }
    if config["addition_embed_type"] is not None:
        shapes["add_embedding.linear_1.weight"] = [4 * first, config["projection_class_embeddings_input_dim"]]
    return shapes


def _vae_shapes() -> dict[str, list[int]]:
    return {
        "encoder.conv_in.weight": [4, 3, 3, 3],
        "encoder.conv_out.weight": [8, 4, 3, 3],
        "decoder.conv_in.weight": [4, 4, 3, 3],
        "decoder.conv_out.weight": [3, 4, 3, 3],
    }


def _text_files(part: str, tokenizer: str, words: Sequence[str], tokens: int) -> Files:
    width = _WIDTH[part]
    config = {"model_type": "clip_text_model", "vocab_size": len(words), "hidden_size": width, "projection_dim": width}
    config |= {"max_position_embeddings": tokens, "num_hidden_layers": 1, "num_attention_heads": 2}
    shapes = {
        "text_model.embeddings.token_embedding.weight": [len(words), width],
        "text_model.embeddings.position_embedding.weight": [tokens, width],
        "text_model.encoder.layers.0.mlp.fc1.weight": [width, width],
        "text_model.final_layer_norm.weight": [width],
    }
    if part == "text_encoder_2":  # the one that pools
        shapes["text_projection.weight"] = [width, width]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer_config = {"model_max_length": tokens, "bos_token": words[-2], "eos_token": words[-1]}
    return {
        f"{part}/config.json": json_of(config),
        f"{part}/model.safetensors": safetensors(shapes),
        f"{tokenizer}/vocab.json": json_of(vocabulary),
        f"{tokenizer}/merges.txt": b"#version: 0.2\n",
        f"{tokenizer}/tokenizer_config.json": json_of(tokenizer_config),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write a model to a folder and return it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
