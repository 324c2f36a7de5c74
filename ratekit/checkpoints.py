"""Model folders, read without trusting them: tensors one at a time, config and tokenizer as `transformers` reads them.

    folder = Folder("rm-a")
    folder["score.weight"], folder.describe("score.weight")     a tensor; its shape and dtype, without reading it
    folder.config, folder.beside()                              config.json; the small files that make it a model

A folder may come from a stranger: only files of known names are read, no link and no `..` leads out of it, pickles and
code of the model's own are left alone, and a file that is damaged, endless or of the wrong shape is named on one line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, WorkError, shorten
from ratekit.files import MAX_SMALL, no_bars, read_object

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ratekit")

State = Mapping[str, "Tensor"]
Model = State | str | Path
Shape = tuple[int, ...]

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
          "F8_E5M2": "float8_e5m2"}  # fmt: skip
FLOATS = ("float64", "float32", "float16", "bfloat16")

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "vocab.bpe", "bpe.codes", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "sentencepiece.model", "spm.model", "source.spm", "target.spm", "tekken.json", "entity_vocab.json", "emoji.json",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
BESIDE = (CONFIG, "generation_config.json", *TOKENIZER)  # all that is ever copied beside weights
QUANTISED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_MOST = 100_000  # layers, labels, experts: lists of that length are made when a config is read


def file_in(folder: Path, name: str) -> Path | None:
    """The file of that name in a model folder; None where there is none.

    Parameters
    ----------
    folder : Path
        A model folder, a snapshot in the hub's cache too (whose files are links to its own blobs).
    name : str
        A file name, as an index may list it.

    Raises
    ------
    InputError
        For a name that leads elsewhere (`..`, a slash), a link out of the folder, and what is no regular file.
    """
    path = folder / name
    if not name or name in (".", "..") or "\0" in name or Path(name).name != name or "\\" in name:
        raise InputError(f"{folder} names the file {shorten(name)!r}, which is not in that folder")
    try:
        if not path.is_symlink() and not path.exists():
            return None
        target, home = path.resolve(), folder.resolve()
        homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
        if not any(target.is_relative_to(h) for h in homes):
            raise InputError(f"{path} is a link out of its folder, which is not followed; put the file itself there")
        if not stat.S_ISREG(target.stat().st_mode):
            raise InputError(f"{path} is no ordinary file")
    except (OSError, RuntimeError) as e:
        raise InputError(f"{path} is not readable ({shorten(e, 80)})") from None
    return target


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The object in a JSON file of a model folder; None where there is none. InputError where it is no object."""
    return None if file_in(folder, name) is None else read_object(folder / name)


def tensors_in(path: Path) -> dict[str, tuple[Shape, str]]:
    """Shape and dtype of each tensor in a file of weights, of which only the header is read.

    Raises
    ------
    InputError
        It cannot be read as safetensors, or holds more tensors than a model has.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            names = list(f.keys())
            if len(names) > _MOST:
                raise InputError(
                    f"{path} holds {len(names):,} tensors, more than the {_MOST:,} that are taken for a model"
                )
            parts = {name: f.get_slice(name) for name in names}
            kinds = {name: part.get_dtype() for name, part in parts.items()}
            return {n: (tuple(part.get_shape()), DTYPES.get(kinds[n], kinds[n].lower())) for n, part in parts.items()}
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path} is not readable as safetensors ({shorten(e, 100)})") from None


class Folder(Mapping[str, "Tensor"]):
    """The tensors of a model folder as a state dict that is read one tensor at a time.

    The file is opened for each tensor and closed again, so that its pages are given back when the tensor is.

    Parameters
    ----------
    folder : str or Path
        With `model.safetensors`, or shards and their index.
    weights : str, optional
        The one file to read instead (an adapter's).

    Raises
    ------
    InputError
        For a folder without safetensors, an index that does not agree with its shards, quantised weights, and pickled
        ones, which can run any code.
    """

    def __init__(self, folder: str | Path, weights: str | None = None) -> None:
        self.path = Path(folder).expanduser()
        if not self.path.is_dir():
            what = "is a file; give the folder it is in" if self.path.is_file() else "is not there"
            if not self.path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)):
                what += f"; if it is a hub id, fetch it first: hf download {folder} --local-dir ..."
            raise InputError(f"the model folder {self.path} {what}")
        self._where: dict[str, Path] = {}
        self._described: dict[str, tuple[Shape, str]] = {}
        listed = listed_in(self.path, read_json(self.path, INDEX)) if weights is None else {}
        files = {shard: file_in(self.path, shard) for shard in ([weights] if weights else self._shards(listed))}
        for shard, file in files.items():
            if file is None:
                raise InputError(
                    f"{self.path} lacks {shard}"
                    + (f", which {INDEX} lists" if listed else f"; it{self._pickled()}" if self._pickled() else "")
                )
        held = {shard: tensors_in(self.path / shard) for shard in files}
        for shard, file in files.items():
            assert file is not None
            self._described |= held[shard]
            self._where |= dict.fromkeys(held[shard], file)
        check_index(self.path, listed, held)
        self._check_plain()

    def _shards(self, listed: Mapping[str, str]) -> list[str]:
        if listed:
            return sorted(set(listed.values()))
        if file_in(self.path, WHOLE):
            return [WHOLE]
        found = sorted(p.name for p in self.path.glob("*.safetensors"))
        if not found:
            raise InputError(
                f"the model folder {self.path} {self._pickled().lstrip(':; ') or 'holds no *.safetensors'}"
            )
        return found

    def _pickled(self) -> str:
        pickled = sorted(p.name for pattern in PICKLES for p in self.path.glob(pattern))
        return (
            f" holds its weights only pickled ({pickled[0]}), which can run any code when they are read; convert "
            "them to safetensors"
            if pickled
            else ""
        )

    def _check_plain(self) -> None:
        config = read_json(self.path, CONFIG) or {}
        for told in (config, config.get("text_config")):
            for key in ("quantization_config", "compression_config"):
                if isinstance(told, dict) and told.get(key):
                    method = told[key].get("quant_method", "") if isinstance(told[key], dict) else ""
                    raise quantised(self.path, f"{key} {shorten(method)} in {CONFIG}")
        for name in QUANTISED:
            if (self.path / name).exists():
                raise quantised(self.path, name)
        for name, (_, dtype) in self._described.items():
            check_plain(self.path, name, dtype)

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What config.json says; None where there is none."""
        return read_json(self.path, CONFIG)

    def beside(self) -> dict[str, Path]:
        """The small files that make weights a model, but config.json: name -> file. No code, and no link out."""
        found = {name: file_in(self.path, name) for name in BESIDE if name != CONFIG}
        return {name: path for name, path in found.items() if path is not None}

    def describe(self, name: str) -> tuple[Shape, str]:
        """Shape and dtype of a tensor, without reading it."""
        return self._described[name]

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._where[name], framework="pt") as f:
                return f.get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise WorkError(f"{self._where[name]}: {name} is not readable ({shorten(e, 100)})") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def listed_in(folder: Path, index: Mapping[str, Any] | None) -> dict[str, str]:
    """What the index of a folder says: the shard of each tensor; empty where there is none."""
    if index is None:
        return {}
    found = index.get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise InputError(f"{folder / INDEX} has no weight_map from tensors to files")
    if (folder / WHOLE).exists() and WHOLE not in found.values():
        raise InputError(f"{folder} holds {WHOLE} and an index of other files: which is meant? Remove one")
    return found


def check_index(folder: Path, listed: Mapping[str, str], held: Mapping[str, Iterable[str]]) -> None:
    """Raise InputError where shards hold a tensor twice, or other ones than the index puts into them."""
    where: dict[str, str] = {}
    for shard, names in held.items():
        for name in names:
            if name in where:
                raise InputError(f"{folder} holds {name} twice, in {where[name]} and in {shard}")
            if listed and listed.get(name) != shard:
                told = f"puts into {listed[name]}" if name in listed else "does not list"
                raise InputError(f"{folder}: {shard} holds {name}, which {INDEX} {told}")
            where[name] = shard
    absent = next((name for name in listed if name not in where), None)
    if absent is not None:
        raise InputError(f"{folder}: {INDEX} puts {absent} into {listed[absent]}, which does not hold it")


def check_folder(name: str | Path) -> None:
    """Raise InputError for a model folder that cannot be read in bounded time and memory, or reads what is not its own.

    A name that is no folder here is a hub's, and nothing is said of it.

    What is no ordinary file, small files that are large or links out of the folder (weights may be: nothing of another
    file's text can come out of them), a config that asks for lists without end, weights whose headers are none, and
    shards that hold other tensors than their index says.
    """
    folder, held = Path(name).expanduser(), dict[str, Iterable[str]]()
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            if not path.is_file():
                raise InputError(f"{path} is no ordinary file")
            held[path.name] = tensors_in(path)
        elif path.name in (*BESIDE, INDEX) and file_in(folder, path.name) and path.stat().st_size > MAX_SMALL:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes, more than the {MAX_SMALL:,} that are read of it"
            )
    listed = listed_in(folder, read_json(folder, INDEX))
    check_index(folder, listed, {shard: held.get(shard, []) for shard in listed.values()})
    check_config(read_json(folder, CONFIG) or {}, folder)


def quantised(where: object, what: str) -> InputError:
    """The refusal of quantised weights."""
    return InputError(
        f"{where} is quantised ({what}): its numbers are codes with scales of their own, which no sum of weights "
        "respects; give the model in bfloat16 or float32 (load it, dequantize() it, and save it)"
    )


def check_plain(where: object, name: str, dtype: str) -> None:
    """Raise InputError for a weight in 8 bits or fewer, whatever its format."""
    low = dtype.startswith("f") and dtype not in FLOATS
    if low or (not dtype.startswith(("f", "bf", "c")) and re.search(r"(^|[._])(q?weight)(_packed)?$", name)):
        raise quantised(where, f"{name} is {dtype}")


def open_state(model: Model) -> State:
    """A model as a mapping of tensors: a state dict as it is, a folder read as it is asked.

    Raises
    ------
    InputError
        For what is neither, and for quantised weights.
    """
    if isinstance(model, str | Path):
        return Folder(model)
    import torch

    if not isinstance(model, Mapping):
        raise InputError(f"a model is a state dict or a model folder; got {type(model).__name__}")
    if isinstance(model, Folder):
        return model
    if not model:
        raise InputError("a state dict without a tensor is no model")
    for name, tensor in model.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"a state dict holds tensors; {name!r} is a {type(tensor).__name__}")
        check_plain("a state dict", name, str(tensor.dtype).removeprefix("torch."))
    return model


def shape_and_dtype(state: State, name: str) -> tuple[Shape, str]:
    """Shape and dtype of a tensor; nothing is read from a folder."""
    if isinstance(state, Folder):
        return state.describe(name)
    tensor = state[name]
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


# --- as transformers reads it ----------------------------------------------------------------------------------


def resolved(config: Mapping[str, Any], where: object) -> Any:
    """A config as `transformers` completes it with its defaults; None for a kind that it does not know.

    Raises
    ------
    InputError
        Where it cannot be read: a value of another type, a number of layers that no model has.
    """
    from transformers import CONFIG_MAPPING

    check_config(config, where)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InputError(f"{where} says no model_type (a word); got {shorten(kind)}")
    if kind not in CONFIG_MAPPING:
        return None
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(config))
    except Exception as e:
        raise InputError(f"{where} is no {kind} config ({shorten(e, 160)})") from None


def check_config(config: Mapping[str, Any], where: object) -> None:
    """Raise InputError for a config that asks for more layers, labels or experts than a model has."""
    for key, value in _numbers(config):
        if re.search("layer|label|expert|block", key) and value > _MOST:
            raise InputError(f"{where}: {key} is {value:,}, more than the {_MOST:,} that are taken for a model")
    labels, kinds = config.get("id2label"), config.get("architectures") or []
    if isinstance(labels, Mapping) and len(labels) > _MOST:
        raise InputError(f"{where}: id2label names {len(labels):,} labels, more than the {_MOST:,} of a model")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise InputError(f"{where}: architectures is {shorten(kinds)}; a list of names was expected")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from _numbers(value)


def tokenizer_of(folder: Path, files: Iterable[str]) -> Any:
    """The tokenizer in a folder, as `transformers` reads it; None where none of its `files` is one's.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    if not {*files} & {*TOKENIZER} - {"chat_template.jinja", "chat_template.json"}:
        return None
    from transformers import AutoTokenizer

    for name in BESIDE:
        file_in(folder, name)  # transformers would follow a link
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except BaseException as e:  # its parts in Rust panic with a kind of their own
        if isinstance(e, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise InputError(f"the tokenizer in {folder} cannot be read ({shorten(e, 160)})") from None


TEMPLATE_SECONDS, TEMPLATE_BYTES, TEMPLATE_TEXT = 5, 1 << 30, 1 << 20
_PROBE = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because it is."}] * 2


def check_template(tokenizer: Any, where: object) -> None:
    """Raise InputError where the chat template of a tokenizer does not end, or makes very much of a short conversation.

    It is tried in a process of its own, which has 5 s of processor time, 1 GiB of memory more than there is in use, and
    1 MiB to say (nothing is tried on a system without `fork`). A template that refuses the conversation is none of
    that.
    """
    if not tokenizer.chat_template or not hasattr(os, "fork"):
        return
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or the tokenizers library warns of the fork
    child = os.fork()
    if child == 0:
        os._exit(_tried(tokenizer))
    if before is None:
        del os.environ["TOKENIZERS_PARALLELISM"]
    else:
        os.environ["TOKENIZERS_PARALLELISM"] = before
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        long = f"makes more than {TEMPLATE_TEXT >> 20} MiB of {len(_PROBE)} short turns"
        endless = f"does not end within {TEMPLATE_SECONDS} s of processor time"
        raise InputError(f"the chat template of {where} {long if status == 1 else endless}")


def _tried(tokenizer: Any) -> int:
    """In the process of its own: 1 where the text is too long."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (TEMPLATE_SECONDS, TEMPLATE_SECONDS))
    with contextlib.suppress(OSError, ValueError):  # no /proc, or less is allowed already
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + TEMPLATE_BYTES, used + TEMPLATE_BYTES))
    try:
        return int(len(tokenizer.apply_chat_template(_PROBE, tokenize=False)) > TEMPLATE_TEXT)
    except MemoryError:
        return 1
    except BaseException:
        return 0


def classifier_of(config: Any) -> Any:
    """The class of sequence classifiers that `transformers` has for a (resolved) config; None where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

    return CLASSIFIERS.get(type(config), None)


def class_named(config: Mapping[str, Any]) -> Any:
    """The class of `transformers` that a config names as its architecture; None where there is no such model."""
    import transformers

    kinds = config.get("architectures")
    found = getattr(transformers, str(kinds[0]), None) if isinstance(kinds, list) and kinds else None
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def placed(config: Any, kind: Any, described: Mapping[str, tuple[Shape, str]]) -> tuple[Any, dict[str, list[Any]]]:
    """A model on the meta device, and which of these tensors have no place in it, or not that size, and what it lacks.

    Nothing is read and no memory is taken: names, shapes and dtypes decide.

    Returns
    -------
    model : transformers.PreTrainedModel
    report : dict
        `missing_keys`, `unexpected_keys` (names), `mismatched_keys` (name, shape given, shape wanted), as
        `from_pretrained` reports them.
    """
    import torch
    from transformers.utils import logging as messages

    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype, torch.float32), device="meta")
        for name, (shape, dtype) in described.items()
    }
    level = messages.get_verbosity()
    messages.set_verbosity_error()
    try:
        with no_bars():
            model, report = kind.from_pretrained(
                None, config=config, state_dict=tensors, output_loading_info=True, device_map="meta",
                ignore_mismatched_sizes=True,
            )  # fmt: skip
    finally:
        messages.set_verbosity(level)
    return model, {key: sorted(report[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def check_loads(
    config: Mapping[str, Any], described: Mapping[str, tuple[Shape, str]], where: object, *, quiet: bool = False
) -> None:
    """Raise InputError unless these tensors make the model that the config says, all of it and in its sizes.

    What has no place in it is said. A model whose code `transformers` does not have is left alone, which is said too,
    unless `quiet`.
    """
    made, kind = resolved(config, where), class_named(config)
    if made is None or kind is None:
        if not quiet:
            log.warning("%s: its architecture is none of transformers', so what its tensors make is not checked", where)
        return
    name_of_kind = kind.__name__
    try:
        _, report = placed(made, kind, described)
    except Exception as e:
        raise InputError(f"{where} cannot be loaded as a {name_of_kind} ({shorten(e, 160)})") from None
    for name, given, wanted in report["mismatched_keys"]:
        raise InputError(
            f"{where} cannot be loaded as its config says: {name} is {tuple(given)}, and a {name_of_kind} of this "
            f"config has {tuple(wanted)}"
        )
    if report["missing_keys"]:
        raise InputError(f"{where} cannot be loaded as a {name_of_kind}: it lacks {_some(report['missing_keys'])}")
    if report["unexpected_keys"] and not quiet:
        log.warning("%s: a %s has no place for %s", where, name_of_kind, _some(report["unexpected_keys"]))


def _some(names: list[str]) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
