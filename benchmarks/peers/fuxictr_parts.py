"""What both scripts for FuxiCTR share: its feature map, and AutoInt's layer out of its layers."""

from __future__ import annotations

from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import ScaledDotProductAttention
from torch import Tensor, nn

LABEL = "__label__"


def feature_map(spec: dict) -> FeatureMap:
    """FuxiCTR's feature map of a dataset: every id column with its vocabulary's size."""
    features = FeatureMap("bench", spec["work"])
    for name, size in spec["categorical"].items():
        features.features[name] = {
            "type": "categorical", "source": "", "padding_idx": 0, "vocab_size": size, "oov_idx": size - 1,
        }  # fmt: skip
    for name, (size, length, shares, encoder) in spec["sequence"].items():
        features.features[name] = {
            "type": "sequence", "source": "", "padding_idx": 0, "vocab_size": size, "max_len": length,
            "feature_encoder": encoder, "oov_idx": size - 1,
        }  # fmt: skip
        if shares is not None:
            features.features[name]["share_embedding"] = shares
    features.labels = [LABEL]
    features.num_fields = features.get_num_fields()
    features.default_emb_dim = spec["dim"]
    features.set_column_index()
    return features


class Attention(nn.Module):
    """One interacting layer as in the model zoo: no bias, residual projection, ReLU after the sum.

    ``whole``: products are scaled, and layer norm stands before the ReLU.
    """

    def __init__(
        self, inputs: int, width: int, heads: int, *, dropout: float = 0.0, whole: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** 0.5 if whole else None
        self.project = nn.ModuleList(nn.Linear(inputs, width, bias=False) for _ in range(3))
        self.residual = nn.Linear(inputs, width, bias=False) if inputs != width else nn.Identity()
        self.attend = ScaledDotProductAttention(dropout)
        self.norm = nn.LayerNorm(width) if whole else nn.Identity()

    def forward(self, fields: Tensor) -> Tensor:
        rows, count, _ = fields.shape
        query, key, value = (
            layer(fields).view(rows, count, self.heads, -1).transpose(1, 2) for layer in self.project
        )
        mixed, _ = self.attend(query, key, value, scale=self.scale)
        mixed = mixed.transpose(1, 2).reshape(rows, count, -1)
        return self.norm(mixed + self.residual(fields)).relu()
