"""The adapted projection of LoRA (arXiv 2106.09685, eq. 3) with its gradients written out.

PEFT's own layer leaves the gradients to autograd, which records and runs about twice as many small operations for the
same products; on a small model the operations cost more than the arithmetic. `make bench` measures both.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor


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
