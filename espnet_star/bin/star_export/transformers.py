"""Export a distilled student as a Hugging Face directory with a model card, and prove it.

The directory appears once plain transformers has given the student's own features from it. A
student that no HubertModel can hold is refused, or written for espnet_star alone (--own true).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.export import export_baseline, export_student
from espnet_star.formats.model_card import CARD, Card, check_license


def proven(gap: float | None) -> str:
    """How the directory was proved."""
    if gap is None:
        return "read back the same by espnet_star; no HubertModel of transformers can hold it"
    return f"the same in transformers.HubertModel (to {gap:.0e})"


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export transformers``."""
    parser = argparse.ArgumentParser(prog="star_export transformers", description=__doc__)
    parser.add_argument("--expdir", help="Folder of a distillation")
    parser.add_argument(
        "--upstream",
        help="A ready student instead (directory or hub name), with --random_init true: the "
        "baseline for a student that was distilled elsewhere",
    )
    parser.add_argument("--model_file", help="Model in it; the averaged best by default")
    parser.add_argument("--output_dir", required=True, help="Directory to write")
    parser.add_argument(
        "--random_init",
        type=str2bool,
        default=False,
        help="Keep the architecture, not the weights: the undistilled baseline",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of --random_init")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a student already there"
    )
    parser.add_argument(
        "--own",
        type=str2bool,
        default=False,
        help="Where no HubertModel of transformers can hold the student, write a directory that "
        "espnet_star.load and --frontend star read",
    )
    card = parser.add_argument_group("model card")
    card.add_argument("--hf_repo", metavar="NAME", help="Hub name it will have, user/model")
    card.add_argument("--base_model", help="Hub name of the teacher, where --teacher was none")
    card.add_argument(
        "--license",
        help="The hub's identifier, e.g. apache-2.0; by default the card says that the weights "
        "follow the terms of teacher and data",
    )
    card.add_argument(
        "--speed", type=str2bool, default=True, help="Measure the real-time factor, some seconds"
    )
    card.add_argument("--results", metavar="FILE", help="JSON that star_score table has written")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export transformers", lambda: export(args))


def export(args: argparse.Namespace) -> None:
    """Export what was asked for, and say what it has become."""
    from espnet_star.evaluate.cost.student_cost import student_cost
    from espnet_star.evaluate.table import markdown, read_merged

    if (args.expdir is None) == (args.upstream is None):
        raise StarError("give one of --expdir and --upstream")
    seed = args.seed if args.random_init else None
    if args.upstream is not None:
        gap = export_baseline(args.upstream, args.output_dir, seed, args.force)
        print(f"{args.output_dir}: {args.upstream} with random weights, {proven(gap)}")
        return
    card = Card(
        name=args.hf_repo or Path(args.output_dir).resolve().name,
        license=None if args.license is None else check_license(args.license),
        results=None if args.results is None else markdown(read_merged(args.results)),
    )
    done = export_student(
        args.expdir,
        args.output_dir,
        card,
        model_file=args.model_file,
        random_seed=seed,
        base_model=args.base_model,
        cost=lambda student: student_cost(student, args.speed),
        force=args.force,
        own=args.own,
    )
    kind = "" if seed is None else " with random weights"
    size = f"{done.params / 1e6:.2f} M parameters"
    print(f"{args.output_dir}: student of {size}{kind}, {proven(done.gap)}")
    if not done.card:
        readme = Path(args.output_dir) / CARD
        print(f"  {readme} is not star_export's and was left as it is: no model card")


if __name__ == "__main__":
    main()
