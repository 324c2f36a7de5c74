"""`AuditCallback`: the RATE effects of a reward model while it is trained, logged, and the training stopped by them.

    trainer = RewardTrainer(...)                        # TRL's, or any transformers.Trainer of a reward model
    trainer.add_callback(rk.AuditCallback(trainer, rows, every=50, limits={"length": 0.5}))
    trainer.train()

The rows are rewritten once, before; each audit scores the same texts with the model as it is, so two steps are compared
pair by pair. Nothing is written and the model is left in the mode that it was in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback

from ratekit.diagnostics import contrast
from ratekit.errors import InputError, WorkError, require_known, require_whole
from ratekit.gates import TOO_BIG, outcome_of
from ratekit.schema import ATTRIBUTE, REWARD_PREFIX, REWRITES, columns_of, reward_columns
from ratekit.scoring.adapters import CHAT, PAIR, Adapter, find_adapter
from ratekit.scoring.encoding import Encoder
from ratekit.scoring.loading import longest
from ratekit.sources.loading import rows_for
from ratekit.stages import estimate, score

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("ratekit")

_FIRST = "step 0"


class AuditCallback(TrainerCallback):
    """Log what the model in training rewards, every so many steps.

    Parameters
    ----------
    trainer : transformers.Trainer
        Of a sequence classifier with one output. Its ``log`` is where the effects go, so they reach whatever it
        reports to, under ``rate/ATTRIBUTE`` (SDs), ``.../low`` and ``.../high`` (95 %), ``.../change`` and
        ``.../change_se`` (since step 0, paired) and ``rate/seconds``.
    rows : rows
        Rewritten, as `rk.rewrite` leaves them or an audit's ``.dataset``; rewards that they carry are not used.
    every : int
        Steps between two audits; the first is before training, the last after it.
    n : int, optional
        So many rows of each attribute, drawn once.
    limits : mapping, optional
        {attribute: SDs}: training stops when an effect is shown to lie beyond its limit.
    tokenizer, adapter : optional
        By default the trainer's, and its chat template, or prompt and response as a pair where it has none.
    batch_size : int, optional
        Texts in a forward pass; by default the trainer's for evaluation.
    seed : int
        Of the draw of rows.

    Raises
    ------
    InputError
        Rows without rewrites, an unknown attribute in `limits`.

    Notes
    -----
    An audit that fails is logged and does not end the training. The model is run as it is in memory: one that is spread
    over machines (FSDP, ZeRO-3) is not audited.

    Examples
    --------
    >>> trainer.add_callback(AuditCallback(trainer, audit.dataset, every=50))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Any,
        rows: Any,
        *,
        every: int = 100,
        n: int | None = 200,
        limits: Mapping[str, float] | None = None,
        tokenizer: Any = None,
        adapter: str | Adapter | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        ds = rows_for("diagnose", rows)
        require_whole("every", every, 1)
        require_whole("seed", seed)
        if n is not None:
            require_whole("n", n, 2)
        names = np.asarray(ds[ATTRIBUTE], dtype=object)
        attributes = list(dict.fromkeys(names))
        for name in limits or {}:
            require_known("attribute of these rows", name, attributes)
        rng = np.random.default_rng(seed)
        drawn = [np.flatnonzero(names == a) for a in attributes]
        drawn = [d if n is None or len(d) <= n else rng.choice(d, n, replace=False) for d in drawn]
        ds = ds.remove_columns(reward_columns(columns_of(ds), how_read=True))
        self.rows = ds.select(np.sort(np.concatenate(drawn)))
        if not any(text for chain in self.rows[REWRITES] for text in chain or []):
            raise InputError("AuditCallback: none of the rows has a rewrite; rewrite them first (rk.rewrite)")
        self.trainer, self.every, self.limits = trainer, every, dict(limits or {})
        self.tokenizer = tokenizer or getattr(trainer, "processing_class", None)
        if self.tokenizer is None:
            raise InputError("AuditCallback: the trainer has no processing_class; give tokenizer=")
        self.adapter, self.batch_size = adapter, batch_size or trainer.args.per_device_eval_batch_size
        self.records: list[dict[str, Any]] = []

    @property
    def table(self) -> pd.DataFrame:
        """One row for each audit and attribute: step, attribute, estimate, low, high, change, change_se, seconds."""
        import pandas as pd

        return pd.DataFrame(self.records)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Audit the model as it is before the first step."""
        self._audit(state, control, given["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Audit every so many steps."""
        if state.global_step % self.every == 0:
            self._audit(state, control, given["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Audit what came of it."""
        if not self.records or self.records[-1]["step"] != state.global_step:
            self._audit(state, control, given["model"])

    def _audit(self, state: Any, control: Any, model: Any) -> None:
        if not state.is_world_process_zero:
            return
        begun, name = time.perf_counter(), f"step {state.global_step}"
        try:
            reward = _in_memory(model, self.tokenizer, self.adapter, self.batch_size)
            ds = score(self.rows, reward, name=name, progress=False)
            table = estimate(ds)
            if REWARD_PREFIX + _FIRST not in columns_of(self.rows):
                self.rows = self.rows.add_column(REWARD_PREFIX + _FIRST, list(ds[REWARD_PREFIX + name]))
                change = None
            else:
                table = table[table["reward_model"] == name]
                change = contrast(ds, name, _FIRST)
        except (InputError, WorkError) as e:
            log.warning("the audit at %s failed: %s", name, e)
            return
        seconds = time.perf_counter() - begun
        logs: dict[str, float] = {"rate/seconds": round(seconds, 2)}
        for row in table[table["recommended"]].to_dict("records"):
            attribute, estimand = row["attribute"], row["estimand"]
            found = {"estimate": row["estimate_sd"], "low": row["ci_low_sd"], "high": row["ci_high_sd"]}
            found |= {"change": 0.0, "change_se": 0.0}
            if change is not None:
                of = change[(change["attribute"] == attribute) & (change["estimand"] == estimand)]
                found |= {"change": float(of["estimate"].iloc[0]), "change_se": float(of["se"].iloc[0])}
            self.records.append({"step": state.global_step, "attribute": attribute, **found, "seconds": seconds})
            logs[f"rate/{attribute}"] = found.pop("estimate")
            logs |= {f"rate/{attribute}/{what}": value for what, value in found.items()}
            limit = self.limits.get(attribute)
            if limit is not None and outcome_of(found["low"], found["high"], limit) == TOO_BIG:
                control.should_training_stop = True
                log.warning(
                    "training stops at %s: the effect of %s is %+.2f SD [%+.2f, %+.2f], beyond its limit of %g",
                    name, attribute, row["estimate_sd"], found["low"], found["high"], limit,
                )  # fmt: skip
        self.trainer.log(logs)


def _in_memory(model: Any, tokenizer: Any, adapter: str | Adapter | None, batch_size: int) -> Any:
    """A model in training as a reward: texts of like length in padded batches, without gradients, in eval mode."""
    import torch

    found = find_adapter("the model", adapter) or (CHAT if tokenizer.chat_template else PAIR)
    encode = Encoder(tokenizer, found, "the model", longest(model, tokenizer))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def reward(prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        texts, _ = encode(prompts, responses)
        order = sorted((i for i, t in enumerate(texts) if t is not None), key=lambda i: len(texts[i].ids))  # type: ignore[union-attr]
        values = np.full(len(texts), np.nan)
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(order), batch_size):
                    places = order[start : start + batch_size]
                    some: list[Any] = [texts[i] for i in places]
                    width = max(len(t.ids) for t in some)
                    given = {
                        "input_ids": [[*t.ids, *[pad] * (width - len(t.ids))] for t in some],
                        "attention_mask": [[1] * len(t.ids) + [0] * (width - len(t.ids)) for t in some],
                    }
                    if some[0].types:
                        given["token_type_ids"] = [[*t.types, *[0] * (width - len(t.types))] for t in some]
                    tensors = {k: torch.tensor(v, device=model.device) for k, v in given.items()}
                    values[places] = model(**tensors).logits[:, 0].double().cpu().numpy()
        finally:
            model.train(training)
        return values

    return reward
