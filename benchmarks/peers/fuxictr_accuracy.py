"""FuxiCTR 2.3.10 on a prepared dataset of ours: validation and test AUC with settings that BARS publishes.

Run by benchmarks/accuracy.py in FuxiCTR's own environment. The wheel carries layers, base model and trainer
but not the model zoo: the models are put together here from those layers with the wiring of the zoo. Its
trainer does the rest: Adam, learning rate cut on plateau, early stopping, the best epoch.

    python fuxictr_accuracy.py SPEC.json     prints one JSON object
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import (
    CrossNetV2,
    Dice,
    DIN_Attention,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr_parts import LABEL, Attention, feature_map
from torch import Tensor, nn

HIDDEN = [400, 400, 400]
GROUP = "__group__"


class Rows:
    """Encoded rows in memory as FuxiCTR's batches, shuffled anew in every epoch where asked."""

    def __init__(self, path: Path, features: FeatureMap, batch_size: int, *, shuffle: bool) -> None:
        table = pq.read_table(path)
        self.columns = {
            name: _padded(table[name], spec["max_len"])
            if spec["type"] == "sequence"
            else torch.from_numpy(table[name].to_numpy())
            for name, spec in features.features.items()
            if name != GROUP
        }
        self.columns[LABEL] = torch.from_numpy(table[LABEL].to_numpy().astype(np.float32))
        if features.group_id is not None:
            self.columns[GROUP] = torch.from_numpy(table[GROUP].to_numpy().astype(np.int64))
        self.rows, self.batch_size, self.shuffle = len(table), batch_size, shuffle

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = torch.randperm(self.rows) if self.shuffle else torch.arange(self.rows)
        for chosen in order.split(self.batch_size):
            yield {name: values[chosen] for name, values in self.columns.items()}


def _padded(column: object, length: int) -> Tensor:
    """Lists as ``[rows, length]``: the last ``length`` elements, zeros behind them."""
    lists = column.combine_chunks()  # type: ignore[attr-defined]
    values, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
    found = np.zeros((len(lists), length), np.int64)
    for row, (start, end) in enumerate(itertools.pairwise(ends)):
        kept = values[max(start, end - length) : end]
        found[row, : len(kept)] = kept
    return torch.from_numpy(found)


class AutoIntPlus(BaseModel):
    """Attention over fields beside a perceptron; BARS on Frappe_x1: 5 layers, 4 heads, width 128."""

    def __init__(self, features: FeatureMap, dim: int, dropout: float, **kwargs: object) -> None:
        super().__init__(features, model_id="autoint_plus", **kwargs)
        self.embedding_layer = FeatureEmbedding(features, dim)
        self.attention = nn.Sequential(
            *(Attention(dim if i == 0 else 128, 128, 4, dropout=dropout, whole=True) for i in range(5))
        )
        self.fc = nn.Linear(features.num_fields * 128, 1)
        self.dnn = MLP_Block(
            input_dim=features.sum_emb_out_dim(), output_dim=1, hidden_units=HIDDEN,
            hidden_activations="ReLU", dropout_rates=dropout, batch_norm=True,
        )  # fmt: skip

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        fields = self.embedding_layer(self.get_inputs(inputs))
        logits = self.fc(self.attention(fields).flatten(1)) + self.dnn(fields.flatten(1))
        return {"y_pred": self.output_activation(logits)}


class FinalMLP(BaseModel):
    """Two gated perceptrons and a bilinear form; BARS on Frappe_x1: 400 and 100, 5 heads, gates of 400."""

    def __init__(self, features: FeatureMap, dim: int, dropout: float, **kwargs: object) -> None:
        super().__init__(features, model_id="finalmlp", **kwargs)
        self.embedding_layer = FeatureEmbedding(features, dim)
        width = dim * features.num_fields
        self.contexts = nn.ModuleList(
            FeatureEmbedding(features, dim, required_feature_columns=[name]) for name in ("user", "item")
        )
        self.gates = nn.ModuleList(
            MLP_Block(
                input_dim=dim, output_dim=width, hidden_units=[400], hidden_activations="ReLU",
                output_activation="Sigmoid",
            )
            for _ in range(2)
        )  # fmt: skip
        self.streams = nn.ModuleList(
            MLP_Block(
                input_dim=width, hidden_units=[units], hidden_activations="ReLU", dropout_rates=dropout,
                batch_norm=True,
            )
            for units in (400, 100)
        )  # fmt: skip
        self.linear = nn.ModuleList(nn.Linear(units, 1) for units in (400, 100))
        self.weight = nn.Parameter(torch.empty(5 * 80 * 20, 1))
        nn.init.xavier_normal_(self.weight)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        features = self.get_inputs(inputs)
        vectors = self.embedding_layer(features).flatten(1)
        left, right = (
            stream(vectors * 2 * gate(context(features).flatten(1)))
            for stream, gate, context in zip(self.streams, self.gates, self.contexts, strict=True)
        )
        met = torch.einsum(
            "bhx,hxy,bhy->b", left.view(-1, 5, 80), self.weight.view(5, 80, 20), right.view(-1, 5, 20)
        )
        logits = self.linear[0](left) + self.linear[1](right) + met.unsqueeze(1)
        return {"y_pred": self.output_activation(logits)}


class Dcnv2(BaseModel):
    """Four full cross layers beside a perceptron."""

    def __init__(self, features: FeatureMap, dim: int, dropout: float, **kwargs: object) -> None:
        super().__init__(features, model_id="dcnv2", **kwargs)
        self.embedding_layer = FeatureEmbedding(features, dim)
        width = features.sum_emb_out_dim()
        self.cross = CrossNetV2(width, 4)
        self.dnn = MLP_Block(
            input_dim=width, hidden_units=HIDDEN, hidden_activations="ReLU", dropout_rates=dropout,
            batch_norm=True,
        )  # fmt: skip
        self.fc = nn.Linear(width + HIDDEN[-1], 1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        vectors = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        logits = self.fc(torch.cat([self.cross(vectors), self.dnn(vectors)], -1))
        return {"y_pred": self.output_activation(logits)}


class Din(BaseModel):
    """BARS on Amazon Electronics: attention 512-256 with softmax, perceptron 1024-512-256, Dice in both.

    Item, category and brand stand side by side, in the candidate and in every event.
    """

    CANDIDATE = ("item_id", "category", "brand")
    EVENTS = ("history", "history_category", "history_brand")

    def __init__(self, features: FeatureMap, dim: int, dropout: float, **kwargs: object) -> None:
        super().__init__(features, model_id="din", **kwargs)
        self.embedding_layer = FeatureEmbeddingDict(features, dim)
        self.attention = DIN_Attention(
            dim * len(self.EVENTS),
            attention_units=[512, 256],
            hidden_activations="Dice",
            dropout_rate=dropout,
            use_softmax=True,
        )
        hidden = [1024, 512, 256]
        self.dnn = MLP_Block(
            input_dim=features.sum_emb_out_dim(), output_dim=1, hidden_units=hidden,
            hidden_activations=[Dice(units) for units in hidden], dropout_rates=dropout, batch_norm=True,
        )  # fmt: skip

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        features = self.get_inputs(inputs)
        vectors = self.embedding_layer(features)
        mask = features["history"].long() != 0
        candidate = torch.cat([vectors[name] for name in self.CANDIDATE], -1)
        pooled = self.attention(candidate, torch.cat([vectors[name] for name in self.EVENTS], -1), mask)
        vectors |= dict(zip(self.EVENTS, pooled.chunk(len(self.EVENTS), -1), strict=True))
        flat = self.embedding_layer.dict2tensor(vectors, flatten_emb=True)
        return {"y_pred": self.output_activation(self.dnn(flat))}


MODELS = {"autoint_plus": AutoIntPlus, "finalmlp": FinalMLP, "dcnv2": Dcnv2, "din": Din}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    seed_everything(spec["seed"])
    features = feature_map(spec)
    if spec["grouped"]:
        features.group_id = GROUP
        features.features[GROUP] = {"type": "meta"}
        features.set_column_index()
    metrics = ["gAUC", "AUC", "logloss"] if spec["grouped"] else ["AUC", "logloss"]
    model = MODELS[spec["model"]](
        features, spec["dim"], spec["dropout"], gpu=-1, verbose=0, model_root=spec["work"], metrics=metrics,
        task="binary_classification", monitor=metrics[0], monitor_mode="max", early_stop_patience=2,
        embedding_regularizer=spec["l2"],
    )  # fmt: skip
    model.compile("adam", "binary_crossentropy", spec["lr"])
    model.reset_parameters()
    Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    parts = {
        part: Rows(Path(spec[part]), features, spec["batch_size"], shuffle=part == "train")
        for part in ("train", "valid", "test")
    }
    started = time.perf_counter()
    model.fit(parts["train"], epochs=100, validation_data=parts["valid"], max_gradient_norm=10.0)
    found = {"train_seconds": time.perf_counter() - started, "epochs": model._epoch_index + 1}
    for part, prefix in (("valid", "valid_"), ("test", "")):
        measured = model.evaluate(parts[part], metrics)
        found |= {f"{prefix}{name.lower()}": float(value) for name, value in measured.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
