"""Options that say what of a set is kept: for all sets, or for one by its name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from espnet_star.data.audio import AudioOptions

Values = Sequence[tuple[str, float]]


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options; `of_set` and `limited` tell what they say of one set."""
    usual = AudioOptions()
    for name, default, meaning in (
        ("min_duration", usual.min_duration, "Drop shorter utterances, in seconds"),
        ("max_duration", usual.max_duration, "Drop longer utterances, in seconds"),
        ("max_hours", "all", "Keep a random subset of so many, the same on every machine"),
    ):
        parser.add_argument(
            f"--{name}",
            type=_value,
            nargs="+",
            default=[],
            metavar="NUMBER or SET=NUMBER",
            help=f"{meaning} ({default} where nothing is said)",
        )
    parser.add_argument(
        "--whole", nargs="+", default=[], metavar="SET", help="Sets that nothing may be dropped of"
    )


def _value(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        message = f"expected NUMBER, or SET=NUMBER for one set, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def of_set(values: Values, name: str) -> float | None:
    """The value for a set, else that for all, else None."""
    return dict(values).get(name, dict(values).get(""))


def limited(args: argparse.Namespace, name: str, audio: AudioOptions) -> AudioOptions:
    """``audio`` with the lengths between which utterances of a set are kept."""
    shortest, longest = of_set(args.min_duration, name), of_set(args.max_duration, name)
    return replace(
        audio,
        min_duration=audio.min_duration if shortest is None else shortest,
        max_duration=audio.max_duration if longest is None else longest,
    )


def named(args: argparse.Namespace) -> set[str]:
    """Sets that the options name."""
    values = [*args.min_duration, *args.max_duration, *args.max_hours]
    return {name for name, _ in values if name} | set(args.whole)
