"""A small model with a head of its own in code of its own, as ArmoRM has one."""

from __future__ import annotations

import json
from pathlib import Path

import tiny

CODE = """
import torch
from dataclasses import dataclass
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class Output(ModelOutput):
    score: torch.FloatTensor = None
    rewards: torch.FloatTensor = None

class MultiRewardForSequenceClassification(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.objectives = torch.nn.Linear(config.hidden_size, 19, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        last = (attention_mask.cumsum(-1) * attention_mask).argmax(-1)
        rewards = self.objectives(hidden[torch.arange(len(last)), last])
        return Output(score=rewards.mean(-1), rewards=rewards)
"""


def save_armo(folder: Path, **options) -> str:
    """Write the model into `folder`, its code beside its weights; the folder's path."""
    from safetensors.torch import load_file, save_file

    tiny.save(folder, "llama", num_labels=19, **options)
    (folder / "modeling_multi.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_multi.MultiRewardForSequenceClassification"}
    config["architectures"] = ["MultiRewardForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["objectives.weight"] = weights.pop("score.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)
