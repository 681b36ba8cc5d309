"""Pack a student, or an ESPnet model built on it, into one file that runs without its folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.evaluate.table import markdown, read_merged
from espnet_star.formats.model_card import Card
from espnet_star.formats.packs.pack import KINDS, LATEST, find_model, pack_model
from espnet_star.terminal.units import size


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export pack``."""
    parser = argparse.ArgumentParser(prog="star_export pack", description=__doc__)
    parser.add_argument(
        "task",
        choices=list(KINDS),
        help="ssl: the student of a distillation; asr, cls, spk: a model of ESPnet's task",
    )
    parser.add_argument("--expdir", required=True, help="Folder of the training")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="Pack to write: .zip, .tgz or .tar"
    )
    parser.add_argument(
        "--model_file",
        metavar="NAME",
        help="Model in expdir; by default what the recipes decode with: the averaged student, "
        "valid.acc.ave.pth of asr (valid.loss.best.pth of CTC alone), valid.acc.best.pth of cls, "
        "valid.eer.best.pth of spk",
    )
    parser.add_argument(
        "--upstream",
        metavar="DIR",
        help="ssl: what star_export transformers wrote of it, model card and all; written anew "
        "by default",
    )
    card = parser.add_argument_group("README of the pack")
    card.add_argument("--hf_repo", metavar="NAME", help="Repository it will be uploaded to")
    card.add_argument("--license", help="As the hub spells it, e.g. cc-by-4.0, apache-2.0")
    card.add_argument("--description", nargs="+", help="A sentence about the model")
    card.add_argument("--language", help="Code of its language, e.g. en")
    card.add_argument("--results", metavar="FILE", help="JSON that star_score table has written")
    card.add_argument(
        "--inference_args",
        default="",
        metavar="OPTIONS",
        help="asr: decoding options, e.g. --inference_args='--ctc_weight 1.0 --beam_size 1'",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="FILE", help="One more file to pack"
    )
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a pack that is there"
    )
    return parser


def make(args: argparse.Namespace) -> None:
    """Pack, and say what was written."""
    results = None if args.results is None else markdown(read_merged(args.results))
    card = Card(
        name=args.hf_repo or Path(args.output).name,
        license=args.license,
        description=" ".join(args.description) if args.description else None,
        language=args.language,
        results=results,
        inference_args=args.inference_args,
    )
    path = pack_model(
        args.task,
        args.expdir,
        args.output,
        card,
        model_file=args.model_file,
        student=args.upstream,
        options=args.option,
        force=args.force,
    )
    model = find_model(Path(args.expdir), KINDS[args.task], args.model_file)
    print(f"model: {model}{describe(model, args)}")
    license = args.license or "no license yet (--license)"
    print(f"{args.output}: {args.task}, {size(path.stat().st_size)}, {license}")


def describe(model: Path, args: argparse.Namespace) -> str:
    """What a user should know of the model that was chosen."""
    if args.model_file is not None or model.name != LATEST:
        found = model.resolve().name
        return f" ({found})" if found != model.name else ""
    names = KINDS[args.task].model_files[:-1]
    return f", the last epoch, since none of {', '.join(names)} is there"


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export pack", lambda: make(args))


if __name__ == "__main__":
    main()
