"""How fast and how exact the scoring engine is: one command, one thread, every variant interleaved in one process.

    python benchmarks/scoring.py                 # the table, about ten minutes
    python benchmarks/scoring.py --rounds 1 --prompts 2 --quick     # a look
    python benchmarks/scoring.py --growth        # cost against attributes and prompt share, with a picture
    python benchmarks/scoring.py --errors        # bfloat16 against float64, over five draws of texts
    python benchmarks/scoring.py --parts         # what the pruned layer and shared beginnings are worth
    python benchmarks/scoring.py --device cuda --rounds 2 --prompts 40    # on a GPU, in six minutes
    python benchmarks/scoring.py --models FOLDER ... --data hh-rlhf.jsonl.gz    # models and texts of your own

one by one   one text per forward pass, each tokenised by itself, as the reference implementation does
pipeline 8   transformers.pipeline("text-classification", batch_size=8), in the order of the dataset
sorted 16    sorted by length, then padded batches of 16 (of 64 on a GPU)
CrossEncoder that of sentence-transformers, where it is installed and the model is an encoder (with --models)
ratekit      RewardModel: tokenising, planning and running, as `rk.score` calls it

Texts are random words, so that responses share nothing but their prompt: the hard case. Medians of wall times; on a
shared machine only the ratios mean something. `peak` is the share of the fastest matrix product measured in between.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if "cuda" in sys.argv else "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from ratekit.schema import as_conversation, prompt_text
from ratekit.scoring import forward, packing
from ratekit.scoring.model import RewardModel

TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|eot|>{% endfor %}"


def lexicon(n: int = 6000) -> np.ndarray:
    rng = np.random.default_rng(0)
    onsets, vowels, codas = list("bdfgklmnprstvz"), list("aeiou"), ["", "n", "r", "s", "nd"]
    words = {
        "".join(rng.choice(part) for _ in range(rng.integers(1, 4)) for part in (onsets, vowels, codas))
        for _ in range(n)
    }
    return np.array(sorted(words, key=lambda w: (len(w), w)))


LEXICON = lexicon()
WEIGHTS = 1 / (np.arange(len(LEXICON)) + 5.0)
WEIGHTS /= WEIGHTS.sum()


def text(n_words: float, rng: np.random.Generator) -> str:
    return " ".join(rng.choice(LEXICON, size=max(4, int(n_words)), p=WEIGHTS))


def data(n_prompts: int, n_attributes: int, share: float = 0.45, seed: int = 0) -> tuple[list[str], list[str]]:
    """Per prompt and attribute: response, rewrite, rewrite of the rewrite. `share` of a text's words are its prompt."""
    rng = np.random.default_rng(seed)
    prompts, responses = [], []
    for _ in range(n_prompts):
        length = float(np.clip(np.exp(rng.normal(np.log(140), 0.5)), 40, 300))
        prompt = text(rng.uniform(0.8, 1.2) * 150 * share / (1 - share), rng)
        original = text(length, rng)
        for _ in range(n_attributes):
            rewrites = [text(length * rng.lognormal(0, sigma), rng) for sigma in (0.25, 0.2)]
            for response in (original, *rewrites):
                prompts.append(prompt)
                responses.append(response)
    return prompts, responses


def save(folder: Path, kind: str, dtype: torch.dtype) -> str:
    """A model of random weights: `decoder` (Llama, 8 layers, 512 wide), `llama-100m`, `encoder` (DistilBERT's size).

    The 28 layers of `llama-600m` have 440 million weights, as those of a language model of 0.6 billion.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoModelForSequenceClassification, DistilBertConfig, LlamaConfig, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|eot|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    rng = np.random.default_rng(1)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((text(200, rng) for _ in range(1000)), trainer)
    encoder = kind == "encoder"
    if encoder:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 1024 if encoder else 2048,
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_input_names=["input_ids", "attention_mask"], **names
    )
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 1, "initializer_range": 0.05}
    if encoder:
        config = DistilBertConfig(vocab_size=30522, max_position_embeddings=1024, **tokens)
    else:
        tokenizer.chat_template = TEMPLATE
        sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
        if kind == "llama-100m":
            sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
        if kind == "llama-600m":
            sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16}
        grouped = {"num_key_value_heads": 2 if kind == "decoder" else 4, "max_position_embeddings": 2048}
        config = LlamaConfig(vocab_size=32000, **sizes, **grouped, **tokens)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


# --- the variants ------------------------------------------------------------------------------------------


def stock(folder: str, dtype: torch.dtype, device: str):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    # from_pretrained(dtype=...) keeps the rotary frequencies in float32; model.to(bfloat16) would round them
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def rendered(tokenizer, prompt, response: str) -> str:
    turns = [*as_conversation(prompt), {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(turns, tokenize=False)


def tokenized(tokenizer, prompt, response: str, **options) -> dict:
    if tokenizer.chat_template:
        return tokenizer(rendered(tokenizer, prompt, response), add_special_tokens=False, **options)
    return tokenizer(prompt_text(prompt), response, **options)


def one_by_one(model, tokenizer, prompts, responses) -> np.ndarray:
    out = []
    with torch.inference_mode():
        for prompt, response in zip(prompts, responses, strict=True):
            batch = tokenized(tokenizer, prompt, response, return_tensors="pt")
            out.append(float(model(**batch.to(model.device)).logits[0, 0]))
    return np.array(out)


def pipeline_8(pipe, tokenizer, prompts, responses) -> np.ndarray:
    if tokenizer.chat_template:
        inputs = [rendered(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
        options = {"add_special_tokens": False}
    else:
        inputs = [{"text": prompt_text(p), "text_pair": r} for p, r in zip(prompts, responses, strict=True)]
        options = {}
    return np.array([a["score"] for a in pipe(inputs, batch_size=8, function_to_apply="none", **options)])


def sorted_batches(model, tokenizer, prompts, responses) -> np.ndarray:
    size = 16 if model.device.type == "cpu" else 64
    rows = [dict(tokenized(tokenizer, p, r)) for p, r in zip(prompts, responses, strict=True)]
    order, out = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"])), np.empty(len(rows))
    with torch.inference_mode():
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            padded = tokenizer.pad([rows[i] for i in batch], padding_side="right", return_tensors="pt")
            out[batch] = model(**padded.to(model.device)).logits[:, 0].double().cpu().numpy()
    return out


def peak_rate(dtype: torch.dtype, device: str, clock=time.perf_counter) -> float:
    """FLOP/s of the fastest matrix product that this machine does in this dtype."""
    rows, inner, outer = (1024, 768, 3072) if device == "cpu" else (16384, 4096, 4096)
    a, w = torch.randn(rows, inner, dtype=dtype, device=device), torch.randn(outer, inner, dtype=dtype, device=device)
    best = 0.0
    with torch.inference_mode():
        for _ in range(3):
            _synchronize(device)
            start = clock()
            for _ in range(4):
                torch.nn.functional.linear(a, w)
            _synchronize(device)
            best = max(best, 4 * 2 * rows * inner * outer / (clock() - start))
    return best


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def work(reward: RewardModel, prompts, responses) -> tuple[float, int, int]:
    """FLOP that ratekit runs for these texts, tokens run, and tokens if each text were run by itself."""
    texts = [t for t in reward.encode(prompts, responses)[0] if t]
    unique, _ = packing.distinct_items(texts)
    config = reward.model.config
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    named = reward.model.base_model.named_modules()
    linear = sum(m.in_features * m.out_features for _, m in named if hasattr(m, "in_features"))
    causal = reward.forward.readout.causal
    packs = packing.packs([t.ids for t in unique], reward.forward.budget, reward.forward.least_shared)
    tokens = sum(len(p.tokens) for p in packs)
    pairs = 0.0
    for s in (s for p in packs for s in p.segments):
        pairs += s.length * s.n_before + (s.length * (s.length + 1) / 2 if causal else s.length**2)
    keys_and_values = 2 * width * getattr(config, "num_key_value_heads", heads) * width // heads
    last = linear / layers - keys_and_values  # of the last layer all tokens take the keys and values alone
    flop = 2 * tokens * (linear - last) + 2 * len(unique) * last + 4 * width * pairs * (layers - 1)
    return flop, tokens, sum(len(t.ids) for t in texts)


@contextlib.contextmanager
def one_prefix_token_hidden():
    """The negative control: branches see the second token before them twice, and the first one not at all."""
    whole = packing.seen

    def seen(key, value, segment, n):
        k, v = whole(key, value, segment, n)
        if segment.context:
            k, v = k.clone(), v.clone()
            k[:, :, 0], v[:, :, 0] = k[:, :, 1], v[:, :, 1]
        return k, v

    packing.seen = seen
    try:
        yield
    finally:
        packing.seen = whole


# --- the table ---------------------------------------------------------------------------------------------


def case(folder: Path, kind: str, n_attributes: int, dtype: torch.dtype, args) -> dict:
    from transformers import pipeline

    name = str(dtype).removeprefix("torch.")
    path = save(folder / f"{kind}-{name}", kind, dtype)
    model, tokenizer = stock(path, dtype, args.device)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)
    reward = RewardModel(path, dtype=name, device=args.device)
    prompts, responses = data(max(2, round(args.prompts * 4 / n_attributes)), n_attributes)
    variants = {
        "one by one": lambda: one_by_one(model, tokenizer, prompts, responses),
        "pipeline 8": lambda: pipeline_8(pipe, tokenizer, prompts, responses),
        "sorted": lambda: sorted_batches(model, tokenizer, prompts, responses),
        "ratekit": lambda: reward(prompts, responses),
    }
    if args.device != "cpu":  # kernels are chosen and memory is taken at the first
        for variant in ("sorted", "ratekit"):
            variants[variant]()
    times: dict[str, list[float]] = {v: [] for v in variants}
    scores: dict[str, np.ndarray] = {}
    rates = []
    for _ in range(args.rounds):
        rates.append(peak_rate(dtype, args.device))
        for variant, run in variants.items():
            _synchronize(args.device)
            start = time.perf_counter()
            scores[variant] = run()
            _synchronize(args.device)
            times[variant].append(time.perf_counter() - start)
    wall = {v: statistics.median(t) for v, t in times.items()}
    flop, tokens, all_tokens = work(reward, prompts, responses)
    a, b, r = (scores[v] for v in ("one by one", "pipeline 8", "ratekit"))
    row = {
        "case": f"{kind}, {n_attributes} attribute{'s' * (n_attributes > 1)}, {name}, {reward.forward.path} path",
        "texts": len(prompts),
        "x one by one": wall["one by one"] / wall["ratekit"],
        "x pipeline 8": wall["pipeline 8"] / wall["ratekit"],
        "x sorted": wall["sorted"] / wall["ratekit"],
        "peak": flop / wall["ratekit"] / statistics.median(rates),
        "tokens run": tokens / all_tokens,
        "ratekit tokens/s": all_tokens / wall["ratekit"],
        "ratekit texts/s": len(prompts) / wall["ratekit"],
        "score SD": float(a.std()),
        "|ratekit - one by one|": float(np.abs(r - a).max()),
        "|pipeline - one by one|": float(np.abs(b - a).max()),
    }
    if reward.forward.varlen:
        reward.forward.varlen = False
        reward(prompts, responses)
        start = time.perf_counter()
        reward(prompts, responses)
        row["without one kernel for all segments, x"] = (time.perf_counter() - start) / wall["ratekit"]
    if kind == "decoder" and dtype == torch.float32:
        with one_prefix_token_hidden():
            row["control: a token hidden"] = float(np.abs(reward(prompts, responses) - a).max())
    exact_model, _ = stock(path, torch.float64, args.device)
    exact = one_by_one(exact_model, tokenizer, prompts[:48], responses[:48])
    for variant in ("one by one", "sorted", "ratekit"):
        row[f"{variant} vs fp64"] = float(np.abs(scores[variant][:48] - exact).max())
    return row


def table(args) -> None:
    cases = [
        ("decoder", 1, torch.float32), ("decoder", 4, torch.float32), ("encoder", 1, torch.float32),
        ("encoder", 4, torch.float32), ("decoder", 1, torch.bfloat16), ("decoder", 4, torch.bfloat16),
        ("encoder", 4, torch.bfloat16),
    ]  # fmt: skip
    where = "CPU, one thread"
    if args.device != "cpu":
        where = torch.cuda.get_device_name()
        cases = [(kind, k, torch.bfloat16) for kind in ("llama-600m", "encoder") for k in (1, 4)]
        cases += [("llama-600m", 4, torch.float32)]
    print(f"{where}; torch {torch.__version__}; medians of {args.rounds} interleaved rounds")
    with tempfile.TemporaryDirectory() as folder:
        for kind, k, dtype in cases[:3] if args.quick else cases:
            row = case(Path(folder), kind, k, dtype, args)
            print("\n" + row.pop("case"))
            for name, value in row.items():
                print(f"  {name:40s} {value:,.0f}" if value >= 100 else f"  {name:40s} {value:.3g}", flush=True)


def real(args) -> None:
    """Models of one's own on texts of one's own: CPU seconds of every rival, taken in turns.

    A language model gets a head of random weights. A prompt has its response and, per attribute, two responses of other
    rows in the place of rewrites: real texts that share nothing but the prompt. The table, as Markdown, comes last.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source in args.models:
            path = classifier(source, Path(folder) / Path(source).resolve().name)
            rows += [race(path, k, args) for k in (1, 4) if path]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row.get(column, "") for column in columns) + " |")


def classifier(source: str, folder: Path) -> str | None:
    """A folder that is a model of one output: the source itself, or a language model or an encoder with a new head."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if not (Path(source) / "config.json").is_file():
        print(f"{source} is no model's folder; left out")
        return None
    config = AutoConfig.from_pretrained(source)
    if "SequenceClassification" in str(config.architectures):
        if config.num_labels != 1:
            print(f"{source} has {config.num_labels} outputs, so it is no reward model; left out")
        return source if config.num_labels == 1 else None
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.normal_(
        next(p for n, p in model.named_parameters() if n.endswith(("score.weight", "classifier.weight")))
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def real_texts(data: str, n_prompts: int, k: int, longest: int) -> tuple[list, list[str]]:
    import ratekit as rk

    known = data in ("reviews",)
    ds = rk.load(data) if known else rk.load("hh-rlhf", data_files=data, n=20 * n_prompts * (1 + 2 * k))
    rng = np.random.default_rng(0)
    rows = [r for r in ds if 200 < len(prompt_text(r["prompt"])) + len(r["response"]) < longest]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    prompts, responses = [], []
    others = iter([r["response"] for r in rows[n_prompts:]])
    for row in rows[:n_prompts]:
        made = [row["response"]]
        for _ in range(k):
            made += [row["response"], next(others), next(others)]
        prompts += [row["prompt"]] * 3 * k
        responses += made[1:]
    return prompts, responses


def race(path: str, k: int, args) -> dict[str, str]:
    from transformers import pipeline

    model, tokenizer = stock(path, torch.float32, args.device)
    decoder = bool(tokenizer.chat_template)
    reward = RewardModel(path, "chat" if decoder else "pair", device=args.device)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device=model.device)
    n_prompts = max(2, round(4 * args.prompts / k))
    prompts, responses = real_texts(args.data, n_prompts, k, 2400 if decoder else 1200)
    variants = {
        "one by one": lambda: one_by_one(model, tokenizer, prompts, responses),
        "sorted": lambda: sorted_batches(model, tokenizer, prompts, responses),
        "pipeline 8": lambda: pipeline_8(pipe, tokenizer, prompts, responses),
    }
    if not decoder:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError:
            print("CrossEncoder is left out: sentence-transformers is not installed")
        else:
            cross = CrossEncoder(path, device=args.device, activation_fn=torch.nn.Identity())
            pairs = [(prompt_text(p), r) for p, r in zip(prompts, responses, strict=True)]
            variants["CrossEncoder"] = lambda: cross.predict(pairs, show_progress_bar=False).astype(float)
    variants["ratekit"] = lambda: reward(prompts, responses)
    times: dict[str, list[float]] = {v: [] for v in variants}
    scores, rates = {}, []
    for _ in range(args.rounds):
        rates.append(peak_rate(torch.float32, args.device, time.process_time))
        for variant, run in variants.items():
            start = time.process_time()
            scores[variant] = run()
            times[variant].append(time.process_time() - start)
    spent = {v: statistics.median(t) for v, t in times.items()}
    flop, tokens, all_tokens = work(reward, prompts, responses)
    print(
        f"\n{Path(path).name}, {k} attribute{'s' * (k > 1)}, {len(prompts)} texts, {reward.forward.path} path, "
        "CPU seconds"
    )
    for variant, t in spent.items():
        off = np.abs(scores[variant] - scores["one by one"]).max() / scores["one by one"].std()
        print(f"  {variant:14s} {t:8.2f}   x {t / spent['ratekit']:.2f}   off by {off:.1e} SD", flush=True)
    row = {"model": Path(path).name, "attributes": str(k), "texts": str(len(prompts)), "path": reward.forward.path,
           "CPU seconds": f"{spent['ratekit']:.1f}"}  # fmt: skip
    row |= {f"over {v}": f"{t / spent['ratekit']:.2f}" for v, t in spent.items() if v != "ratekit"}
    off = np.abs(scores["ratekit"] - scores["one by one"]).max() / scores["one by one"].std()
    row |= {"off by, SD": f"{off:.1e}", "tokens run": f"{tokens / all_tokens:.2f}",
            "share of peak": f"{flop / spent['ratekit'] / max(rates):.2f}"}  # fmt: skip
    for part, ratio in worth(path, "float32", (prompts, responses), args.rounds, reward.adapter.name).items():
        row[f"without {part}, x"] = f"{ratio:.2f}"
    print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def errors(args, n_draws: int = 5) -> None:
    """How far bfloat16 takes the scores from those of float64: one by one, and as ratekit runs them."""
    with tempfile.TemporaryDirectory() as folder:
        for kind, k in (("decoder", 1), ("decoder", 4), ("encoder", 4)):
            path = save(Path(folder) / kind, kind, torch.bfloat16)
            reward = RewardModel(path, dtype="bfloat16", device=args.device)
            (half, tokenizer), (exact, _) = (stock(path, t, args.device) for t in (torch.bfloat16, torch.float64))
            off: dict[str, list[np.ndarray]] = {"one by one": [], "ratekit": []}
            for seed in range(n_draws):
                texts = data(max(2, round(args.prompts * 4 / k)), k, seed=seed)
                truth = one_by_one(exact, tokenizer, *texts)
                off["one by one"].append(one_by_one(half, tokenizer, *texts) - truth)
                off["ratekit"].append(reward(*texts) - truth)
            for variant, parts in off.items():
                all_of = np.concatenate(parts)
                rms, most = np.sqrt((all_of**2).mean()), [np.abs(part).max() for part in parts]
                figures = f"RMS {rms:.4f}, max {max(most):.4f}, in each draw {' '.join(f'{m:.4f}' for m in most)}"
                print(f"{kind}, {k} attributes, {variant:10s} {len(all_of)} texts: {figures}", flush=True)


def parts(args) -> None:
    """What a part is worth: time without it over time with it, taken in turns."""
    with tempfile.TemporaryDirectory() as folder:
        for k, dtype in ((1, "float32"), (4, "float32"), (4, "bfloat16")):
            path = save(Path(folder) / f"{k}-{dtype}", "decoder", getattr(torch, dtype))
            texts = data(max(2, round(args.prompts * 4 / k)), k)
            for part, ratio in worth(path, dtype, texts, args.rounds).items():
                print(f"{k} attributes, {dtype}, {part}: {ratio:.3f}", flush=True)


def worth(path: str, dtype: str, texts, rounds: int, adapter: str | None = None) -> dict[str, float]:
    """Per part the median of CPU time without it over CPU time with it."""
    whole, without = RewardModel(path, adapter, dtype=dtype), {}
    with mock.patch.object(forward, "prune_last_layer", return_value=None):
        without["pruned last layer"] = RewardModel(path, adapter, dtype=dtype)
    without["shared beginnings"] = unshared = RewardModel(path, adapter, dtype=dtype)
    unshared.forward.least_shared = 0
    ratios: dict[str, list[float]] = {part: [] for part in without}
    for _ in range(rounds):
        with_all = timed(whole, texts)
        for part, reward in without.items():
            ratios[part].append(timed(reward, texts) / with_all)
    return {part: statistics.median(measured) for part, measured in ratios.items()}


def timed(reward: RewardModel, texts) -> float:
    start = time.process_time()
    reward(*texts)
    return time.process_time() - start


def growth(args) -> None:
    """Cost of one by one over cost of the tree, with the same kernels, against 3k / [s + (1 + 2k)(1 - s)]."""
    from matplotlib.figure import Figure

    shown = {}
    with tempfile.TemporaryDirectory() as folder:
        reward = RewardModel(save(Path(folder), "decoder", torch.float32), device=args.device)
        for k, share in [(1, 0.45), (2, 0.45), (4, 0.45), (8, 0.45), (4, 0.2), (4, 0.8)]:
            prompts, responses = data(max(1, round(args.prompts * 4 / k)), k, share)
            texts = [t for t in reward.encode(prompts, responses)[0] if t]
            groups = [texts[i : i + 3 * k] for i in range(0, len(texts), 3 * k)]
            shared = sum(3 * k * packing.common_prefix(g[0].ids, g[1].ids) for g in groups)
            s = shared / sum(len(t.ids) for t in texts)
            ratios = []
            for _ in range(args.rounds):
                reward.forward.least_shared = 0
                start = time.perf_counter()
                for one in texts:
                    reward.forward([one])
                alone = time.perf_counter() - start
                reward.forward.least_shared = packing.LEAST_SHARED
                start = time.perf_counter()
                reward.forward(texts)
                ratios.append(alone / (time.perf_counter() - start))
            formula = 3 * k / (s + (1 + 2 * k) * (1 - s))
            shown[k, share] = (s, formula, statistics.median(ratios))
            print(f"k={k} prompt share {s:.2f}: formula {formula:.2f}, measured {shown[k, share][2]:.2f}", flush=True)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    by_k = [(k, v) for (k, share), v in shown.items() if share == 0.45]
    by_share = sorted((v[0], v) for (k, _), v in shown.items() if k == 4)
    for axes, points, label in (
        (left, by_k, "attributes"),
        (right, by_share, "prompt's share of a text, 4 attributes"),
    ):
        axes.plot([x for x, _ in points], [v[1] for _, v in points], color="0.6", label="3k / [s + (1 + 2k)(1 - s)]")
        axes.plot([x for x, _ in points], [v[2] for _, v in points], "o", label="measured")
        axes.set_xlabel(label)
    left.set_ylabel("one by one / tree, same kernels")
    left.legend(frameon=False)
    figure.savefig(args.out, dpi=150)
    print(f"written: {args.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4, help="per case, at 4 attributes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="the first three cases")
    parser.add_argument("--growth", action="store_true", help="cost against attributes and prompt share")
    parser.add_argument("--errors", action="store_true", help="bfloat16 against float64 over five draws of texts")
    parser.add_argument("--parts", action="store_true", help="what single parts of the engine are worth")
    parser.add_argument("--models", nargs="+", metavar="FOLDER", help="real models, against every rival")
    parser.add_argument("--data", default="reviews", help="texts for --models: reviews, or a file of HH-RLHF")
    parser.add_argument("--out", default="benchmarks/scoring_growth.png")
    arguments = parser.parse_args()
    logging.getLogger("ratekit").setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    for name, wanted in (("growth", growth), ("errors", errors), ("parts", parts), ("models", real)):
        if getattr(arguments, name):
            wanted(arguments)
            break
    else:
        table(arguments)
