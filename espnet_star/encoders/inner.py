"""States inside an encoder, beside those between its layers.

``projection`` is what stands before the positional convolution (DPHuBERT's state 0,
arXiv 2305.17651), ``feed_forward.l`` what the feed-forward part of layer l adds: after its
second linear map, before the residual sum and the LayerNorm (fairseq's ``layer_result``, which
data2vec and LightHuBERT, arXiv 2203.15610, follow). Both are as wide as the states. ``front`` is
what the projection is fed: the convolutions' output, as wide as the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

PROJECTION = "projection"
FEED_FORWARD = "feed_forward"
FRONT = "front"


def feed_forward(layer: int) -> str:
    """Name of what the feed-forward part of a layer (from 1) adds."""
    return f"{FEED_FORWARD}.{layer}"


def kind_and_layer(name: str) -> tuple[str, int]:
    """``feed_forward.5 -> ("feed_forward", 5)``; the projection is before all layers, 0."""
    kind, _, layer = name.partition(".")
    return kind, int(layer or 0)


@contextmanager
def caught(
    names: Iterable[str], module_of: Callable[[str, int], torch.nn.Module]
) -> Iterator[dict[str, torch.Tensor]]:
    """Keep what modules give while an encoder runs.

    Args:
        names: States that are wanted.
        module_of: What gives a state, by its kind and layer.

    Yields:
        A dictionary that holds them by name once the encoder has run.
    """
    found: dict[str, torch.Tensor] = {}
    handles = []
    for name in names:
        module = module_of(*kind_and_layer(name))
        handles.append(module.register_forward_hook(partial(_keep, found, name)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keep(
    found: dict[str, torch.Tensor], name: str, _module: torch.nn.Module, args: Any, out: Any
) -> None:
    if name == FRONT:
        found[name] = args[0]
        return
    # A copy: Transformers writes zeros and mask vectors into its projection in place.
    found[name] = (out[0] if isinstance(out, tuple) else out).clone()
