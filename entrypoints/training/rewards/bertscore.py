"""BERTScore's recall (arXiv 1904.09675, sec. 3): how much of one text is in another.

Each token of the reference is matched to the token of the candidate whose state is most like its own; the recall is
the mean of these cosines. Tokens are not weighted by how rare they are, and the markers that a tokenizer adds do not
count. The states are those after three quarters of the layers: for a model of 12 layers the ninth, as the paper's
authors chose for BERT.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from entrypoints.evaluation.dino import load_frozen

LAYERS = 0.75
"""Share of the layers that are used."""
MOST_TOKENS = 512
"""Of a text; the rest is cut off."""


class BertScore:
    """A text model with its tokenizer."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the model in `folder`, without code of its own; raises ValueError when weights are missing."""
        self.model = load_frozen(folder, device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.layer = max(1, round(LAYERS * self.model.config.num_hidden_layers))

    def recall(self, reference: str, candidate: str) -> float:
        """Return how much of the reference is in the candidate, 1 for equal texts; 0 when one of them has no token."""
        wanted = self._states(reference)
        given = self._states(candidate)
        if not len(wanted) or not len(given):
            return 0.0
        cosines = wanted @ given.T
        best = cosines.max(dim=1).values
        return float(best.mean())

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        """Return the unit vector of each token, shape (tokens, width)."""
        limit = getattr(self.model.config, "max_position_embeddings", MOST_TOKENS)
        tokens = self.tokenizer(
            text,
            return_tensors="pt",
            truncation=True,
            max_length=min(limit, MOST_TOKENS),
            return_special_tokens_mask=True,
        )
        is_marker = tokens.pop("special_tokens_mask")[0].bool()
        output = self.model(**tokens.to(self.model.device), output_hidden_states=True)
        states = output.hidden_states[self.layer][0].float().cpu()
        return nn.functional.normalize(states[~is_marker], dim=-1)
