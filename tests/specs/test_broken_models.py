"""Base models that cannot be trained: one message with cause and next command at submit, and nothing stored or started.

Each fault is put into a model that passes every check, so that the message is about the fault alone.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers.models.unets import unet_2d_blocks
from transformers.activations import ACT2CLS

from orchestrator.__main__ import main
from orchestrator.contract.model_check import model_problems
from orchestrator.contract.model_configs import ACTIVATIONS, DOWN_BLOCKS, SCHEDULERS, UP_BLOCKS
from orchestrator.contract.model_file import MAX_TEXT_BYTES, ModelFileError
from orchestrator.contract.safetensors_header import read_header
from orchestrator.models.size import of_folder
from orchestrator.models.tokenizer import tokenizers_of
from orchestrator.models.tree import model_tree
from orchestrator.settings import Settings
from orchestrator.specs.building import build_spec
from tests.stand_ins.model import (
    TEXT,
    UNET,
    VAE,
    WORDS,
    Files,
    clip_files,
    json_of,
    safetensors,
    small_model,
    unet_shapes,
    with_header,
    write_files,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167536\n"
ZIP = b"PK\x03\x04" + bytes(100)
SHARDS = [f"unet/diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = f"{UNET}.index.json"
Submit = Callable[..., str]


@pytest.fixture
def submit(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Submit:
    """Submit a job with a base model that is refused; return what was said, and fail if anything was stored."""

    def submit(model: Path | str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["orchestrator", "submit", "dreambooth", "--base-model", str(model), *words])
        assert main() == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert "Report this" not in errors
        assert "Traceback" not in errors
        assert "nothing was started" in errors
        assert errors.splitlines()[-1].startswith("Next: ")
        for folder in (settings.store, settings.adapters, settings.jobs):
            assert not folder.exists() or not list(folder.iterdir())
        return errors

    return submit


def changed(file: str, family: str = "sd", **values: Any) -> Callable[[], Files]:
    """Return a model with other values in one of its JSON files; None takes a field out."""

    def files() -> Files:
        model = small_model(family)
        fields = {**json.loads(model[file]), **values}
        kept = {name: value for name, value in fields.items() if value is not None}
        return {**model, file: json_of(kept)}

    return files


def other(file: str, content: bytes) -> Callable[[], Files]:
    """Return a model with another content of one file."""
    return lambda: {**small_model(), file: content}


def whole_tokenizer(**values: Any) -> Callable[[], Files]:
    """Return a model whose tokenizer is in one file."""
    return other("tokenizer/tokenizer.json", json_of({"model": values}))


def judged(**fields: Any) -> Callable[[], Files]:
    """Return a model with a CLIP to judge by, which has other fields in its configuration."""
    return lambda: {**small_model(), **clip_files(**fields)}


def with_an_added_token() -> Files:
    """Return the files by which tokenizer and text encoder know a token more."""
    files = other_tensors(TEXT, text_model__embeddings__token_embedding__weight=[len(WORDS) + 1, 8])()
    config = changed("text_encoder/config.json", vocab_size=len(WORDS) + 1)()["text_encoder/config.json"]
    added = json_of({"<new>": len(WORDS)})
    return {TEXT: files[TEXT], "text_encoder/config.json": config, "tokenizer/added_tokens.json": added}


def without(*names: str) -> Callable[[], Files]:
    """Return a model without some files."""
    return lambda: {name: content for name, content in small_model().items() if name not in names}


def other_unet(**values: Any) -> Callable[[], Files]:
    """Return a model whose denoiser is another, its configuration and its weights alike."""

    def files() -> Files:
        model = small_model()
        config = {**json.loads(model["unet/config.json"]), **values}
        return {**model, "unet/config.json": json_of(config), UNET: safetensors(unet_shapes(config))}

    return files


def other_tensors(file: str, **shapes: list[int] | None) -> Callable[[], Files]:
    """Return a model with tensors of other shapes in one file, or without them; "__" stands for a dot."""

    def files() -> Files:
        model = small_model()
        length = int.from_bytes(model[file][:8], "little")
        header = json.loads(model[file][8 : 8 + length])
        tensors = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        for name, shape in shapes.items():
            tensors[name.replace("__", ".")] = shape
        left = {name: shape for name, shape in tensors.items() if shape is not None}
        return {**model, file: safetensors(left)}

    return files


def cut(file: str, left: int) -> Callable[[], Files]:
    """Return a model of which one file has only its first bytes, or lacks its last where `left` is negative."""
    return lambda: {**small_model(), file: small_model()[file][:left]}


def headed(**entry: Any) -> Callable[[], Files]:
    """Return a model whose autoencoder has two tensors of eight bytes, the second with another entry in the header."""
    good = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
    header = json_of({"a": good, "b": {**good, "data_offsets": [8, 16], **entry}})
    return other(VAE, with_header(header, bytes(16)))


def sharded(
    *,
    leave_out: int | None = None,
    unlist: str = "",
    **wrong: str,
) -> Callable[[], Files]:
    """Return a model whose denoiser lies in two shards; a tensor can be missing in the index or listed elsewhere."""

    def files() -> Files:
        model = small_model()
        shapes = unet_shapes(json.loads(model["unet/config.json"]))
        names = list(shapes)
        listed = {}
        for number, (shard, inside) in enumerate(zip(SHARDS, (names[:3], names[3:]), strict=True)):
            listed |= dict.fromkeys(inside, Path(shard).name)
            if number != leave_out:
                model[shard] = safetensors({name: shapes[name] for name in inside})
        listed |= {name.replace("__", "."): file for name, file in wrong.items()}
        listed.pop(unlist, None)
        del model[UNET]
        return {**model, INDEX: json_of({"metadata": {}, "weight_map": listed})}

    return files


FAULTS: dict[str, tuple[Callable[[], Files], str, str]] = {
    # files that are not what their names promise
    "pointer instead of weights": (other(UNET, POINTER), f"{UNET} is a git-LFS pointer", "git lfs pull"),
    "pointer instead of a config": (other("vae/config.json", POINTER), "is a git-LFS pointer", "git lfs pull"),
    "pointer instead of merges": (other("tokenizer/merges.txt", POINTER), "is a git-LFS pointer", "git lfs pull"),
    "pointer instead of a vocabulary": (other("tokenizer/vocab.json", POINTER), "is a git-LFS pointer", "lfs pull"),
    "pointer instead of the index": (other("model_index.json", POINTER), "is a git-LFS pointer", "git lfs pull"),
    "a web page": (other(TEXT, b"<!DOCTYPE html><html>"), "is a web page", "download it again"),
    "a renamed pickle": (other(VAE, ZIP), "is a pickle of torch", "download it again"),
    "no safetensors": (other(VAE, b"weights!" * 9), "is not a safetensors file", "download it again"),
    "zero bytes": (other(UNET, b""), f"{UNET} is empty", "download it again"),
    "a config of zero bytes": (other("unet/config.json", b""), "unet/config.json is empty", "download it again"),
    # cut and damaged weights
    "cut tensors": (cut(UNET, -3), "is cut: the last 3 bytes of its tensors are missing", "download it again"),
    "cut header": (cut(UNET, 60), "is cut within its header: it has 60 bytes", "download it again"),
    "cut length": (cut(TEXT, 5), f"{TEXT} is cut: it has 5 bytes", "download it again"),
    "more bytes": (lambda: {**small_model(), VAE: small_model()[VAE] + b"12"}, "2 bytes at its end", "again"),
    "overlapping tensors": (headed(data_offsets=[4, 12]), "b overlaps with another tensor", "download it again"),
    "a gap": (headed(data_offsets=[10, 18]), "or a gap is before it", "download it again"),
    "negative offsets": (headed(data_offsets=[-8, 0]), "has a damaged header: b.data_offsets", "download it again"),
    "offsets that are no numbers": (headed(data_offsets=["a", None]), "has a damaged header", "download it again"),
    "negative shape": (headed(shape=[-4]), "has a damaged header: b.shape", "download it again"),
    "too large a shape": (headed(shape=[10**9, 10**9]), "has not the bytes of its shape", "download it again"),
    "unknown dtype": (headed(dtype="F7"), "tensors of an unknown type, F7", "float16 or float32"),
    "no entry": (other(VAE, with_header(b'{"a": 1}', b"")), "has a damaged header", "download it again"),
    "header that is no object": (other(VAE, with_header(b"[]", b"")), "damaged header", "download it again"),
    "deep header": (other(VAE, with_header(b"[" * 9999, b"")), "nested too deeply", "download it again"),
    # JSON that is none
    "no object": (other("unet/config.json", b"[]"), "unet/config.json holds no JSON object", "download it again"),
    "no JSON": (other("vae/config.json", b"{"), "cannot be read as JSON", "download it again"),
    "byte order mark": (other("unet/config.json", b"\xef\xbb\xbf{}"), "byte order mark", "save it without"),
    "UTF-16": (other("unet/config.json", '{"a": "é"}'.encode("utf-16")), "is not UTF-8 text", "save it as UTF-8"),
    "deep JSON": (other("unet/config.json", b'{"a":' * 99999), "nested too deeply", "download it again"),
    "huge JSON": (other("tokenizer/tokenizer.json", b" " * (MAX_TEXT_BYTES + 1)), "more than 32 MB", "again"),
    "huge number": (changed("unet/config.json", in_channels=10**4000), "in_channels", "another base model"),
    "index that is no object": (other("model_index.json", b"[]"), "model_index.json holds no JSON object", "again"),
    # files that are missing
    "pickles alone": (
        lambda: {name.replace(".safetensors", ".bin"): content for name, content in small_model().items()},
        "unet/ has no diffusion_pytorch_model.safetensors but diffusion_pytorch_model.bin, a pickle",
        "save_pretrained of diffusers writes safetensors",
    ),
    "another name": (
        lambda: {name.replace("pytorch", "torch"): content for name, content in small_model().items()},
        "has no diffusion_pytorch_model.safetensors but diffusion_torch_model.safetensors",
        "download it again",
    ),
    "no scheduler": (without("scheduler/scheduler_config.json"), "scheduler/ has no scheduler_config.json", "again"),
    "no vocabulary": (without("tokenizer/vocab.json"), "tokenizer/ has no vocab.json or tokenizer.json", "again"),
    "no merges": (without("tokenizer/merges.txt"), "has vocab.json without merges.txt", "download it again"),
    "no config": (without("vae/config.json"), "vae/ has no config.json", "download it again"),
    # shards
    "a missing shard": (sharded(leave_out=1), f"lists {Path(SHARDS[1]).name}, which is not there", "again"),
    "all shards missing": (
        lambda: {name: content for name, content in sharded()().items() if name not in SHARDS},
        "which is not there, and 1 more",
        "download it again",
    ),
    "a tensor listed nowhere": (sharded(unlist="conv_in.weight"), "does not list conv_in.weight", "again"),
    "a tensor listed in the other shard": (
        sharded(conv_in__weight=Path(SHARDS[1]).name),
        "lists conv_in.weight in diffusion_pytorch_model-00002-of-00002.safetensors, which does not hold it",
        "download it again",
    ),
    "an index without tensors": (
        lambda: {**sharded()(), INDEX: b'{"weight_map": [1]}'},
        "has no weight_map of tensors and files",
        "download it again",
    ),
    "a shard outside the folder": (sharded(conv_in__weight="../../x.safetensors"), "lists ../../x.saf", "again"),
    # parts of another kind
    "inpainting": (other_unet(in_channels=9), "made for inpainting: it takes 9 channels", "from a prompt alone"),
    "instruct-pix2pix": (other_unet(in_channels=8), "made to edit images by instruction", "from a prompt alone"),
    "depth": (other_unet(in_channels=5), "made for depth maps: it takes 5 channels", "from a prompt alone"),
    "learned variance": (other_unet(out_channels=8), "predicts 8 channels", "choose another base model"),
    "another text encoder": (
        other_unet(cross_attention_dim=16),
        "unet/ reads prompts of width 16 (cross_attention_dim), and text_encoder/ gives 8",
        "take all parts of one model",
    ),
    "upscaler": (changed("unet/config.json", num_class_embeds=1000), "num_class_embeds should be None", "another"),
    "quantised": (changed("unet/config.json", quantization_config={"bits": 4}), "quantization_config", "another"),
    "packed weights": (
        lambda: {
            **small_model(),
            VAE: safetensors(
                {
                    "encoder.conv_in.weight": [4, 3, 3, 3],
                    "encoder.conv_out.weight": [8, 4, 3, 3],
                    "decoder.conv_in.weight": [4, 4, 3, 3],
                    "decoder.conv_out.weight": [3, 4, 3, 3],
                },
                "U8",
            ),
        },
        "is of type U8, and packed weights cannot be trained",
        "float16 or float32",
    ),
    "another denoiser": (changed("unet/config.json", _class_name="UNetMotionModel"), "_class_name", "another"),
    "another autoencoder": (changed("vae/config.json", _class_name="AutoencoderTiny"), "_class_name", "another"),
    "another kind of text encoder": (changed("text_encoder/config.json", model_type="t5"), "model_type", "another"),
    "code of its own": (changed("model_index.json", unet=["own", "Unet"]), "unet is own.Unet", "another base model"),
    "no denoiser": (changed("model_index.json", unet=None), "does not say that unet is", "download it again"),
    "another family": (changed("model_index.json", _class_name="FluxPipeline"), "it is a FluxPipeline", "another"),
    "XL denoiser in SD": (changed("unet/config.json", addition_embed_type="text_time"), "is another", "one model"),
    "XL of one width": (
        changed("unet/config.json", "sdxl", cross_attention_dim=8),
        "unet/ reads prompts of width 8 (cross_attention_dim), and text_encoder/ and text_encoder_2/ give 20",
        "take all parts of one model",
    ),
    "XL with another pooled width": (
        changed("unet/config.json", "sdxl", projection_class_embeddings_input_dim=30),
        "unet/ reads 30 numbers beside the prompt (projection_class_embeddings_input_dim)",
        "take all parts of one model",
    ),
    # tensors that do not fit the configuration
    "no first convolution": (other_tensors(UNET, conv_in__weight=None), "unet/ lack conv_in.weight", "again"),
    "no level": (other_tensors(UNET, up_blocks__1__resnets__0__conv1__weight=None), "lack up_blocks.1.*", "again"),
    "first convolution of another shape": (
        other_tensors(UNET, conv_in__weight=[4, 9, 3, 3]),
        "conv_in.weight has the shape [4, 9, 3, 3], and its config.json says [4, 4, 3, 3]",
        "config and weights of one model",
    ),
    "attention of another width": (
        other_tensors(UNET, up_blocks__0__attentions__0__transformer_blocks__0__attn2__to_k__weight=[8, 16]),
        "attn2.to_k.weight has the shape [8, 16], and its config.json says [8, 8]",
        "config and weights of one model",
    ),
    "no layer": (other_tensors(TEXT, text_model__encoder__layers__0__mlp__fc1__weight=None), "layers.0.*", "again"),
    "embedding of another size": (
        other_tensors(TEXT, text_model__embeddings__token_embedding__weight=[5, 8]),
        "token_embedding.weight has the shape [5, 8]",
        "config and weights of one model",
    ),
    "a LoRA as weights": (other(UNET, safetensors({"a.lora_A.weight": [1]})), "unet/ holds a LoRA", "a whole model"),
    "other latents": (changed("vae/config.json", latent_channels=16), "latents of vae/ have 16", "prompt alone"),
    "grey images": (changed("vae/config.json", in_channels=1), "vae/config.json: in_channels", "another base model"),
    "no scale": (changed("vae/config.json", scaling_factor=0), "scaling_factor", "another base model"),
    "endless scale": (changed("vae/config.json", scaling_factor=float("nan")), "scaling_factor", "another base"),
    # tokenizer and scheduler
    "more tokens than embeddings": (
        other("tokenizer/added_tokens.json", b'{"<new>": 6}'),
        "tokenizer/ has tokens up to number 6, and text_encoder/ knows 6",
        "take both of one model",
    ),
    "a special token without an embedding": (
        changed("tokenizer/tokenizer_config.json", pad_token="<pad>"),
        "tokenizer/ has tokens up to number 6",
        "take both of one model",
    ),
    "a vocabulary of words": (other("tokenizer/vocab.json", b'{"a": "b"}'), "is no list of tokens", "again"),
    "an empty vocabulary": (other("tokenizer/vocab.json", b"{}"), "is no list of tokens", "download it again"),
    "another form": (other("tokenizer/tokenizer.json", b'{"model": []}'), "is no list of tokens", "again"),
    "a negative number": (other("tokenizer/vocab.json", b'{"a": -5, "b": 1}'), "is no list of tokens", "again"),
    "a truth value as a number": (other("tokenizer/vocab.json", b'{"a": true}'), "is no list of tokens", "again"),
    "merges of one word": (other("tokenizer/merges.txt", b"hello\nworld\n"), "merges.txt does not list", "again"),
    "merges of three words": (other("tokenizer/merges.txt", b"a b c\n"), "merges.txt does not list", "again"),
    "merges that are no text": (other("tokenizer/merges.txt", b"\xff\xfe"), "merges.txt is not UTF-8", "UTF-8"),
    "merges of another vocabulary": (
        other("tokenizer/merges.txt", b"#version: 0.2\nqq zzzz\n"),
        "merges qq and zzzz, and the vocabulary has no qq",
        "both of one model",
    ),
    "merges into an unknown token": (
        other("tokenizer/merges.txt", b"photo dog\n"),
        "the vocabulary has no photodog",
        "both of one model",
    ),
    "a vocabulary of another model's": (
        lambda: {**small_model(), "tokenizer/vocab.json": b'{"a": 0}', "tokenizer/merges.txt": b"d o\n"},
        "the vocabulary has no d",
        "both of one model",
    ),
    "merges that are numbers": (
        whole_tokenizer(vocab={"a": 0}, merges=[[[1], [2]]]),
        "tokenizer.json does not list",
        "again",
    ),
    "no merges in the whole": (whole_tokenizer(vocab={"a": 0}), "tokenizer.json does not list", "again"),
    "merges of another vocabulary in the whole": (
        whole_tokenizer(vocab={"a": 0}, merges=["b c"]),
        "the vocabulary has no b",
        "both of one model",
    ),
    "a special token that is a number": (
        other("tokenizer/special_tokens_map.json", b'{"eos_token": 5}'),
        "special_tokens_map.json: eos_token is no text",
        "again",
    ),
    "a special token without its text": (
        changed("tokenizer/tokenizer_config.json", pad_token={"lstrip": False}),
        "tokenizer_config.json: pad_token is no text",
        "again",
    ),
    "added tokens by name": (
        changed("tokenizer/tokenizer_config.json", added_tokens_decoder={"x": {"content": "y"}}),
        "added_tokens_decoder is no list of tokens by their numbers",
        "again",
    ),
    "added tokens in a list": (
        changed("tokenizer/tokenizer_config.json", added_tokens_decoder=[1]),
        "added_tokens_decoder is no list",
        "again",
    ),
    "no room for words": (
        changed("tokenizer/tokenizer_config.json", model_max_length=0),
        "model_max_length",
        "another",
    ),
    "prediction": (changed("scheduler/scheduler_config.json", prediction_type="sample"), "'epsilon' or", "another"),
    "spacing": (changed("scheduler/scheduler_config.json", timestep_spacing="karras"), "timestep_spacing", "another"),
    "colours of another form": (
        other("clip/preprocessor_config.json", b'{"image_mean": 0.5}'),
        "clip/preprocessor_config.json: image_mean",
        "another base model",
    ),
    "a judge of no kind": (
        judged(model_type=None),
        "clip/config.json: model_type",
        "remove clip/, which only measures",
    ),
    "another judge": (judged(model_type="siglip"), "model_type should be 'clip'", "another base model"),
    "a judge of other widths": (judged(projection_dim=7), "clip/: text_projection.weight has the shape", "one model"),
    "a judge by the library's defaults": (judged(text_config=None), "its config.json says [49408, 512]", "one model"),
    "a judge with more layers": (
        judged(vision_config={"hidden_size": 4, "image_size": 64}),
        "the weights in clip/ lack vision_model.encoder.layers.1.*",
        "download it again",
    ),
    "a judge with no encoders": (judged(text_config=[1]), "clip/config.json: text_config", "another base model"),
    "a judge that does not know an added token": (
        lambda: {**judged()(), **with_an_added_token()},
        "tokenizer/ has tokens up to number 6, and clip/ knows 6",
        "remove clip/, which only measures the figures, or take both of one model",
    ),
    "a header of merges that is read as tokens": (
        other("tokenizer/merges.txt", b'"bpe_simple_vocab_16e6.txt#version: 0.2\n'),
        "merges.txt has a header that is read as tokens, because it does not begin with #version",
        'write "#version: 0.2" as its first line instead',
    ),
    "a byte order mark before the merges": (
        other("tokenizer/merges.txt", b"\xef\xbb\xbf#version: 0.2\n"),
        "merges.txt begins with a byte order mark",
        "save it without",
    ),
    "a blank line in the merges": (
        other("tokenizer/merges.txt", b"#version: 0.2\n\n"),
        "line 2 is not two tokens and one space",
        "mend the line",
    ),
    "a byte order mark before merges without a header": (
        other("tokenizer/merges.txt", b"\xef\xbb\xbfd o\n"),
        "merges.txt begins with a byte order mark",
        "save it without",
    ),
    "two spaces in a merge": (other("tokenizer/merges.txt", b"a  photo\n"), "line 1 is not two", "mend the line"),
    "a tab in a merge": (other("tokenizer/merges.txt", b"a\tphoto\n"), "line 1 is not two", "mend the line"),
    "a cut judge": (lambda: {**judged()(), "clip/model.safetensors": POINTER}, "git-LFS pointer", "git lfs pull"),
    "no scheduler of diffusers": (
        changed("model_index.json", scheduler=["diffusers", "FooScheduler"]),
        "names the scheduler FooScheduler, which cannot draw with this model",
        'write ["diffusers", "DDIMScheduler"] for it',
    ),
    "a scheduler of other noise": (
        changed("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        "names the scheduler FlowMatchEulerDiscreteScheduler, which cannot",
        'write ["diffusers", "DDIMScheduler"] for it',
    ),
    "a judge without weights": (other("clip/config.json", b"{}"), "clip/ has no model.safetensors", "again"),
    "flow": (
        changed("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler"),
        "FlowMatchEulerDiscreteScheduler is of another noise than DDPM's",
        "another base model",
    ),
    "a scheduler of its own": (
        changed("model_index.json", scheduler=["own", "S"]),
        "which of diffusers' sch",
        "another",
    ),
    "a scheduler of another purpose": (
        changed("model_index.json", scheduler=["diffusers", "RePaintScheduler"]),
        "names the scheduler RePaintScheduler, which cannot draw with this model",
        'write ["diffusers", "DDIMScheduler"] for it',
    ),
    "a scheduler that needs scipy": (
        changed("model_index.json", scheduler=["diffusers", "LMSDiscreteScheduler"]),
        "names the scheduler LMSDiscreteScheduler, which cannot draw with this model",
        'write ["diffusers", "DDIMScheduler"] for it',
    ),
    "timesteps that need scipy": (
        changed("scheduler/scheduler_config.json", use_beta_sigmas=True),
        "it takes the package scipy, which the images do not have; write false",
        "",
    ),
    "heads that do not divide the width": (
        changed("text_encoder/config.json", num_attention_heads=7),
        "num_attention_heads is 7, which does not divide the width of 8",
        "another base model",
    ),
    "heads that do not divide the channels": (
        changed("unet/config.json", attention_head_dim=[8, 3]),
        "attention_head_dim is 3 in a level of 8 channels",
        "another base model",
    ),
    "an unknown activation": (
        changed("text_encoder/config.json", hidden_act="nonsense"),
        "hidden_act is nonsense, an activation that transformers does not have",
        "another base model",
    ),
    "unknown levels": (
        changed("unet/config.json", down_block_types=["Nope", "Nope"]),
        "down_block_types names Nope, which diffusers does not have",
        "another base model",
    ),
    "levels without channels": (
        changed("unet/config.json", up_block_types=["UpBlock2D"] * 3),
        "up_block_types names 3 levels, and block_out_channels 2",
        "another base model",
    ),
    "other latents' mean": (changed("vae/config.json", latents_mean=[1, 2]), "latents_mean", "another base model"),
    "noise": (changed("scheduler/scheduler_config.json", beta_schedule="cosine"), "beta_schedule", "another"),
    "more noise than all": (
        changed("scheduler/scheduler_config.json", beta_start=5, beta_end=6),
        "beta_end",
        "another",
    ),
    "a little of the noise": (
        changed("scheduler/scheduler_config.json", trained_betas=[0.1, 0.2, 0.3]),
        "3 betas for 1000 timesteps",
        "another",
    ),
    "negative noise": (
        changed("scheduler/scheduler_config.json", num_train_timesteps=2, trained_betas=[-0.1, 0.2]),
        "trained_betas",
        "another",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_base_model_with_a_fault_is_refused_with_its_cause_and_what_to_do(
    submit: Submit, tmp_path: Path, fault: str
) -> None:
    files, cause, fix = FAULTS[fault]
    said = submit(write_files(tmp_path / "model", files()))
    assert cause in said
    assert fix in said
    assert said.endswith("Next: mend the model as said above, or name another: --base-model MODEL\n")


@pytest.mark.parametrize(
    "damage",
    [
        {"tokenizer/vocab.json": b'{"a": true, "b": 1}'},
        {"tokenizer/vocab.json": b'{"a": -5, "b": 1}'},
        {"tokenizer/vocab.json": b"{}"},
        {"tokenizer/tokenizer.json": b'{"model": []}'},
        {"tokenizer/added_tokens.json": b'{"<new>": "6"}'},
        {"tokenizer/added_tokens.json": json_of({"<new>": len(WORDS)})},
    ],
    ids=["truth values", "negative numbers", "nothing", "another form", "added by name", "neither knows"],
)
def test_one_fault_of_a_vocabulary_is_one_problem(tmp_path: Path, damage: Files) -> None:
    merges = {"tokenizer/merges.txt": b"#version: 0.2\nd o\n"}
    if "tokenizer/added_tokens.json" in damage:
        merges = {}
    assert len(model_problems(write_files(tmp_path, {**judged()(), **merges, **damage}))) == 1


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_model_without_fault_passes(tmp_path: Path, family: str) -> None:
    assert model_problems(write_files(tmp_path, small_model(family))) == []


@pytest.mark.parametrize("older", [{}, {"text_config": None, "text_config_dict": None}])
def test_a_judge_without_fault_passes(tmp_path: Path, older: dict[str, Any]) -> None:
    text = json.loads(clip_files()["clip/config.json"])["text_config"]
    fields = dict(older)
    if older:
        fields["text_config_dict"] = text
    assert model_problems(write_files(tmp_path, judged(**fields)())) == []


@pytest.mark.parametrize("make", ["a folder", "a pipe", "an endless file", "a broken link", "a link to itself"])
def test_what_is_in_the_place_of_a_file_is_named(submit: Submit, tmp_path: Path, make: str) -> None:
    path = write_files(tmp_path / "model", small_model()) / "unet" / "config.json"
    path.unlink()
    links = {
        "a broken link": tmp_path / "blobs" / "4d7a",
        "a link to itself": path,
        "an endless file": Path("/dev/zero"),
    }
    if make in links:
        path.symlink_to(links[make])
    elif make == "a pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    words = {
        "a folder": "is a folder, not a file",
        "a pipe": "is a device or a pipe, not a file",
        "an endless file": "is a device or a pipe, not a file",
        "a broken link": "is a link to",
        "a link to itself": "cannot be read: Too many levels",
    }
    assert f"unet/config.json {words[make]}" in submit(tmp_path / "model")


def test_names_that_a_model_may_use_are_those_of_the_libraries() -> None:
    assert all(hasattr(diffusers, name) for name in SCHEDULERS)
    assert set(ACTIVATIONS) <= set(ACT2CLS)
    for name in DOWN_BLOCKS + UP_BLOCKS:
        assert hasattr(unet_2d_blocks, name)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**62] * 100_000, "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [10**4000] * 16, "data_offsets": [0, 0]}},
        {"a" * 10**6: {"dtype": "F32", "shape": [3], "data_offsets": [0, 0]}},
        {"a" * 10**6: {"dtype": "F32", "shape": "x", "data_offsets": [0, 0]}},
        {"a": {"dtype": "F" * 10**6, "shape": [3], "data_offsets": [0, 0]}},
        {f"{number}": number for number in range(200_000)},
        {"a": [[[[1]]]] * 10_000},
    ],
    ids=["dimensions", "digits", "a name", "a name with a fault", "a type", "faults", "no entry"],
)
def test_whatever_a_header_holds_is_refused_in_a_few_words(tmp_path: Path, header: dict[str, Any]) -> None:
    file = tmp_path / "hostile.safetensors"
    file.write_bytes(with_header(json_of(header), b""))
    with pytest.raises(ModelFileError) as raised:
        read_header(file)
    assert len(str(raised.value)) <= 300


def test_all_faults_of_a_model_are_reported_with_the_other_problems_of_the_job(submit: Submit, tmp_path: Path) -> None:
    files = {**small_model(), UNET: POINTER, "tokenizer/vocab.json": b"[]", TEXT: small_model()[TEXT][:-1]}
    said = submit(write_files(tmp_path / "model", files), "-s", "steps=0")
    assert "has 4 problems" in said
    assert all(word in said for word in ("steps", "git-LFS pointer", "holds no JSON object", "is cut"))


def test_a_model_in_the_cache_of_the_hub_consists_of_links(tmp_path: Path) -> None:
    plain = write_files(tmp_path / "plain", small_model())
    snapshot = tmp_path / "models--org--model" / "snapshots" / "4d7a"
    for number, (name, content) in enumerate(small_model().items()):
        blob = tmp_path / "models--org--model" / "blobs" / str(number)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    assert build_spec({"recipe": "dreambooth", "base_model": str(snapshot)})
    assert model_tree(snapshot).name == model_tree(plain).name


@pytest.mark.parametrize("length", [None, 10**30, 1e30, 4096])
def test_a_tokenizer_without_a_usable_length_takes_the_text_encoders(tmp_path: Path, length: float | None) -> None:
    files = changed("tokenizer/tokenizer_config.json", model_max_length=length)()
    assert model_problems(write_files(tmp_path, files)) == []


def variant(name: str, parts: tuple[str, ...] = ("unet", "vae", "text_encoder")) -> Files:
    """Return a model whose weights of some parts are there in one variant alone."""
    files = {}
    for file, content in small_model().items():
        part = file.partition("/")[0]
        ending = f".{name}.safetensors" if part in parts else ".safetensors"
        files[file.replace(".safetensors", ending)] = content
    return files


@pytest.mark.parametrize("parts", [("unet",), ("unet", "vae", "text_encoder")])
@pytest.mark.parametrize("name", ["fp16", "bf16", "ema"])
def test_weights_of_one_variant_alone_are_used(tmp_path: Path, name: str, parts: tuple[str, ...]) -> None:
    files = variant(name, parts)
    folder = write_files(tmp_path / name, files)
    assert build_spec({"recipe": "dreambooth", "base_model": str(folder)})
    assert set(model_tree(folder).files) == set(files)
    plain = write_files(tmp_path / "plain", small_model())
    assert of_folder(folder) == of_folder(plain)


def test_plain_weights_come_before_variants_and_exact_ones_before_others(tmp_path: Path) -> None:
    files = {**small_model(), **variant("fp16")}
    assert set(model_tree(write_files(tmp_path / "both", files)).files) == set(small_model())
    several = {**variant("ema"), **variant("bf16"), **variant("fp16")}
    assert set(model_tree(write_files(tmp_path / "several", several)).files) == set(variant("fp16"))


def test_weights_of_one_variant_in_shards_are_used(tmp_path: Path) -> None:
    files = {}
    for name, content in sharded()().items():
        listed = content.replace(b"model-0000", b"model.fp16-0000")
        named = name.replace("model-0000", "model.fp16-0000").replace(".index.json", ".index.fp16.json")
        files[named] = listed if name.endswith(".json") else content
    folder = write_files(tmp_path, files)
    assert model_problems(folder) == []
    assert set(model_tree(folder).files) == set(files)


def test_a_fault_in_a_variant_is_found(submit: Submit, tmp_path: Path) -> None:
    files = variant("fp16")
    name = UNET.replace(".safetensors", ".fp16.safetensors")
    said = submit(write_files(tmp_path / "model", {**files, name: files[name][:-4]}))
    assert f"{name} is cut: the last 4 bytes" in said


LORA = safetensors({"unet.a.lora_A.weight": [1], "unet.a.alpha": [1]})
CHECKPOINT = safetensors({"model.diffusion_model.input_blocks.0.0.weight": [1], "cond_stage_model.a": [1]})
XL_CHECKPOINT = safetensors({"conditioner.embedders.1.model.ln_final.weight": [1]})


@pytest.mark.parametrize(
    ("name", "files", "cause", "fix"),
    [
        ("sd.safetensors", {"sd.safetensors": CHECKPOINT}, "is a checkpoint in one file", "StableDiffusionPipeline"),
        ("xl.safetensors", {"xl.safetensors": XL_CHECKPOINT}, "in one file", "StableDiffusionXLPipeline as P"),
        ("sd.ckpt", {"sd.ckpt": b"pickle"}, "is a checkpoint in one file", "from_single_file"),
        ("cut.safetensors", {"cut.safetensors": CHECKPOINT[:50]}, "is cut within its header", "download it again"),
        (".", {"sd.safetensors": CHECKPOINT, "notes.md": b""}, "holds no model_index.json:", "from_single_file"),
        ("lora.safetensors", {"lora.safetensors": LORA}, "is a LoRA, not a model", "that it was trained on"),
        (".", {"pytorch_lora_weights.safetensors": LORA}, "is a LoRA, not a model", "that it was trained on"),
        (
            ".",
            {"adapter.json": b'{"base_model": {"id": "org/base"}}', "pytorch_lora_weights.safetensors": LORA},
            "is an adapter, not a model",
            "--base-model org/base; to train on top of it, merge the two",
        ),
        (".", {"adapter.json": b"{"}, "is an adapter, not a model", "name the model that it was trained on"),
        (
            ".",
            {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}'},
            "is an adapter of peft, not a model",
            "--base-model org/base",
        ),
        ("unet", small_model(), "unet is a part of a model", "name the whole model: --base-model"),
        ("model_index.json", small_model(), "is the index of a model", "name its folder: --base-model"),
        (".", {f"sd/{name}": file for name, file in small_model().items()}, "holds one", "/sd"),
        (".", {f"snapshots/4d/{name}": file for name, file in small_model().items()}, "holds one", "/snapshots/4d"),
        ("notes.txt", {"notes.txt": b""}, "is a file, not a folder", "a folder in the diffusers layout"),
        ("nothing", {}, "there is no folder", "a Hugging Face id such as org/model"),
        (".", {}, "holds no model_index.json", "a folder in the diffusers layout"),
    ],
)
def test_what_is_no_model_is_answered_with_what_it_is_and_what_to_do(
    submit: Submit, tmp_path: Path, name: str, files: Files, cause: str, fix: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    said = submit(write_files(folder, files) / name)
    assert cause in said
    assert fix in said


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://huggingface.co/org/model", "write --base-model org/model)"),
        ("https://huggingface.co/org/model/", "write --base-model org/model)"),
        ("huggingface.co/org/model/tree/main", "write --base-model org/model)"),
        ("https://hf.co/org/model?not-for-all", "write --base-model org/model)"),
        ("https://huggingface.co/org/model/tree/v1.5", "write --base-model org/model -s base_revision=v1.5)"),
        ("https://huggingface.co/org/m/blob/4d7a/unet/config.json", "--base-model org/m -s base_revision=4d7a)"),
        ("https://huggingface.co/org/m/tree/refs%2Fpr%2F1", "--base-model org/m -s base_revision=refs/pr/1)"),
        ("hf://org/model", "write --base-model org/model)"),
        ("https://huggingface.co/datasets/org/set", "is an address of the web"),
        ("https://civitai.com/models/1", "is an address of the web"),
        ("s3://bucket/model", "aws s3 sync s3://bucket/model ./model"),
    ],
)
def test_an_address_is_answered_with_the_id_and_revision_to_use(submit: Submit, address: str, words: str) -> None:
    assert words in submit(address)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/model", "a\0b"])
def test_a_path_that_cannot_be_is_refused(submit: Submit, name: str) -> None:
    submit(name)


def test_a_part_that_is_no_folder_is_refused(submit: Submit, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "model", small_model())
    shutil.rmtree(folder / "vae")
    (folder / "vae").touch()
    assert "vae/ has no config.json" in submit(folder)


ODD: tuple[object, ...] = (None, -1, 1e308, "x" * 9999, [], {"a": [None]})


def test_whatever_a_model_says_is_answered_in_words(tmp_path: Path) -> None:
    files = small_model("sdxl")
    folder = write_files(tmp_path, files)
    refused = 0
    for file in files:
        if not file.endswith(".json"):
            continue
        values = json.loads(files[file])
        for name in values:
            for odd in ODD:
                (folder / file).write_bytes(json_of({**values, name: odd}))
                found = model_problems(folder)
                refused += bool(found)
                assert all(len(problem.what) <= 300 for problem in found)
                if not found:
                    assert tokenizers_of(folder), (file, name, odd)
        (folder / file).write_bytes(files[file])
    assert refused > 100
