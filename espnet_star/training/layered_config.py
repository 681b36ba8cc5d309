"""Configurations that begin from another: ``base: train_star.yaml`` in a YAML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from espnet2.utils import config_argparse

from espnet_star.errors import STOP_CODE, StarError
from espnet_star.files.yaml_files import as_numbers, merge, read_yaml

BASE = "base"


def read_layers(path: str | Path) -> dict[str, Any]:
    """Content of a configuration laid over the one that its ``base`` names.

    Args:
        path: YAML file. ``base`` is relative to the folder the file is found in, so that a
            link in another recipe begins from that recipe's own base.

    Returns:
        Keys and values without ``base``; mappings (``encoder_conf``) are merged key by
        key, anything else is replaced.

    Raises:
        StarError: If a file is missing or no mapping, or files name one another in a ring.
    """
    layers: list[dict[str, Any]] = []
    seen: list[Path] = []
    current: Path | None = Path(path)
    while current is not None:
        place = current.absolute()
        if place in seen:
            raise StarError(f"{current}: its bases lead back to itself; drop one of them")
        seen.append(place)
        layer = read_yaml(current)
        base = layer.pop(BASE, None)
        layers.append(layer)
        current = None if base is None else current.parent / str(base)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merge(merged, layer)
    return merged


class LayeredParser(config_argparse.ArgumentParser):
    """ESPnet's parser, whose configuration file may name a base."""

    def error(self, message: str) -> NoReturn:
        """Say it in one line: the usage of a training is two screens long."""
        print(f"{self.prog}: error: {message}; --help lists the options", file=sys.stderr)
        raise SystemExit(STOP_CODE)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; values of the configuration become defaults, as in ESPnet."""
        plain = argparse.ArgumentParser.parse_known_args
        path = plain(self, args, namespace)[0].config
        if path is not None:
            try:
                values = read_layers(path)
            except StarError as error:
                self.error(str(error))
            known = {action.dest for action in self._actions}
            for key in values:
                if key not in known:
                    self.error(f"unrecognized arguments: {key} (from {path})")
            self.set_defaults(**values)
        found, rest = plain(self, args, namespace)
        for name, value in vars(found).items():
            if name.endswith("_conf") or name == "losses":
                setattr(found, name, as_numbers(value))
        return found, rest
