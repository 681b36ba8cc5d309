"""What ESPnet, torch and the readers raise for a user's mistake, as one line."""

from __future__ import annotations

import argparse
import errno
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import soundfile

from espnet_star.errors import StarError, file_error
from espnet_star.tasks.preflight.recordings import reason
from espnet_star.training.mismatch import other_model

WORKER = "DataLoader worker"
UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"(\w+)\.__init__\(\) missing \d+ required .*argument.*?'(\w+)'")
WRONG_KIND = re.compile(r'argument "(\w+)" \((.+)\) (.*is not.*)')
# How torch reports that a file could not be written to its end.
CUT_SHORT = re.compile(r"unexpected pos|PytorchStreamWriter|inline_container.*write", re.S)


def explain(error: BaseException, args: argparse.Namespace) -> StarError | None:
    """The one line for an error, None where it is not a user's.

    Args:
        error: What was raised.
        args: Options of the training or decoding, to find what was meant.
    """
    text = str(error) if not isinstance(error, soundfile.SoundFileError) else _sound_text(error)
    if WORKER in text:
        return _from_worker(text, args)
    if isinstance(error, StarError):
        return error
    if isinstance(error, soundfile.SoundFileError):
        return _unreadable(text, args)
    if isinstance(error, RuntimeError) and CUT_SHORT.search(text):
        return _not_written(args)
    if isinstance(error, RuntimeError) and getattr(args, "init_param", None):
        return other_model(f"--init_param {' '.join(map(str, args.init_param))}", error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _not_written(args)
    if isinstance(error, OSError):
        return file_error(error)
    if isinstance(error, TypeError) or type(error).__name__ == "TypeCheckError":
        return _argument(text, args)
    return None


def _sound_text(error: Exception) -> str:
    """Its text: soundfile's fails where torch made the error anew from text alone."""
    try:
        return str(error)
    except Exception:
        return str(error.args[0])


def _from_worker(text: str, args: argparse.Namespace) -> StarError | None:
    """A data loading process hands over its traceback; the last line is the error."""
    kind, _, message = text.strip().splitlines()[-1].partition(": ")
    name = kind.rsplit(".", 1)[-1]
    if kind.startswith("espnet_star.") and name in ("StarError", "DataError"):
        return StarError(message)
    if name == "LibsndfileError":
        return _unreadable(message, args)
    return None


def _unreadable(text: str, args: argparse.Namespace) -> StarError:
    """Which utterance of which list a file that could not be opened belongs to."""
    for path, _, kind in _triples(args):
        if "sound" not in kind or not Path(path).is_file():
            continue
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                key, _, file = line.rstrip().partition(" ")
                if any(repr(part) in text for part in (file.strip(), *file.split())):
                    return StarError(
                        f"{path}: {key} ({file.strip()}) cannot be read as audio "
                        f"({reason(ValueError(text))}); leave it out, or convert it with "
                        "star_data prepare"
                    )
    return StarError(f"a recording cannot be read as audio ({text})")


def _triples(args: argparse.Namespace) -> Iterable[Any]:
    for prefix in ("", "train_", "valid_"):
        yield from getattr(args, f"{prefix}data_path_and_name_and_type", None) or ()


def _not_written(args: argparse.Namespace) -> StarError:
    place = Path(args.output_dir)
    free = shutil.disk_usage(place).free / 1e9
    return StarError(
        f"{place}: a file could not be written to its end; {free:.2f} GB are free there: "
        "make room, or give a quota more, and run the same command again to go on from the last "
        "whole one"
    )


def _argument(text: str, args: argparse.Namespace) -> StarError | None:
    """An argument of a class that the configuration sets, or leaves out."""
    if (found := UNEXPECTED.search(text)) is not None:
        for option, _ in _values_of(args, found[2]):
            return StarError(
                f"unknown key {found[2]!r} of {option} ({found[1]}); --print_config lists the keys"
            )
    elif (found := MISSING.search(text)) is not None:
        return StarError(f"{found[1]} needs {found[2]}, which its configuration does not give")
    elif (found := WRONG_KIND.search(text)) is not None:
        for option, value in _values_of(args, found[1]):
            # Arguments of ESPnet's own may be called as an option is.
            if type(value).__name__ == found[2]:
                return StarError(f"{option}: {found[1]} is {value!r}; it {found[3]}")
    return None


def _values_of(args: argparse.Namespace, key: str) -> Iterator[tuple[str, Any]]:
    """Options that set a key, or hold it, with its value."""
    for name, value in vars(args).items():
        if name == key:
            yield f"--{name}", value
        elif name.endswith("_conf"):
            for found in _find(value, key):
                yield name, found


def _find(conf: Any, key: str) -> Iterator[Any]:
    """Values of a key, at any depth."""
    if isinstance(conf, Mapping):
        if key in conf:
            yield conf[key]
        conf = list(conf.values())
    if isinstance(conf, list):
        for part in conf:
            yield from _find(part, key)
