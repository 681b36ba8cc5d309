"""Unpack a model of ESPnet's pack format, from a file, a folder or the hub, checked first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.formats.packs.hub import download
from espnet_star.formats.packs.unpack import check_target, unpack


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_import pack``."""
    parser = argparse.ArgumentParser(prog="star_import pack", description=__doc__)
    parser.add_argument(
        "--pack", required=True, metavar="NAME", help="Archive, folder or hub name (user/model)"
    )
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="Folder to make")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a model that is there"
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="MODULE:CLASS",
        help="Classes outside espnet_star that its configurations may name",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Unpack, and print where the files are by ESPnet's names of them."""
    check_target(Path(args.output_dir), args.force)
    source = Path(args.pack)
    if not source.exists():
        source = download(args.pack)
    for key, path in unpack(source, args.output_dir, args.force, args.allow).items():
        print(f"{key}: {path}")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_import pack", lambda: run(args))


if __name__ == "__main__":
    main()
