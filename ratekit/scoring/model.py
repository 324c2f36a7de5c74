"""A `transformers` model as a reward: loaded safely, read as its adapter says, run as fast as is exact.

reward = RewardModel("sfairXC/FsfairX-LLaMA3-RM-v0.1")
reward(["Why is the sky blue?"], ["Because of Rayleigh scattering."])
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten, unknown
from ratekit.scoring import plan, readout
from ratekit.scoring.adapters import ADAPTERS, HUB, LANGUAGE_MODEL_READS, Adapter, guess, positive_label
from ratekit.scoring.base import NOT_FINITE, TRUNCATED, Scores
from ratekit.scoring.distributed import Processes
from ratekit.scoring.encoding import Encoder
from ratekit.scoring.forward import Forward
from ratekit.scoring.readout import Encoded
from ratekit.scoring.weights import from_weights, weights_hash

log = logging.getLogger("ratekit")

# Eight texts that a model is held against itself with when it is loaded: shared beginnings, one that another begins
# with, several lengths, several alphabets.
PROBE: tuple[tuple[str, str], ...] = (
    ("Why is the sky blue?", "Because air scatters blue light more than red light."),
    ("Why is the sky blue?", "Because air scatters blue light more than red light. This is Rayleigh scattering, and "
     "it is why the sun looks red when it sets: its light has come a long way through the air."),
    ("Why is the sky blue?", "No idea."),
    ("Write a review of a film that you saw last week, and say whether you would see it again.",
     "The plot is thin, but the two leads carry it. I would see it again."),
    ("Write a review of a film that you saw last week, and say whether you would see it again.",
     "The plot is thin, and the two leads cannot carry it.\n\n- too long\n- too loud\n\nI would not see it again."),
    ("¿Qué hora es?", "Son las cinco y media; 5:30, más o menos."),
    ("Sort [3, 1, 2].", "[1, 2, 3]"),
    ("Sort [3, 1, 2].", "sorted([3, 1, 2])  # -> [1, 2, 3]"),
)  # fmt: skip


class RewardModel:
    """The reward of a model folder or hub id, loaded when it is made.

    >>> reward = RewardModel("sfairXC/FsfairX-LLaMA3-RM-v0.1")  # doctest: +SKIP
    >>> reward(["Why?"], ["Because."]).shape  # doctest: +SKIP
    (1,)

    model              local folder or hub id; safetensors only
    adapter            how it is read, a name in `ADAPTERS` or an `Adapter`; by default known by its id, or guessed
    revision           of a hub model; by default the newest
    device             "cuda", "mps" or "cpu"; by default the first that is there
    dtype              "float32", "bfloat16" or "float16"; by default the checkpoint's own on a GPU (float16 instead of
                       bfloat16 where it has none), float32 elsewhere
    max_length         tokens; by default what the model and its tokenizer allow
    token_budget       tokens in a forward pass; by default what the memory allows; halved when the memory runs out
    path               "auto", "packed" or "padded" (forward.py)
    weights            a state dict that takes the place of the weights in the folder
    trust_remote_code  run code that comes with the model; off unless asked for

    Raises InputError where the model is no reward model or cannot be loaded safely.
    """

    def __init__(
        self,
        model: str | Path,
        adapter: str | Adapter | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        path: str = "auto",
        weights: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.source = str(model)
        folder = Path(model).expanduser()
        self.name = folder.resolve().name if folder.is_dir() else self.source
        config, self.tokenizer = _config_and_tokenizer(self.source, revision, trust_remote_code)
        self.adapter = find_adapter(self.source, adapter) or guess(
            self.source, config, bool(self.tokenizer.chat_template)
        )
        if self.adapter.reads == "objectives" and not trust_remote_code:
            raise InputError(f"{self.name} is read by code that comes with it; say trust_remote_code=True to run it")
        self._weights = weights_hash(weights) if weights is not None else None
        self.model = _load(self.source, config, self.adapter, revision, device, dtype, trust_remote_code, weights)
        self.encode = Encoder(
            self.tokenizer, self.adapter, self.name, max_length or longest(self.model.config, self.tokenizer)
        )
        for fault in self.encode.faults():
            log.warning("%s: %s", self.name, fault)
        self.forward = Forward(self.model, self._readout(), token_budget, path)
        self.forward.check(self.probe())
        self.n_truncated = 0

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        """Rewards (n,) float64 of n responses to n prompts (conversations or strings); NaN where there is none."""
        return self.scores(prompts, responses).rewards

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text whether and how it was read."""
        texts, statuses = self.encode(prompts, responses)
        places = [i for i, text in enumerate(texts) if text is not None]
        outputs = self.outputs([texts[i] for i in places])  # type: ignore[misc]
        rewards = np.full(len(texts), np.nan)
        parts = {name: np.full(len(texts), np.nan) for name in self.adapter.objectives}
        if places:
            rewards[places] = outputs[:, self._column]
            for k, name in enumerate(parts, 1):
                parts[name][places] = outputs[:, k]
        for i in places:
            if not np.isfinite(rewards[i]):
                statuses[i], rewards[i] = NOT_FINITE, np.nan
        self.n_truncated += sum(s == TRUNCATED for s in statuses)
        tokens = np.array([len(t.ids) if t else 0 for t in texts], dtype=np.int64)
        return Scores(rewards, statuses, parts, tokens)

    def outputs(self, texts: Sequence[Encoded]) -> NDArray[np.float64]:
        """(n, k) numbers that the model gives. WorkError where its forward pass fails."""
        try:
            return self.forward(texts)
        except RuntimeError as e:
            raise WorkError(f"{self.name}: the forward pass failed ({shorten(e, 160)})") from None

    def cost(self, prompts: Sequence[Any], responses: Sequence[str]) -> int:
        """How many tokens these texts take to run, shared beginnings counted once."""
        texts = {text.ids for text in self.encode(prompts, responses)[0] if text}
        if self.forward.path == "padded":
            return sum(map(len, texts))
        packs = plan.packs(list(texts), self.forward.budget, self.forward.least_shared)
        return sum(len(pack.tokens) for pack in packs)

    def record(self) -> dict[str, Any]:
        """How the model is run, to be kept beside its scores."""
        import torch
        import transformers

        return {
            **self.fingerprint,
            "device": str(self.model.device),
            "max_length": self.encode.max_length,
            "path": self.forward.path,
            "token_budget": self.forward.budget,
            "last_layer_pruned": self.forward.pruned,
            "prepacked_layers": self.forward.n_prepacked,
            "largest_difference_to_one_by_one": self.forward.worst,
            "texts_compared": len(PROBE),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def probe(self) -> list[Encoded]:
        """The probe's texts, as this model gets them."""
        texts, _ = self.encode([p for p, _ in PROBE], [r for _, r in PROBE])
        found = [text for text in texts if text is not None]
        if not found:
            raise InputError(f"{self.name}: its chat template refuses one question and one answer")
        return found

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def revision(self) -> str:
        """The hub's commit, or a hash of what is in the folder or of the weights given in its place."""
        commit = self._weights or getattr(self.model.config, "_commit_hash", None)
        return commit or folder_hash(Path(self.source).expanduser())

    @property
    def fingerprint(self) -> dict[str, str]:
        """model, revision, adapter and dtype: with the text, all that a score depends on."""
        adapter = hashlib.sha256(repr((self.adapter, self.encode.max_length)).encode()).hexdigest()[:8]
        return {
            "model": self.name,
            "revision": self.revision,
            "adapter": f"{self.adapter.name}-{adapter}",
            "dtype": self.dtype,
        }

    def _readout(self) -> readout.Readout:
        reads = self.adapter.reads
        self._column = 0
        if reads == "objectives":
            return readout.objectives(self.model)
        if reads == "log_likelihood":
            return readout.log_likelihood(self.model)
        if reads == "yes_no":
            return readout.yes_no(self.model, *(self._answer(a) for a in self.adapter.answers))
        if reads == "positive":
            column = positive_label(self.model.config)
            if column is None:
                labels = ", ".join(map(str, (self.model.config.id2label or {}).values()))
                raise InputError(f"{self.name}: none of its labels ({labels}) says POSITIVE")
            self._column = column
        return readout.classifier(self.model)

    def _answer(self, word: str) -> int:
        ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"{self.name}: its tokenizer has no token for the answer {word!r}")
        return int(ids[0])


# --- loading -----------------------------------------------------------------------------------------------


def find_adapter(name: str, adapter: str | Adapter | None) -> Adapter | None:
    """The adapter asked for, or the one known for this hub id or for a folder that bears that model's name.

    Raises InputError for an unknown name.
    """
    if isinstance(adapter, str):
        if adapter not in ADAPTERS:
            raise unknown("adapter", adapter, ADAPTERS)
        return ADAPTERS[adapter]
    if adapter is not None or name in HUB or not Path(name).is_dir():
        return adapter or HUB.get(name)
    return next((known for hub_id, known in HUB.items() if hub_id.split("/")[-1] == Path(name).name), None)


def _config_and_tokenizer(name: str, revision: str | None, trust: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust)
        return config, AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
    except Exception as e:  # transformers raises many kinds; all mean that there is no model to score with
        raise InputError(f"the reward model {name!r} cannot be loaded: {_reason(e)}") from None


def _load(
    name: str, config: Any, adapter: Adapter, revision: str | None, device: str | None, dtype: str | None, trust: bool,
    weights: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    asks = adapter.reads in LANGUAGE_MODEL_READS
    folder = Path(name).expanduser()
    if weights is None and folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
        what = (
            f"are there only pickled ({pickles[0]}), which can run any code when they are read"
            if pickles
            else "are not there"
        )
        raise InputError(f"the reward model {name!r} cannot be loaded: its weights {what}; model.safetensors is needed")
    accelerated = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = device or Processes().device or accelerated
    kind: Any = AutoModelForCausalLM if asks else AutoModelForSequenceClassification
    options: dict[str, Any] = {"dtype": dtype or _dtype_for(device, config), "output_loading_info": True}
    try:
        if weights is None:
            model, report = kind.from_pretrained(
                name, revision=revision, trust_remote_code=trust, use_safetensors=True, **options
            )
        else:
            model, report = from_weights(config, weights, options)
    except Exception as e:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_reason(e)}") from None
    missing = sorted(report["missing_keys"])
    if missing and getattr(config, "auto_map", None) and not trust:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_OWN_CODE}")
    if missing:
        raise InputError(
            f"{name!r} does not hold all weights of a {type(model).__name__} ({missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}): they would be random, and so the scores"
        )
    return model.to(device).eval()


def _dtype_for(device: str, config: Any) -> str:
    import torch

    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if not device.startswith("cuda") or own not in ("bfloat16", "float16"):
        return "float32"
    return "float16" if own == "bfloat16" and not torch.cuda.is_bf16_supported(False) else own


def longest(config: Any, tokenizer: Any) -> int:
    """Tokens that the model and its tokenizer allow; 4096 where neither says."""
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit and limit < 10**7]
    return min(known) if known else 4096


def folder_hash(folder: Path) -> str:
    """A hash of the config, tokenizer and weights in a folder: another training gives another hash."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(
        p for pattern in ("*.json", "*.safetensors", "*.jinja", "*.py", "*.txt") for p in folder.glob(pattern)
    ):
        digest.update(path.name.encode())
        with path.open("rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


_OWN_CODE = "it comes with code of its own; read that code, and say trust_remote_code=True to run it"


def _reason(error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return _OWN_CODE
    if "pickl" in text or "does not appear to have a file named model.safetensors" in text:
        return "its weights are there only pickled, which can run any code; model.safetensors is needed"
    return shorten(text, 160)
