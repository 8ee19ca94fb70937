"""FuxiCTR 2.3.10 on a prepared dataset of ours: how many samples per second it trains.

Run by benchmarks/training.py in FuxiCTR's own environment. The wheel carries its loader, layers and
base model but not its model zoo, so the three models are put together here from those layers, with
the wiring of its zoo.

    python fuxictr_train.py MODEL SPEC.json     prints one JSON object
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import (
    DIN_Attention,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr_parts import Attention, feature_map
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


class AutoInt(BaseModel):
    def __init__(self, feature_map: FeatureMap, **kwargs: object) -> None:
        super().__init__(feature_map, model_id="autoint", gpu=-1, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, EMBEDDING_DIM)
        self.layers = nn.Sequential(*(Attention(inputs, 64, 2) for inputs in (EMBEDDING_DIM, 64, 64)))
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


def main() -> None:
    model_name, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    logging.disable(logging.WARNING)
    seed_everything(2024)
    features = feature_map(spec | {"dim": EMBEDDING_DIM})
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
