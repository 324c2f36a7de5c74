"""What the tests of rewriting share: servers in processes of their own, and a small labelled dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVERS = ROOT / "tests" / "servers"


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a child: the package from this checkout, no key, no network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


class Server:
    """A server of tests/servers in a process of its own, on a port of its own."""

    def __init__(self, script: str, **config: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVERS / script), json.dumps(config)],
            stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as answer:
            return json.load(answer)

    def configure(self, **config: object) -> None:
        """Change its ways and forget what it did."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/configure", json.dumps(config).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).read()

    @property
    def stats(self) -> dict:
        return self.get("stats")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def labelled(n: int, attribute: str = "length"):
    """n rows, all different, half of them treated."""
    from datasets import Dataset

    texts = [f"Review {i} says that the plot was thin. It was a good film all the same." for i in range(n)]
    return Dataset.from_dict(
        {
            "prompt_id": [str(i) for i in range(n)],
            "prompt": [[{"role": "user", "content": "Write a review."}]] * n,
            "response": texts,
            "attribute": [attribute] * n,
            "treated": [i % 2 == 0 for i in range(n)],
        }
    )


def tiny_chat(folder: Path) -> Path:
    """A chat model of about 100,000 random parameters: it talks nonsense, and ends after some ten tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=[
            *map(chr, range(0x21, 0x7F)),
            "Ġ",
            "Ċ",
        ],  # ASCII, a space, a line break: half letters are marks
    )
    tokenizer.train_from_iterator(["The film was a joy from start to finish, and longer than most."] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1024
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, max_new_tokens=64, do_sample=True, top_k=0,
        exponential_decay_length_penalty=(8, 2.0),  # or nearly every reply would be cut off
    )  # fmt: skip
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
