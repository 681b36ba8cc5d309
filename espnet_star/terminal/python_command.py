"""Read a command line as ``python3`` reads its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MODULE, CODE, FILE, STDIN = "-m", "-c", "file", "-"


@dataclass(frozen=True)
class PythonCommand:
    """What an interpreter would be asked to run.

    Attributes:
        flags: Options of the interpreter itself, e.g. ``("-u", "-W", "ignore")``.
        kind: ``"-m"``, ``"-c"``, ``"file"``, ``"-"`` (the standard input), or None where
            nothing to run is named.
        target: The module, the code or the file.
        rest: Arguments of what is run.
    """

    flags: tuple[str, ...] = ()
    kind: str | None = None
    target: str = ""
    rest: tuple[str, ...] = ()


def parse_python(arguments: Sequence[str]) -> PythonCommand:
    """Part the interpreter's options from what it is to run.

    Args:
        arguments: Those after ``python3``.
    """
    words = list(arguments)
    flags: list[str] = []
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--check-hash-based-pycs":
            flags += [word, *words[:1]]
            del words[:1]
            continue
        # Long options take no value; of short ones, -m and -c end the list, -W and -X have one.
        end = next((at for at, letter in enumerate(word) if letter in "mcWX"), len(word))
        if word.startswith("--") or end == len(word):
            flags.append(word)
            continue
        value, letter = word[end + 1 :], word[end]
        following = not value and bool(words)
        if following:
            value = words.pop(0)
        if letter in "WX":
            flags += [word, value] if following else [word]
            continue
        if end > 1:
            flags.append(word[:end])
        return PythonCommand(tuple(flags), f"-{letter}", value, tuple(words))
    if not words:
        return PythonCommand(tuple(flags))
    kind = STDIN if words[0] == STDIN else FILE
    return PythonCommand(tuple(flags), kind, words[0], tuple(words[1:]))
