#!/usr/bin/env python3
"""Score recognized text, speakers and pairs of voices; collect the results of several systems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_star.bin.command import run_tool
from espnet_star.data.errors import DataError
from espnet_star.evaluate import table
from espnet_star.evaluate.scoring import score_asr, score_sid
from espnet_star.evaluate.verification import score_sv

VIOLATION_CODE = 1


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_score`` and its six subcommands."""
    parser = argparse.ArgumentParser(prog="star_score", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, unit in (("asr", "text"), ("sid", "utt2spk")):
        score = commands.add_parser(name, help=f"Score a hypothesis against {unit}")
        score.add_argument("--ref", required=True, help=f"{unit} of the test set")
        score.add_argument("--hyp", required=True, help="text that decoding wrote")
        score.add_argument("--output", default=None, help="JSON file for the result")
    verify = commands.add_parser("sv", help="Score trials of speaker verification")
    verify.add_argument("--ref", required=True, help="Trials, lines '1 utterance utterance'")
    verify.add_argument("--hyp", required=True, help="embed.scp that spk_inference wrote")
    verify.add_argument("--output", default=None, help="JSON file for the result")
    verify.add_argument("--scores", default=None, help="File for the score of each trial")
    add = commands.add_parser("add", help="Write or extend the result of one system")
    add.add_argument("--output", required=True, help="JSON file of the system")
    add.add_argument("--system", default=None, help="Name in the table")
    add.add_argument("--params", type=int, default=None, help="Number of parameters")
    add.add_argument("--upstream", default=None, help="Count them in this encoder instead")
    add.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="sid_acc=0.44 (a fraction), or sid_acc=exp/sid.json#accuracy",
    )
    add.add_argument(
        "--scores",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Score files of its heads, of which absent ones are left out; score_SET.json adds "
        "wer_SET and so on",
    )
    merge = commands.add_parser("table", help="Merge results into one table")
    merge.add_argument("--results", nargs="+", required=True, help="JSON files of the systems")
    merge.add_argument(
        "--output",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="FILE.json for everything, any other for the table in Markdown; without one of the "
        "latter the table goes to the standard output",
    )
    merge.add_argument("--columns", nargs="+", default=[], help="Metrics to show, in this order")
    check = commands.add_parser("check", help="Check relations between results")
    check.add_argument("--results", required=True, help="JSON file that table has written")
    for name in ("greater", "less"):
        check.add_argument(
            f"--{name}",
            nargs="+",
            action="append",
            default=[],
            metavar="SYSTEM.METRIC",
            help=f"The first must be {name}, e.g. student.sid_acc undistilled.sid_acc; a number "
            "after them is the least difference (0.06: six points)",
        )
    return parser


def _score(args: argparse.Namespace) -> None:
    if args.subcommand == "sv":
        result, warnings = score_sv(args.ref, args.hyp, args.scores)
    else:
        score = score_asr if args.subcommand == "asr" else score_sid
        result, warnings = score(args.ref, args.hyp)
    for warning in warnings:
        print(f"star_score: warning: {warning}", file=sys.stderr)
    if args.output is not None:
        table.write_json(args.output, result)
    summary = {"asr": _asr_summary, "sid": _sid_summary, "sv": _sv_summary}
    print(summary[args.subcommand](result))


def _asr_summary(result: dict[str, Any]) -> str:
    words = result["words"]
    lines = [
        f"WER {100 * result['wer']:.1f} %, CER {100 * result['cer']:.1f} % "
        f"({result['utterances']} utterances, {words['reference']} words: "
        f"{words['substitutions']} sub, {words['deletions']} del, {words['insertions']} ins)"
    ]
    lines += [
        f"  {row['utterance']} ({row['errors']} errors)\n"
        f"    ref: {row['ref']}\n    hyp: {row['hyp']}"
        for row in result["worst"]
    ]
    return "\n".join(lines)


def _sid_summary(result: dict[str, Any]) -> str:
    lines = [
        f"accuracy {100 * result['accuracy']:.1f} %, macro {100 * result['macro_accuracy']:.1f} % "
        f"({result['correct']} of {result['utterances']} utterances, "
        f"{result['speakers']} speakers, most frequent one {100 * result['chance']:.1f} %)"
    ]
    lines += [
        f"  {row['ref']} taken for {row['hyp']}: {row['count']}" for row in result["confused"]
    ]
    return "\n".join(lines)


def _sv_summary(result: dict[str, Any]) -> str:
    return (
        f"EER {100 * result['eer']:.2f} %, minDCF {result['mindcf']:.4f} (target prior "
        f"{result['p_target']}; {result['trials']} trials, {result['targets']} of one speaker)"
    )


def _add(args: argparse.Namespace) -> None:
    metrics = [table.read_metric(text) for text in args.metric]
    metrics += table.read_scores(args.scores) if args.scores else []
    params = args.params
    if args.upstream is not None:
        # Here, not above: every other subcommand starts without torch.
        from transformers.utils.logging import disable_progress_bar

        from espnet_star import catalog

        disable_progress_bar()
        params = sum(p.numel() for p in catalog.load(args.upstream).parameters())
    table.add_result(args.output, args.system, params, metrics)


def _table(args: argparse.Namespace) -> None:
    results = table.merge(args.results)
    text = table.markdown(results, args.columns)
    tables = [Path(name) for name in args.output if Path(name).suffix != ".json"]
    for name in args.output:
        if Path(name) not in tables:
            table.write_json(name, results)
    for path in tables:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    if not tables:
        print(text, end="")


def _check(args: argparse.Namespace) -> int:
    if not args.greater and not args.less:
        raise DataError("nothing to check; give --greater or --less")
    found = table.violations(table.read_json(args.results), args.greater, args.less)
    for sentence in found:
        print(f"star_score: violated: {sentence}", file=sys.stderr)
    if not found:
        print(f"{len(args.greater) + len(args.less)} relations hold")
    return VIOLATION_CODE if found else 0


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    work = {"add": _add, "table": _table, "check": _check}
    run_tool("star_score", lambda: work.get(args.subcommand, _score)(args))


if __name__ == "__main__":
    main()
