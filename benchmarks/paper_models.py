"""What several benchmarks build: a teacher of HuBERT Base's shape and the paper's optimizer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.utils.logging import disable_progress_bar

from espnet_star.evaluate.cost.subjects import SHAPES
from espnet_star.teachers import build_teacher
from espnet_star.teachers.base import Teacher


def random_teacher(values: Mapping[str, Any] | None = None, **conf: Any) -> Teacher:
    """A teacher of HuBERT Base's shape; `torch.manual_seed` before it gives the same weights.

    Args:
        values: Changes to the shape, in Transformers' names.
        **conf: Options of the adapter, for instance ``dtype="bfloat16"``. Waveforms are not
            normalized, as for HuBERT Base.
    """
    disable_progress_bar()
    config = transformers.HubertConfig(**(SHAPES["hubert_base"][1] | dict(values or {})))
    with tempfile.TemporaryDirectory() as directory:
        transformers.HubertModel(config).eval().save_pretrained(directory)
        return build_teacher(directory, do_normalize=False, **conf)


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """The paper's optimizer."""
    return torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01
    )
