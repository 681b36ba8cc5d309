"""The student, or any teacher, as the frontend of ESPnet's own tasks."""

from __future__ import annotations

import logging
from typing import Any

import humanfriendly
import torch
import torch.nn.functional as F
from espnet2.asr.frontend.abs_frontend import AbsFrontend

from espnet_star import catalog
from espnet_star.encoders import Cached, Encoder, Frozen
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students import STUDENTS


class StarFrontend(AbsFrontend):
    """Learned weighted sum of an encoder's hidden states, as SUPERB feeds its heads.

    A student's weights are saved with the downstream model, whose ``config.yaml`` holds
    its full architecture: decoding needs nothing else. A teacher (the upper line of a
    comparison) is not saved; its directory is needed again, as is an ONNX file.

    Args:
        upstream: Student (Hugging Face directory, hub name, distillation experiment or a
            file of ``star_export onnx``), or a teacher.
        kind: ``"student"``, ``"onnx"``, a kind of teacher, or ``"auto"``; see
            :mod:`espnet_star.catalog`.
        student: Kind of student that ``student_conf`` is for, ``star`` or
            ``package.module:Class``.
        student_conf: Architecture of a student whose weights a checkpoint will bring;
            written into ``config.yaml`` in place of ``upstream``.
        normalize: Layer-normalize each state, without parameters, before the sum.
        freeze_updates: Updates before the student itself is trained; None never trains
            it, 0 trains it from the start. With a number above 0, give ESPnet
            ``--unused_parameters true`` in distributed training.
        cache_dir: Keep a frozen encoder's states there, so that later epochs and other
            tasks do not compute them again; for small corpora.
        fs: Sampling rate of the data; must be 16000.

    Raises:
        StarError: If the upstream cannot be loaded or options contradict each other.
    """

    def __init__(
        self,
        upstream: str | None = None,
        kind: str = "auto",
        student: str = "star",
        student_conf: dict[str, Any] | None = None,
        normalize: bool = False,
        freeze_updates: int | None = None,
        cache_dir: str | None = None,
        fs: int | str = SAMPLE_RATE,
    ):
        super().__init__()
        if sampling_rate(fs) != SAMPLE_RATE:
            raise StarError(f"frontend star works at 16000 Hz, got fs={fs}; resample the data")
        self.source, self.kind = upstream, kind
        self.normalize = normalize
        self.freeze_updates = freeze_updates
        encoder = build_upstream(upstream, kind, student_conf, student)
        if not encoder.trainable and freeze_updates is not None:
            raise StarError(
                "freeze_updates trains a student; a teacher stays frozen, and so does ONNX"
            )
        self.upstream: Encoder = encoder if encoder.trainable else Frozen(encoder)
        if freeze_updates is None:
            encoder.requires_grad_(False)
        self.layer_weights = torch.nn.Parameter(torch.zeros(encoder.shape.layers + 1))
        # Persistent, so that a resumed run unfreezes at the same update.
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.cached: Cached | None = None
        if cache_dir and freeze_updates is None:
            # At inference the folder may be gone; then there is nothing to gain from it.
            self.cached = Cached(self.upstream, cache_dir)
        self.train()

    def train(self, mode: bool = True) -> StarFrontend:
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.is_frozen():
            self.upstream.eval()
        return self

    def is_frozen(self) -> bool:
        """Whether the encoder itself is left alone at this update."""
        return self.freeze_updates is None or int(self.updates) < self.freeze_updates

    def output_size(self) -> int:
        """Width D of the features."""
        return self.upstream.shape.width

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a batch.

        Args:
            input: Waveforms at 16 kHz, ``(B, T)``.
            input_lengths: Samples of each, ``(B,)``.

        Returns:
            ``(B, N, D)`` at 50 frames per second, zero on padding, and lengths ``(B,)``.
        """
        if input.dim() == 3:
            input = input.mean(dim=2)  # channels
        frozen = self.is_frozen()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            if not frozen and self.training:
                self.upstream.train()
            outputs = (self.cached or self.upstream).encode(input, input_lengths)
        if self.training:
            self.updates += 1
        weights = self.layer_weights.softmax(dim=0)
        features = torch.zeros_like(outputs.hidden_states[0])
        for weight, state in zip(weights, outputs.hidden_states, strict=True):
            if self.normalize:
                state = F.layer_norm(state, state.shape[-1:])
            features = features + weight * state
        features = torch.where(outputs.mask()[..., None], features, 0.0)
        return features, outputs.lengths

    def reload_pretrained_parameters(self) -> None:
        """Undo ESPnet's ``--init``, which overwrites pretrained weights as well."""
        if self.upstream.trainable and self.source is not None:
            fresh = build_upstream(self.source, self.kind)
            self.upstream.load_state_dict(fresh.state_dict())
        torch.nn.init.zeros_(self.layer_weights)

    def options(self) -> dict[str, Any]:
        """Keyword arguments for ``config.yaml`` that need no distillation folder."""
        options: dict[str, Any] = {
            "normalize": self.normalize,
            "freeze_updates": self.freeze_updates,
        }
        if self.upstream.trainable:
            name = STUDENTS.name_of(type(self.upstream))
            kept = {} if name == "star" else {"student": name}
            return options | kept | {"student_conf": self.upstream.options()}
        # What "auto" found, so that nothing is guessed again where the model is decoded.
        return options | {
            "upstream": self.source,
            "kind": self.upstream.conf.get("kind", self.kind),
        }


def sampling_rate(fs: int | str) -> int | None:
    """A rate as ESPnet's configurations write it, e.g. ``16k``; None if it is none."""
    try:
        return humanfriendly.parse_size(str(fs))
    except humanfriendly.InvalidSize:
        return None


def build_upstream(
    upstream: str | None,
    kind: str = "auto",
    student_conf: dict[str, Any] | None = None,
    student: str = "star",
) -> Encoder:
    """Encoder of a frontend; see :class:`StarFrontend` for the arguments."""
    if upstream is None:
        if not student_conf:
            raise StarError(
                "frontend star needs upstream: a student's directory or hub name, or a "
                "distillation experiment, e.g. --frontend_conf upstream=exp/star"
            )
        logging.info("Student built from student_conf; its weights come from the checkpoint")
        return STUDENTS.build(student, student_conf)
    return catalog.load(upstream, kind)
