#!/usr/bin/env python3
"""Compare encoders by size and cost: parameters, bytes, multiply-accumulates, time, memory."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from espnet_star.bin.command import positive, run_tool, str2bool
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_lines
from espnet_star.errors import StarError
from espnet_star.evaluate.cost import figure as cost_figure
from espnet_star.evaluate.cost import table as cost_table
from espnet_star.evaluate.cost.compare import check_lengths, compare, timing_of
from espnet_star.evaluate.cost.profile import LIBRISPEECH_LENGTHS, read_lengths
from espnet_star.evaluate.cost.subjects import PRESETS, SHAPES, Subject, find_subjects
from espnet_star.evaluate.table import read_merged, write_json

FORMS = {"json": "everything", "md": "the table", **dict.fromkeys(cost_figure.FORMATS, "a figure")}


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_profile``."""
    parser = argparse.ArgumentParser(prog="star_profile", description=__doc__)
    parser.add_argument(
        "--upstream",
        nargs="+",
        default=[*PRESETS, *SHAPES],
        metavar="[LABEL=]MODEL",
        help=f"Presets ({', '.join(PRESETS)}), published shapes without weights "
        f"({', '.join(SHAPES)}), Hugging Face directories of students and teachers, hub names, "
        "distillation folders; by default all presets and shapes",
    )
    parser.add_argument(
        "--lengths",
        metavar="FILE",
        help="Samples of each utterance at 16 kHz that MACs are counted on, one a line, or "
        "utt2num_samples; by default 32 of LibriSpeech test-clean, as published MACs are",
    )
    parser.add_argument(
        "--output",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="Files to write; the ending of each says what: "
        + ", ".join(f".{ending} {what}" for ending, what in FORMS.items()),
    )
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace files that are already there"
    )
    _add_timing(parser.add_argument_group("time and memory on the CPU, minutes for large models"))
    _add_figure(parser.add_argument_group("figure of quality against cost"))
    return parser


def _add_timing(group: Any) -> None:
    group.add_argument(
        "--speed", type=str2bool, default=False, help="Measure real-time factors (false)"
    )
    group.add_argument("--memory", type=str2bool, default=False, help="Measure peak memory (false)")
    group.add_argument(
        "--seconds", nargs="+", type=float, default=[1.0, 5.0, 15.0], help="Lengths of audio"
    )
    group.add_argument(
        "--threads",
        nargs="+",
        type=positive,
        help="Numbers of threads, by default 1 and all cores; memory is that of the last",
    )
    group.add_argument("--repeats", type=positive, default=3, help="Times of each model (3)")


def _add_figure(group: Any) -> None:
    group.add_argument(
        "--results",
        metavar="FILE",
        help="Qualities, the JSON that star_score table has written; models are found by their "
        "labels, the systems' keys or names",
    )
    group.add_argument(
        "--x",
        choices=cost_figure.COSTS,
        default="params",
        help="Cost (params); rtf and memory are those of the first length and threads",
    )
    group.add_argument("--y", metavar="METRIC", help="Metric of the results, e.g. sid_acc")
    group.add_argument(
        "--leave_out", nargs="+", default=[], metavar="SYSTEM", help="Systems that have no model"
    )


def run(args: argparse.Namespace) -> None:
    """Find everything and check every option before the first model is measured."""
    disable_progress_bar()
    timing = timing_of(args.seconds, args.threads, args.repeats, args.speed, args.memory)
    lengths = LIBRISPEECH_LENGTHS if args.lengths is None else read_lengths(args.lengths)
    subjects = find_subjects(args.upstream)
    for path in args.output:
        _check_ending(path)
    figures = [path for path in args.output if _ending(path) in cost_figure.FORMATS]
    found = _qualities(args, figures, subjects)
    check_lengths(subjects, lengths, timing)
    for path in args.output:
        _check_output(path, args.force)
    content = compare(subjects, lengths, timing, _say)
    text = cost_table.markdown(content)
    print(text, end="")
    for path in args.output:
        if _ending(path) == "json":
            write_json(path, content)
        elif _ending(path) == "md":
            write_lines(path, text.splitlines())
    for path in figures:
        axis = cost_figure.cost_axis(args.x, timing.seconds, timing.threads)
        drawn = cost_figure.points(content["models"], found, args.y, axis)
        cost_figure.draw(drawn, axis.label, cost_figure.quality_label(args.y), path)


def _ending(path: str) -> str:
    return Path(path).suffix.removeprefix(".")


def _qualities(
    args: argparse.Namespace, figures: Sequence[str], subjects: Sequence[Subject]
) -> dict[str, float]:
    """Quality of each model in the figure, none without a figure.

    Raises:
        StarError: If the figure lacks an option or could not be drawn.
    """
    if not figures:
        if args.results is not None or args.y is not None:
            raise StarError("--results and --y are for a figure; give --output FILE.svg too")
        return {}
    if args.results is None or args.y is None:
        raise StarError(f"{figures[0]}: a figure needs --results FILE and --y METRIC")
    for cost, option in (("rtf", "speed"), ("memory", "memory")):
        if args.x == cost and not getattr(args, option):
            raise StarError(f"--x {cost} needs --{option} true")
    for path in figures:
        cost_figure.check_drawing(path)
    models = [subject.name for subject in subjects]
    found = cost_figure.qualities(read_merged(args.results), args.y, models, args.leave_out)
    for subject in subjects:
        if args.x == "bytes" and subject.name in found and subject.bytes is None:
            raise StarError(f"--x bytes: {subject.name} has no files; choose another cost")
    return found


def _check_ending(path: str) -> None:
    if _ending(path) not in FORMS:
        raise DataError(
            f"--output {path}: expected a name that ends in {', '.join(f'.{e}' for e in FORMS)}"
        )


def _check_output(path: str, force: bool) -> None:
    """Make the folder of a file that is to be written.

    Raises:
        DataError: If the file is there and not to be replaced, or cannot be written.
    """
    if Path(path).exists() and not force:
        raise DataError(f"--output {path}: already there; give --force true to replace it")
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output {path}: no folder for it ({error.strerror})") from error
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise DataError(f"--output {path}: cannot be written there; choose another file")


def _say(text: str) -> None:
    print(f"star_profile: {text}", file=sys.stderr, flush=True)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_profile", lambda: run(args))


if __name__ == "__main__":
    main()
