"""Options as the kinds they are meant to be: YAML and argparse let others pass."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from espnet2.tasks.abs_task import optim_classes, scheduler_classes

from espnet_star.errors import StarError, unknown_name
from espnet_star.files.yaml_files import as_numbers
from espnet_star.tasks.optimizers import OPTIMIZERS

# Options that must be at least so much, where they are given.
SMALLEST = {
    "accum_grad": 1,
    "batch_size": 1,
    "valid_batch_size": 1,
    "batch_bins": 1,
    "valid_batch_bins": 1,
    "max_epoch": 1,
    "num_iters_per_epoch": 1,
    "log_interval": 1,
    "num_workers": 0,
    "ngpu": 0,
    "patience": 0,
}
# Options with several values, of which YAML may give one as it is.
LISTS = ("init_param", "train_shape_file", "valid_shape_file", "freeze_param")
# An unknown word is refused by ESPnet too, with a traceback where it comes from YAML.
CHOICES = {"optim", "optim2", "scheduler", "scheduler2", "batch_type", "valid_batch_type"}
CHOICES |= {"iterator_type", "valid_iterator_type", "init", "token_type"}
KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int_or_none": (int,),
    "float": (int, float),
    "float_or_none": (int, float),
    "str2bool": (bool,),
}
MEANING = {int: "a whole number", float: "a number", bool: "true or false"}


def coerce_values(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Bring every option into the kind that it is meant to have.

    Args:
        args: Options, changed in place.
        parser: Tells the kinds.

    Raises:
        StarError: Naming the option, if that is not possible or it is out of range.
    """
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        kind = getattr(action.type, "__name__", "")
        if value is None or action.dest in ("help", "config"):
            continue
        if kind in KINDS and not isinstance(value, list):
            setattr(args, action.dest, _of_kind(action.dest, value, KINDS[kind]))
        elif action.dest.endswith("_conf") or action.dest == "losses":
            setattr(args, action.dest, as_numbers(value))
        if action.dest.endswith("_conf") and not isinstance(value, Mapping):
            raise StarError(f"--{action.dest} must be a mapping such as key=value, got {value!r}")
    for name in LISTS:
        if isinstance(getattr(args, name, None), str):
            setattr(args, name, [getattr(args, name)])
    for name, smallest in SMALLEST.items():
        if not _counts(args, name):
            continue
        value = getattr(args, name, None)
        if isinstance(value, int) and value < smallest:
            raise StarError(f"--{name} must be at least {smallest}, got {value}")


def _counts(args: argparse.Namespace, name: str) -> bool:
    """Whether batches are made by this option at all."""
    kind = getattr(args, "batch_type", None)
    if name.endswith("batch_bins"):
        return kind in ("length", "numel")
    return not name.endswith("batch_size") or kind in ("sorted", "unsorted", "folded")


def _of_kind(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(value, str):
        value = as_numbers(value)
    whole = isinstance(value, float) and value.is_integer()
    if whole and kinds == (int,):
        return int(value)
    if kinds == (bool,) and isinstance(value, int) and value in (0, 1):
        return bool(value)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        raise StarError(f"--{name} must be {MEANING[kinds[-1]]}, got {value!r}")
    return value


def check_choices(
    args: argparse.Namespace, parser: argparse.ArgumentParser, classes: Iterable[str]
) -> None:
    """Refuse misspelled names, which argparse checks on the command line only, not in YAML.

    Args:
        args: Options.
        parser: Tells the choices.
        classes: Names of the options that choose a class.

    Raises:
        StarError: With the choices and the closest one.
    """
    asked = {*CHOICES, *classes}
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest not in asked or not action.choices or not isinstance(value, str):
            continue
        if value not in action.choices:
            known = [name for name in action.choices if name is not None]
            raise unknown_name(action.dest, value, known)


def check_optimizers(args: argparse.Namespace, count: int) -> None:
    """Hold the options of optimizers and schedules against what they take.

    Args:
        args: Options.
        count: Optimizers of the task.

    Raises:
        StarError: On an unknown key, or text where a number belongs.
    """
    for number in range(1, count + 1):
        suffix = "" if number == 1 else str(number)
        known = (("optim", {**optim_classes, **OPTIMIZERS}), ("scheduler", scheduler_classes))
        for option, classes in known:
            name = getattr(args, option + suffix, None)
            if name is not None and name in classes:
                conf = f"{option}{suffix}_conf"
                if getattr(args, conf) is None:  # the key alone, in YAML
                    setattr(args, conf, {})
                _check_keys(conf, name, getattr(args, conf), classes[name])


def _check_keys(conf: str, name: str, values: Mapping[str, Any], maker: Callable) -> None:
    taken = inspect.signature(maker).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    known = [key for key in taken if key not in ("params", "optimizer")]
    for key, value in values.items():
        if key not in known:
            raise unknown_name(f"key of {conf} ({name})", str(key), known)
        default = taken[key].default
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if number and isinstance(value, str):
            raise StarError(f"{conf} ({name}): {key} must be a number, got {value!r}")
    for key in known:
        if taken[key].default is inspect.Parameter.empty and key not in values:
            raise StarError(f"{conf} ({name}): {key} is not given; add --{conf} {key}=...")
