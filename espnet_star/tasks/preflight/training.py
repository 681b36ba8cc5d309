"""What a training is asked before it starts: options, folder, lists and recordings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import humanfriendly
import torch

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_table
from espnet_star.data.lengths import samples_of
from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE
from espnet_star.tasks.preflight.lists import DataList, check_keys, check_order, read_lists
from espnet_star.tasks.preflight.recordings import Expected, check_recordings
from espnet_star.tasks.preflight.symbols import check_tokens
from espnet_star.tasks.preflight.values import check_choices, check_optimizers, coerce_values
from espnet_star.training.trainer import check_resumable

MODES = ("train", "valid")
LENGTHS = ("speech", "num_samples")


def check_training(task: Any, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse in one line what ESPnet would fail on later, or train on in silence.

    Cheap: lists are read once, and of the audio a handful of headers. Options are brought
    into the kinds that they are meant to have.

    Args:
        task: Subclass of ESPnet's ``AbsTask`` with `Guarded` mixed in.
        args: Its options; numbers that YAML reads as text become numbers.
        parser: The task's.

    Raises:
        StarError: Naming the option, file or utterance.
    """
    coerce_values(args, parser)
    check_choices(args, parser, [choice.name for choice in task.class_choices_list])
    for choice in task.class_choices_list:
        choice.get_class(getattr(args, choice.name))  # names from outside are no list to choose of
    check_optimizers(args, task.num_optimizers)
    missing = [f"--{name}" for name in args.required if getattr(args, name) is None]
    if missing:
        raise StarError(f"the following arguments are required: {', '.join(missing)}")
    check_gpus(args.ngpu)
    if args.dry_run:
        return
    check_writable(args.output_dir, "--output_dir")
    if args.resume and not args.collect_stats:
        check_resumable(Path(args.output_dir))
    for entry in args.init_param:
        path = str(entry).split(":")[0]
        if not Path(path).is_file():
            raise StarError(f"--init_param {path}: no such file; expected a model to start from")
    tokens = check_tokens(args)
    if args.multi_task_dataset:
        return
    expected = expected_rate(args)
    for mode in MODES:
        for lists in _check_mode(task, args, mode, expected):
            task.check_labels(args, mode, lists, tokens)


def check_gpus(ngpu: int) -> None:
    """Refuse GPUs that are not there.

    Raises:
        StarError: Saying what to give instead.
    """
    if ngpu < 1:
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if ngpu > found:
        there = f"only {found}" if found else "no GPU"
        remedy = f"give --ngpu {found}" + ("" if found else " to run on the CPU")
        raise StarError(f"--ngpu {ngpu}: torch finds {there} here; {remedy}")


def expected_rate(args: argparse.Namespace) -> Expected | None:
    """Sampling rate that a configuration is made for; None where it does not say."""
    values = vars(args)
    if "teacher" in values:
        return Expected(SAMPLE_RATE, "a student", strict=True, mono=True)
    for name, value in values.items():
        if value == "star" and name.endswith(("frontend", "encoder")):
            waveform = name.endswith("encoder")
            return Expected(SAMPLE_RATE, f"{name} star", strict=True, mono=waveform)
    if values.get("frontend") is None or values.get("input_size") is not None:
        return None
    fs = (values.get("frontend_conf") or {}).get("fs", SAMPLE_RATE)
    try:
        rate = humanfriendly.parse_size(fs) if isinstance(fs, str) else int(fs)
    except (TypeError, ValueError, humanfriendly.InvalidSize):
        raise StarError(f"frontend_conf: fs must be a rate such as 8000, got {fs!r}") from None
    return Expected(rate, f"frontend {values['frontend']} (frontend_conf fs)")


def _check_mode(
    task: Any, args: argparse.Namespace, mode: str, expected: Expected | None
) -> Iterator[list[DataList]]:
    """Check the data of one set; gives its lists, more than once where they are split."""
    option = f"{mode}_data_path_and_name_and_type"
    triples = [_triple(option, given) for given in getattr(args, option)]
    setattr(args, option, triples)
    shards = getattr(args, f"{mode}_shards", None)
    if shards or (shards is not None and not triples):
        return  # which look at themselves
    kind = getattr(args, "valid_iterator_type", None) if mode == "valid" else None
    kind = kind or args.iterator_type
    if kind in ("none", "task"):
        return
    if not triples:
        raise StarError(f"no data: give --{option}, e.g. dump/{mode}/wav.scp,speech,sound")
    _check_names(task, args, mode, [name for _, name, _ in triples])
    shapes = list(getattr(args, f"{mode}_shape_file"))
    for part_triples, part_shapes in _parts(args, mode, triples, shapes):
        lists = read_lists(option, part_triples)
        tables = {path: read_table(path, allow_empty=True) for path in part_shapes}
        keys = _keys(args, mode, kind, part_triples, tables, lists)
        if expected is not None and expected.strict:
            _check_shortest(tables)
        for entry in lists:
            rate = expected if entry.name.startswith("speech") else None
            check_recordings(entry, keys, rate, args.allow_multi_rates)
        yield lists


def _triple(option: str, given: Any) -> tuple[str, ...]:
    """An entry as ESPnet's command line makes it; YAML gives text or a list."""
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise StarError(f"--{option} must be PATH,NAME,TYPE, got {given!r}")
    return tuple(str(part).strip() for part in parts)


def _check_names(task: Any, args: argparse.Namespace, mode: str, names: list[str]) -> None:
    train = mode == "train" and not args.collect_stats
    required = task.required_data_names(train, False)
    lacking = [name for name in required if name not in names]
    option = f"--{mode}_data_path_and_name_and_type"
    if lacking:
        raise StarError(
            f"{option} gives {', '.join(names)}, but not {', '.join(lacking)}; add PATH,"
            f"{lacking[0]},TYPE"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise StarError(f"{option} gives {twice[0]} more than once; keep one of them")
    known = (*required, *task.optional_data_names(train, False))
    strange = [name for name in names if name not in known]
    if strange and not args.allow_variable_data_keys:
        raise StarError(f"{option}: {strange[0]} must be one of {', '.join(known)}")


def _parts(
    args: argparse.Namespace, mode: str, triples: list, shapes: list[str]
) -> Iterator[tuple[list, list[str]]]:
    """Lists as they are, or each split of ``--multiple_iterator``."""
    if mode != "train" or not args.multiple_iterator or args.collect_stats:
        yield triples, shapes
        return
    source = Path(triples[0][0]) / "num_splits"
    try:
        count = int(source.read_text())
    except (OSError, ValueError) as error:
        raise StarError(
            f"{source}: cannot be read; --multiple_iterator true wants folders of split lists"
        ) from error
    for number in range(count):
        yield (
            [(f"{path}/split.{number}", name, kind) for path, name, kind in triples],
            [f"{path}/split.{number}" for path in shapes],
        )


def _keys(
    args: argparse.Namespace,
    mode: str,
    kind: str,
    triples: Sequence[Sequence[str]],
    shapes: dict[str, dict[str, str]],
    lists: list[DataList],
) -> list[str]:
    """Utterances that will be read, by what chooses them; refuses lists that lack one."""
    chosen = next(iter(shapes.items()), None)
    if chosen is not None and not chosen[1]:
        raise DataError(f"{chosen[0]} is empty; expected lines 'utterance length'")
    if args.collect_stats:
        table = chosen[1] if chosen else (lists[0].table if lists else {})
        check_order(table, lists)
        return list(table)
    if kind.startswith("category"):
        source = Path(triples[0][0]).parent / "category2utt"
        keys = " ".join(read_table(source).values()).split()
        check_keys(str(source), keys, lists)
        return keys
    if chosen is None and kind != "chunk":
        raise StarError(
            f"--{mode}_shape_file is not given: it names the utterances and their lengths, e.g. "
            "utt2num_samples"
        )
    if chosen is None:
        chosen = (lists[0].path, lists[0].table) if lists else ("", {})
    longest = getattr(args, "max_duration", None)
    keys = [key for key, value in chosen[1].items() if not _longer(value, longest)]
    check_keys(chosen[0], keys, lists)
    batch_type = (mode == "valid" and args.valid_batch_type) or args.batch_type
    if kind == "sequence" and batch_type in ("folded", "length", "numel"):
        for path, table in shapes.items():
            if table.keys() != chosen[1].keys():
                odd = sorted(table.keys() ^ chosen[1].keys())
                raise DataError(
                    f"{path} and {chosen[0]} name different utterances, {len(odd)} in all, e.g. "
                    f"{odd[0]}; make both from the same data"
                )
    if kind == "sequence" and batch_type == "folded" and len(args.fold_length) != len(shapes):
        raise StarError(
            f"--batch_type folded needs a --fold_length for each of the {len(shapes)} "
            f"--{mode}_shape_file, got {len(args.fold_length)}; or choose another --batch_type"
        )
    return keys


def _longer(value: str, seconds: float | None) -> bool:
    return seconds is not None and value.isdecimal() and int(value) > samples_of(seconds)


def _check_shortest(shapes: dict[str, dict[str, str]]) -> None:
    for path, table in shapes.items():
        if not any(word in Path(path).name for word in LENGTHS):
            continue
        lengths = {key: int(value) for key, value in table.items() if value.isdecimal()}
        short = sorted(key for key, length in lengths.items() if length < RECEPTIVE_FIELD)
        if short:
            raise DataError(
                f"{path}: {len(short)} utterances have fewer than {RECEPTIVE_FIELD} samples, one "
                f"frame at 16 kHz, e.g. {short[0]} ({lengths[short[0]]}); leave them out"
            )
