"""Upload a pack to the Hugging Face hub, as ESPnet's recipes do, or show what would be sent."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.formats.packs.hub import upload


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export upload``."""
    parser = argparse.ArgumentParser(prog="star_export upload", description=__doc__)
    parser.add_argument("--pack", required=True, metavar="FILE", help="What star_export pack wrote")
    parser.add_argument("--hf_repo", required=True, metavar="NAME", help="Repository: user/model")
    parser.add_argument("--private", type=str2bool, default=False, help="Make it a private one")
    parser.add_argument("--message", default="Upload model", help="Message of the commit")
    parser.add_argument(
        "--dry_run", type=str2bool, default=False, help="Print what would be sent, send nothing"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)

    def send() -> None:
        told = upload(args.pack, args.hf_repo, args.private, args.message, args.dry_run)
        print(f"{args.hf_repo}{' (dry run, nothing was sent)' * args.dry_run}: {told}")

    run_tool("star_export upload", send)


if __name__ == "__main__":
    main()
