"""FuxiCTR 2.3.10 on a prepared dataset of ours: how many samples per second it trains.

Run by benchmarks/training.py in FuxiCTR's own environment. The wheel carries its loader, layers and
base model but not its model zoo, so the three models are put together here from those layers, with
the wiring of its zoo (attention without bias, residual projection, ReLU after the sum).

    python fuxictr_train.py MODEL SPEC.json     prints one JSON object
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import (
    DIN_Attention,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
    ScaledDotProductAttention,
)
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from torch import nn

EMBEDDING_DIM, HIDDEN = 16, [400, 400, 400]


class Dnn(BaseModel):
    def __init__(self, feature_map: FeatureMap, **kwargs: object) -> None:
        super().__init__(feature_map, model_id="dnn", gpu=-1, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, EMBEDDING_DIM)
        self.dnn = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(), output_dim=1, hidden_units=HIDDEN,
            hidden_activations="ReLU", output_activation=None,
        )  # fmt: skip
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs: dict) -> dict:
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.dnn(embedded))}


class Attention(nn.Module):
    """One interacting layer: 2 heads of 32, residual projection, ReLU."""

    def __init__(self, input_dim: int, heads: int = 2, head_dim: int = 32) -> None:
        super().__init__()
        self.heads, width = heads, heads * head_dim
        self.project = nn.ModuleList(nn.Linear(input_dim, width, bias=False) for _ in range(3))
        self.residual = nn.Linear(input_dim, width, bias=False) if input_dim != width else nn.Identity()
        self.attend = ScaledDotProductAttention(0.0)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        rows, count, _ = fields.shape
        query, key, value = (
            layer(fields).view(rows, count, self.heads, -1).transpose(1, 2) for layer in self.project
        )
        mixed, _ = self.attend(query, key, value, scale=None)
        return (mixed.transpose(1, 2).reshape(rows, count, -1) + self.residual(fields)).relu()


class AutoInt(BaseModel):
    def __init__(self, feature_map: FeatureMap, **kwargs: object) -> None:
        super().__init__(feature_map, model_id="autoint", gpu=-1, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, EMBEDDING_DIM)
        self.layers = nn.Sequential(Attention(EMBEDDING_DIM), Attention(64), Attention(64))
        self.fc = nn.Linear(feature_map.num_fields * 64, 1)
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs: dict) -> dict:
        fields = self.embedding_layer(self.get_inputs(inputs))
        return {"y_pred": self.output_activation(self.fc(self.layers(fields).flatten(1)))}


class Din(BaseModel):
    def __init__(self, feature_map: FeatureMap, **kwargs: object) -> None:
        super().__init__(feature_map, model_id="din", gpu=-1, **kwargs)
        self.embedding_layer = FeatureEmbeddingDict(feature_map, EMBEDDING_DIM)
        self.attention = DIN_Attention(EMBEDDING_DIM, attention_units=[80, 40], hidden_activations="Dice")
        self.dnn = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(), output_dim=1, hidden_units=HIDDEN,
            hidden_activations="ReLU", output_activation=None,
        )  # fmt: skip
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs: dict) -> dict:
        features = self.get_inputs(inputs)
        embedded = self.embedding_layer(features)
        mask = features["history"].long() != 0
        embedded["history"] = self.attention(embedded["item"], embedded["history"], mask)
        flat = self.embedding_layer.dict2tensor(embedded, flatten_emb=True)
        return {"y_pred": self.output_activation(self.dnn(flat))}


MODELS = {"dnn": Dnn, "autoint": AutoInt, "din": Din}


def feature_map(spec: dict) -> FeatureMap:
    """FuxiCTR's feature map of a dataset: every id column with its vocabulary size."""
    features = FeatureMap("bench", spec["work"])
    for name, size in spec["categorical"].items():
        features.features[name] = {
            "type": "categorical", "source": "", "padding_idx": 0, "vocab_size": size, "oov_idx": size - 1,
        }  # fmt: skip
    for name, (size, length, shares) in spec["sequence"].items():
        features.features[name] = {
            "type": "sequence", "source": "", "padding_idx": 0, "vocab_size": size, "max_len": length,
            "share_embedding": shares, "feature_encoder": None, "oov_idx": size - 1,
        }  # fmt: skip
    features.labels = ["__label__"]
    features.num_fields = features.get_num_fields()
    features.default_emb_dim = EMBEDDING_DIM
    features.set_column_index()
    return features


def main() -> None:
    model_name, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    logging.disable(logging.WARNING)
    seed_everything(2024)
    features = feature_map(spec)
    model = MODELS[model_name](
        features, verbose=0, model_root=spec["work"], metrics=["AUC"], task="binary_classification"
    )
    model._max_gradient_norm = 10.0
    loader, _ = RankDataLoader(
        features, stage="train", train_data=spec["train"], batch_size=spec["batch_size"], shuffle=True,
        data_format="parquet",
    )  # fmt: skip
    model.train()
    losses, started, rows = [], 0.0, 0
    for step, batch in enumerate(loader):
        if step == spec["warm_up"]:
            started, rows = time.perf_counter(), 0
        losses.append(float(model.train_step(batch)))
        rows += len(batch["__label__"])
        if step + 1 == spec["warm_up"] + spec["steps"]:
            break
    seconds = time.perf_counter() - started
    print(json.dumps({"samples_per_second": rows / seconds, "loss": losses[-1], "steps": spec["steps"]}))


if __name__ == "__main__":
    main()
