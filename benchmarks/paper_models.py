"""What several benchmarks build: a teacher of HuBERT Base's shape and the paper's optimiser."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from espnet_star.analysis.subjects import find_subject
from espnet_star.teachers import build_teacher
from espnet_star.teachers.abs_teacher import AbsTeacher


def random_teacher(**conf: Any) -> AbsTeacher:
    """A teacher of HuBERT Base's shape; `torch.manual_seed` before it gives the same weights.

    Args:
        **conf: Options of the adapter, for instance ``dtype="bfloat16"``. Waveforms are not
            normalised, as for HuBERT Base.
    """
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        find_subject("hubert_base").build().save_pretrained(directory)
        return build_teacher(directory, do_normalize=False, **conf)


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """The paper's optimiser."""
    return torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01
    )
