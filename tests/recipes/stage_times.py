#!/usr/bin/env python3
"""Say how long each stage of a log took, from the times that star.sh prints."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(r"^(\d\d):(\d\d):(\d\d) (.+)$")
DAY = 24 * 3600


class Step(NamedTuple):
    """A stage of one call: its title, the seconds it took, the call's options."""

    title: str
    seconds: int
    call: str


def steps(lines: Iterable[str]) -> list[Step]:
    """Stages of a log, in its order.

    Args:
        lines: ``=== OPTIONS`` begins a call, ``HH:MM:SS Stage N: ...`` a stage, and the
            next line with a time ends it. A stage without one, whose run was stopped, is
            left out.
    """
    found: list[Step] = []
    call, title, begin = "", "", 0
    for line in lines:
        if line.startswith("=== "):
            call, title = line[4:].strip(), ""
        match = LINE.match(line)
        if match is None:
            continue
        hours, minutes, seconds = (int(part) for part in match.group(1, 2, 3))
        now = 3600 * hours + 60 * minutes + seconds
        if title:
            found.append(Step(title, (now - begin) % DAY, call))
        title = match[4] if match[4].startswith(("Stage ", "Check: ")) else ""
        begin = now
    return found


def table(found: Iterable[Step]) -> str:
    """Lines with the options of each call and the seconds of its stages."""
    lines, total = [], 0
    for call, group in itertools.groupby(found, key=lambda step: step.call):
        lines.append(call)
        for step in group:
            lines.append(f"{step.seconds:6d}  {step.title}")
            total += step.seconds
    return "\n".join([*lines, f"{total:6d}  in all"])


def main() -> None:
    """Print the table of the log that is the only argument."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    print(table(steps(text.splitlines())))


if __name__ == "__main__":
    main()
