#!/usr/bin/env python3
"""Lay the rehearsal's overlay over a recipe's configurations.

Each file of the source folder is written under its own name: a training configuration
with the few keys of the overlay changed, any other file as it is. A key that is wrong in
the real file is wrong in the shrunk one.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_star.bin.command import run_tool
from espnet_star.data.errors import DataError

OVERLAY = Path(__file__).with_name("overlay.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        DataError: If it cannot be read or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    return content


def section_of(name: str, sections: Mapping[str, Any]) -> str | None:
    """Section whose ``files`` match a configuration's name, the first in the overlay's order."""
    for section, content in sections.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in content["files"]):
            return section
    return None


def inherited(path: Path) -> dict[str, Any]:
    """A configuration's keys and those of its bases, whose values do not matter here."""
    content = read_yaml(path)
    base = content.get("base")
    return content if base is None else {**inherited(path.parent / str(base)), **content}


def lay_over(
    real: Mapping[str, Any], overlay: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """A configuration with the overlay's values; mappings are merged, all else replaced.

    Args:
        real: The configuration.
        overlay: What to change. A key with a question mark at its end is left out where
            the configuration does not know it.
        known: The configuration with what it takes over from its base.
    """
    merged = copy.deepcopy(dict(real))
    for key, value in overlay.items():
        optional, key = key.endswith("?"), key.removesuffix("?")
        if optional and key not in known:
            continue
        if isinstance(value, dict):
            value = lay_over(merged.get(key) or {}, value, known.get(key) or {})
        merged[key] = copy.deepcopy(value)
    return merged


def shrink(confdir: Path, outdir: Path, overlay: Path = OVERLAY) -> dict[str, str | None]:
    """Write a folder of shrunk configurations.

    Args:
        confdir: The recipe's ``conf``.
        outdir: Gets a file of the same name for each; files of an earlier run are replaced.
        overlay: The overlay.

    Returns:
        Section that each file was shrunk by, or None where it was copied.

    Raises:
        DataError: If a file is no YAML, or none was shrunk.
    """
    sections = read_yaml(overlay)
    used: dict[str, str | None] = {}
    for source in sorted(path for path in confdir.rglob("*") if path.is_file()):
        name = source.relative_to(confdir)
        target = outdir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        used[str(name)] = section = section_of(source.name, sections)
        if section is None:
            shutil.copyfile(source, target)
            continue
        content = lay_over(read_yaml(source), sections[section]["overlay"], inherited(source))
        base = source.parent.absolute() / str(content.get("base", ""))
        base = Path(os.path.normpath(base))  # not resolved: recipes link to one another's files
        # A base beside it is shrunk as well; another stays where it is.
        if base.is_file() and not base.is_relative_to(confdir.absolute()):
            content["base"] = str(base)
        header = f"# {source} with section {section} of {overlay.name}\n"
        target.write_text(header + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    if not any(used.values()):
        raise DataError(
            f"{confdir}: no file that a section of {overlay} matches, found "
            f"{', '.join(used) or 'none'}; name them as the files of the other recipes"
        )
    return used


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--confdir", type=Path, default=Path("conf"))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--overlay", type=Path, default=OVERLAY)
    args = parser.parse_args(argv)

    def work() -> None:
        used = shrink(args.confdir, args.output_dir, args.overlay)
        print(
            f"{args.output_dir}: " + ", ".join(f"{n} ({s or 'as it is'})" for n, s in used.items())
        )

    run_tool(Path(sys.argv[0]).name, work)


if __name__ == "__main__":
    main()
