"""Weights that do not fit the model they are loaded into, told in one line."""

from __future__ import annotations

import re
from pathlib import Path

from espnet_star.errors import StarError

MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\((\[.*?\])\) from "
    r"checkpoint, the shape in current model is torch\.Size\((\[.*?\])\)"
)
ABSENT = re.compile(r"(Missing|Unexpected) key\(s\) in state_dict: (.*?)\. ?\n", re.S)
QUOTED = re.compile(r'"([^"]+)"')


class OtherModel(StarError):
    """A checkpoint holds another model than the configuration builds."""


def other_model(source: str | Path, error: Exception) -> OtherModel | None:
    """The one line for weights, or an optimizer's state, that do not fit; None for others.

    Args:
        source: File that they come from.
        error: What torch said about it, in up to a line a weight.
    """
    text = str(error)
    told = []
    if "loaded state dict" in text:
        told.append("its optimizer has other groups of parameters")
    elif "Error(s) in loading state_dict" in text:
        shapes = MISMATCH.findall(text)
        if shapes:
            name, there, here = shapes[0]
            told.append(f"{len(shapes)} weights have other shapes, e.g. {name} {there}, not {here}")
        for kind, names in ABSENT.findall(text + "\n"):
            listed = QUOTED.findall(names)
            state = "are not there" if kind == "Missing" else "have no place"
            told.append(f"{len(listed)} weights {state}, e.g. {listed[0]}")
    if not told:
        return None
    return OtherModel(
        f"{source} holds another model than this configuration builds: {'; '.join(told)}. Go on "
        "with the configuration it was trained with (config.yaml beside it), or train this one in "
        "another --output_dir"
    )
