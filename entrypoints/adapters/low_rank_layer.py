"""The adapted layers of LoRA (arXiv 2106.09685, eq. 3) with their gradients written out.

PEFT's own layers leave the gradients to autograd, which records and runs about twice as many small operations for the
same products; on a small model the operations cost more than the arithmetic. `make bench` measures both.
"""

from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor, nn


class LowRankProjection(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T, of which A and B are trained and W and b are frozen.

    x: (..., inputs); W: (outputs, inputs); b: (outputs,) or None; A: (rank, inputs); B: (outputs, rank);
    s = alpha / rank.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        """Return the projection, (..., outputs)."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        narrow = rows @ a.T  # (rows, rank)
        outputs = torch.nn.functional.linear(rows, weight, bias)
        outputs.addmm_(narrow, b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, narrow)
        ctx.scale = scale
        ctx.shape = inputs.shape
        return outputs.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradients of the inputs, of A and of B."""
        rows, weight, a, b, narrow = ctx.saved_tensors
        (gradient,) = gradients
        of_outputs = gradient.reshape(-1, gradient.shape[-1])
        of_narrow = (of_outputs @ b) * ctx.scale  # (rows, rank)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = (of_outputs @ weight).addmm_(of_narrow, a).view(ctx.shape)
        of_a = of_narrow.T @ rows
        of_b = (of_outputs.T @ narrow) * ctx.scale
        return of_inputs, None, None, of_a, of_b, None


class LowRankLinear(Linear):
    """PEFT's layer, which computes with `LowRankProjection` wherever that gives what PEFT's own code gives."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the projection of `x`, (..., inputs) to (..., outputs)."""
        projection = self.get_base_layer()
        # PEFT's own code knows merged and switched-off adapters, and the types of mixed precision.
        is_plain = projection.weight.dtype == x.dtype and not torch.is_autocast_enabled(x.device.type)
        if args or kwargs or self.merged or self.disable_adapters or not is_plain:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        (adapter,) = self.active_adapters
        projected: Tensor = LowRankProjection.apply(
            x,
            projection.weight,
            projection.bias,
            self.lora_A[adapter].weight,
            self.lora_B[adapter].weight,
            self.scaling[adapter],
        )
        return projected


class LowRankConvolution(torch.autograd.Function):
    """x * (W + s B A) + b, of which A and B are trained and W and b are frozen; `*` is a convolution.

    x: (batch, inputs, height, width); W: (outputs, inputs, k, k); b: (outputs,) or None; A: (rank, inputs, k, k);
    B: (outputs, rank, 1, 1); s = alpha / rank. On large maps the sum of the kernels costs less than two convolutions
    more, with A and with B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        convolution: nn.Conv2d,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        """Return the convolution, (batch, outputs, height, width)."""
        weight = convolution.weight
        adapted = torch.addmm(weight.flatten(1), b.flatten(1), a.flatten(1), alpha=scale).view_as(weight)
        ctx.save_for_backward(inputs, adapted, a, b)
        ctx.scale = scale
        ctx.geometry = (convolution.stride, convolution.padding)
        return torch.nn.functional.conv2d(inputs, adapted, convolution.bias, *ctx.geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradients of the inputs, of A and of B."""
        inputs, adapted, a, b = ctx.saved_tensors
        (of_outputs,) = gradients
        pixels = of_outputs.flatten(2)  # (batch, outputs, pixels)
        narrow = torch.nn.functional.conv2d(inputs, a, None, *ctx.geometry)
        narrow_pixels = narrow.flatten(2)  # (batch, rank, pixels)
        of_b = pixels @ narrow_pixels.mT
        of_b = of_b.sum(0) * ctx.scale
        wide = b.flatten(1)  # (outputs, rank)
        of_narrow = wide.T @ pixels
        of_narrow = of_narrow * ctx.scale
        of_narrow = of_narrow.view_as(narrow)
        of_a = torch.nn.grad.conv2d_weight(inputs, a.shape, of_narrow, *ctx.geometry)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = torch.nn.grad.conv2d_input(inputs.shape, adapted, of_outputs, *ctx.geometry)
        return of_inputs, None, of_a, of_b.view_as(b), None


class LowRankConv2d(Conv2d):
    """PEFT's layer, which computes with `LowRankConvolution` wherever that gives what PEFT's own code gives faster."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the convolution of `x`, (batch, inputs, height, width) to (batch, outputs, height, width)."""
        convolution = self.get_base_layer()
        is_switched = self.merged or self.disable_adapters
        if args or kwargs or is_switched or not _is_plain(convolution, x):
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        (adapter,) = self.active_adapters
        convolved: Tensor = LowRankConvolution.apply(
            x,
            convolution,
            self.lora_A[adapter].weight,
            self.lora_B[adapter].weight,
            self.scaling[adapter],
        )
        return convolved


def _is_plain(convolution: nn.Conv2d, x: Tensor) -> bool:
    """Whether W and B A can be added, and whether that is faster: not where there are more weights than inputs."""
    return (
        x.numel() > convolution.weight.numel()
        and x.dtype == convolution.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(x.device.type)
        and convolution.kernel_size != (1, 1)
        and convolution.groups == 1
        and convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )
