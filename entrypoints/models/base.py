"""What training, evaluation and serving need of a model family."""

from torch import Tensor

Conditions = dict[str, Tensor]
