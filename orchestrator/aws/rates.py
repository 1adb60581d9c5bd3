"""How fast the GPUs of the instance types compute at best, by the names of `assets/instances.json`.

The figures are peaks of the data sheets below https://www.nvidia.com/en-us/data-center/ (tesla-t4, a10, l4, l40s, a100,
h100, h200, hgx, rtx-pro-6000), without sparsity; real training reaches a part of them.
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """Peak operations per second of a GPU, in units of 10^12."""

    single: float
    """float32."""
    tensor: float
    """TF32, which torch uses for the convolutions of float32 models; equal to `single` on GPUs without it."""
    half: float
    """float16 or bfloat16 with sums in float32."""

    def operations(self, precision: str) -> float:
        """Return the peak operations per second of a model that computes in "no", "fp16" or "bf16" mixed precision."""
        if precision != "no":
            return self.half * 1e12
        # About half of a U-Net's operations are convolutions.
        return 2e12 / (1 / self.single + 1 / self.tensor)


_RATES = {
    "T4": Rate(8.1, 8.1, 65),
    "A10G": Rate(35, 35, 70),
    "L4": Rate(30.3, 60, 121),
    "L40S": Rate(91.6, 183, 362),
    "A100-40GB": Rate(19.5, 156, 312),
    "A100-80GB": Rate(19.5, 156, 312),
    "H100": Rate(67, 494, 989),
    "H200": Rate(67, 494, 989),
    "B200": Rate(75, 1100, 2250),
    "B300": Rate(75, 1100, 2250),
    "RTX-PRO-4500": Rate(50, 100, 200),  # no sheet has them: by its share of the RTX-PRO-6000's cores
    "RTX-PRO-6000": Rate(120, 250, 500),
}


def rate(gpu: str) -> Rate | None:
    """Return the rate of a GPU by its name; None for one that is not listed."""
    return _RATES.get(gpu)
