"""Checkpoints of fairseq and Microsoft's WavLM, read without fairseq and without trust.

Such a file is a pickle that names classes of fairseq, OmegaConf and argparse around its
tensors. torch's ``weights_only`` reader rebuilds tensors and plain values and refuses
everything else; the classes that such files are known to name are handed to it as inert
stand-ins, which keep what they were given and do nothing.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from espnet_star.errors import StarError, first_line

# Packages whose classes a checkpoint may name; every one becomes a stand-in.
_PACKAGES = ("fairseq", "omegaconf", "argparse", "typing", "hydra", "numpy", "examples", "enum")
# Types that OmegaConf names as those of its values, how typing's are pickled (List[str] is an
# item of List), and numpy's way to pickle bytes.
_TYPES = ("dict", "list", "tuple", "str", "int", "float", "bool", "object", "bytes", "type")
_NAMES = {f"builtins.{name}" for name in _TYPES}
_NAMES |= {"_operator.getitem", "operator.getitem", "_codecs.encode"}
# Files before 2020 hold four pickles in a row: magic number, version, system, content.
_LEGACY_PICKLES = 4
_CUT = "it may have been cut short: copy or download it again"


@dataclass(frozen=True)
class FairseqCheckpoint:
    """What an encoder needs of a checkpoint.

    Attributes:
        model: Options of the architecture by fairseq's names.
        task: Options of the task, e.g. ``normalize`` and ``sample_rate``.
        tensors: By fairseq's names.
    """

    model: dict[str, Any]
    task: dict[str, Any]
    tensors: dict[str, torch.Tensor]


class _Inert:
    """Stands in for any class: keeps arguments and state, runs nothing."""

    args: tuple[Any, ...]
    state: dict[str, Any]

    def __new__(cls, *args: Any) -> _Inert:
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __init__(self, *args: Any) -> None:
        pass  # done; args were kept

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _plain_dict(*_args: Any) -> dict[Any, Any]:
    """Stands in for ``collections.defaultdict``, which torch lets nobody fill."""
    return {}


_plain_dict.__module__, _plain_dict.__qualname__ = "collections", "defaultdict"


def read_fairseq(path: str | Path) -> FairseqCheckpoint:
    """Read a ``.pt`` of fairseq, of WavLM's authors, or converted by s3prl.

    Args:
        path: The file.

    Raises:
        StarError: If it is missing, cut short, holds what no such checkpoint does, or says
            nothing of an architecture.
    """
    path = Path(path)
    content = load_plain(path)
    if not isinstance(content, dict):
        raise StarError(f"{path} holds {type(content).__name__}, not a checkpoint of fairseq")
    if "model_weight" in content:  # s3prl's own copies
        tensors = content["model_weight"]
        model, task = _plain(content.get("model_cfg")), _plain(content.get("task_cfg"))
    else:
        tensors = content.get("model")
        model, task = _options(_plain(content.get("cfg")), _plain(content.get("args")))
    if not isinstance(tensors, Mapping) or not _are_tensors(tensors):
        raise StarError(
            f"{path} has no tensors under 'model', found {_keys(content)}; give a checkpoint of "
            "fairseq (HuBERT, wav2vec 2.0) or of WavLM's authors"
        )
    if not isinstance(model, dict) or not model:
        raise StarError(
            f"{path} says nothing of its architecture: no options under 'cfg' or 'args', found "
            f"{_keys(content)}; give the checkpoint as its authors published it"
        )
    return FairseqCheckpoint(model, task if isinstance(task, dict) else {}, dict(tensors))


def load_plain(path: Path) -> Any:
    """Content of a checkpoint, any class that such files name replaced by an inert stand-in.

    Raises:
        StarError: If it is missing, cut short, or names another class.
    """
    if not path.is_file():
        raise StarError(f"{path}: no such file; check the path")
    try:
        standins: list[Any] = [_plain_dict]
        standins += [
            type(name, (_Inert,), {"__module__": module, "__qualname__": name})
            for module, name in sorted(_standins(path))
        ]
        with torch.serialization.safe_globals(standins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except StarError:
        raise
    except Exception as error:  # torch's own reasons depend on where the file ends
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise StarError(_refusal(path, refused[1])) from error
        reason = first_line(error)
        raise StarError(f"{path} is not a complete checkpoint ({reason}); {_CUT}") from error


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path} names {name}, which no checkpoint of fairseq needs and loading could run; it is "
        "refused. If you trust the file, save its 'cfg' and 'model' alone with torch.save"
    )


def _standins(path: Path) -> set[tuple[str, str]]:
    """Classes beyond tensors that the file names and that may be stood in for."""
    found = set()
    for module, name in _globals(path):
        full = f"{module}.{name}"
        if full in _NAMES or module.split(".")[0] in _PACKAGES:
            found.add((module, name))
        elif module.split(".")[0] not in {"torch", "collections"}:
            raise StarError(_refusal(path, full))
    return found


def _globals(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that the pickles of a file import."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(inner) != 1:
                raise StarError(f"{path} is a zip, but not one of torch.save")
            with archive.open(inner[0]) as file:
                yield from _imports(file.read())
        return
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            yield from _imports(file)


def _imports(pickled: bytes | BinaryIO) -> Iterator[tuple[str, str]]:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield _split(argument)


def _split(argument: Any) -> tuple[str, str]:
    module, _, name = str(argument).partition(" ")
    # torch writes Python 2's names and looks them up under Python 3's.
    if (module, name) in NAME_MAPPING:
        return NAME_MAPPING[module, name]
    return IMPORT_MAPPING.get(module, module), name


def _options(cfg: Any, args: Any) -> tuple[Any, Any]:
    """Options of model and task: ``cfg`` since fairseq's hydra, before that ``args``."""
    if not isinstance(cfg, dict) or not cfg:
        return args, args
    if isinstance(cfg.get("model"), dict):
        return cfg["model"], cfg.get("task")
    return cfg, cfg  # WavLM's: one flat mapping


def _plain(value: Any) -> Any:
    """Plain mappings, lists and values for what stand-ins hold."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, _Inert):
        return value
    for key in ("_content", "_val"):  # OmegaConf's containers and values
        if key in value.state:
            return _plain(value.state[key])
    if value.args and not value.state:  # an enumeration's member
        return _plain(value.args[0])
    return _plain(value.state)


def _are_tensors(tensors: Mapping[Any, Any]) -> bool:
    return bool(tensors) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items()
    )


def _keys(content: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(str, content))[:8]) or "nothing"
