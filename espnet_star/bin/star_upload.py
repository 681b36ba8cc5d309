#!/usr/bin/env python3
"""Upload a pack to the Hugging Face hub, as ESPnet's recipes do, or show what would be sent."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.hub import check_repo, upload
from espnet_star.formats.pack_card import licence_of
from espnet_star.formats.unpack import extract_checked
from espnet_star.units import size as amount


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_upload``."""
    parser = argparse.ArgumentParser(prog="star_upload", description=__doc__)
    parser.add_argument("--pack", required=True, metavar="FILE", help="What star_pack wrote")
    parser.add_argument("--hf_repo", required=True, metavar="NAME", help="Repository: user/model")
    parser.add_argument("--private", type=str2bool, default=False, help="Make it a private one")
    parser.add_argument("--message", default="Upload model", help="Message of the commit")
    parser.add_argument(
        "--dry_run", type=str2bool, default=False, help="Print what would be sent, send nothing"
    )
    return parser


def send(args: argparse.Namespace) -> None:
    """Check the pack, then send it or show it."""
    check_repo(args.hf_repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pack"
        # As they are: the hub's readers resolve the relative paths in configurations.
        extract_checked(args.pack, folder)
        readme = folder / "README.md"
        if not readme.is_file():
            raise StarError(f"{args.pack} has no README.md; star_pack writes one")
        text = readme.read_text(encoding="utf-8")
        licence = licence_of(text)
        if licence is None:
            raise StarError(f"{args.pack} names no licence; pack it again with --license")
        if args.dry_run:
            show(folder, args, licence, text)
            return
        print(f"{args.hf_repo}: {upload(folder, args.hf_repo, args.private, args.message)}")


def show(folder: Path, args: argparse.Namespace, licence: str, text: str) -> None:
    """Print what would be sent."""
    visibility = "private" if args.private else "public"
    print(f"Repository: {args.hf_repo} ({visibility}, made if it is not there)")
    print(f"Licence: {licence}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    print(f"Files ({len(files)}, {amount(sum(sizes))}):")
    for path, size in zip(files, sizes, strict=True):
        print(f"{size:>12,}  {path.relative_to(folder).as_posix()}")
    print(f"README.md:\n{text.rstrip()}")
    print("Dry run: nothing was sent")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_upload", lambda: send(args))


if __name__ == "__main__":
    main()
