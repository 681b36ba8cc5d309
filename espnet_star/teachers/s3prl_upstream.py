"""Upstreams of s3prl as teachers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError, first_line, unknown_name
from espnet_star.formats.packs.unpack import check_harmless
from espnet_star.outputs import HOP, LayerOutputs
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.padding import stack

PREFIX = "s3prl:"
# Frames that an upstream may give beside the student's count, as those do that pad.
MAX_EXTRA = 2
# What tells that layers do not end in a norm: fairseq's models, then those of Transformers.
_PRE_NORM = ("layer_norm_first", "normalize_before", "do_stable_layer_norm")

logger = logging.getLogger(__name__)


class S3prlTeacher(Teacher):
    """Hidden states of an s3prl upstream, as its own hub gives them.

    The first state is taken for the input of the first layer, as in the upstreams of the
    HuBERT family. Utterances run one by one: most upstreams let an utterance see the padding
    of its batch. A frame or two more than the student has are cut off at the end; one or two
    fewer are made up by repeating the last, as s3prl itself does; more is an error. No
    attention maps.

    Args:
        name: ``s3prl:`` and a name of s3prl's hub, e.g. ``s3prl:hubert_base``, with its
            weights after another colon where it needs some:
            ``s3prl:hubert_custom:my.pt``. With ``kind: s3prl`` the prefix may go.
        ckpt: File or address of the weights, instead of the second colon. s3prl loads it; a
            file that holds more than tensors and plain values is refused.
        pre_norm: Whether layers do not end in a LayerNorm. None looks into the upstream and,
            where nothing tells, takes them for pre-norm, whose ``target_norm`` suits both.

    Raises:
        StarError: If s3prl is not installed, has no such upstream or cannot load it, or the
            upstream does not give several states of one width, 50 a second.
    """

    reads = "`s3prl:NAME`, an upstream of s3prl"

    def __init__(self, name: str, ckpt: str | None = None, pre_norm: bool | None = None) -> None:
        super().__init__()
        self.name = name
        upstream, _, weights = name.removeprefix(PREFIX).partition(":")
        if weights and ckpt not in {None, weights}:
            raise StarError(f"teacher {name!r} and ckpt={ckpt} name two files; give one of them")
        ckpt = ckpt or weights or None
        if ckpt is not None and "://" not in ckpt and Path(ckpt).is_file():
            check_harmless(Path(ckpt), f"teacher {name!r}: {ckpt}", is_model=True)
        self.wrapper = _load(name, upstream, ckpt)
        rates, widths = self.wrapper.downsample_rates, self.wrapper.hidden_sizes
        if set(rates) != {HOP}:
            raise StarError(
                f"teacher {name!r} has a hop of {some_of(rates)} samples, the student {HOP} (50 "
                "frames/s); choose another upstream"
            )
        if len(set(widths)) != 1 or len(widths) < 2:
            raise StarError(
                f"teacher {name!r} must give the states of several layers, all of one width, got "
                f"{len(widths)} of width {some_of(widths)}; choose another upstream"
            )
        if pre_norm is None:
            pre_norm = _pre_norm(name, self.wrapper)
        self.shape = Shape(len(widths) - 1, widths[0], pre_norm=pre_norm)
        self.freeze()
        self._states(torch.zeros(4000), torch.tensor(4000))

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Teacher.chosen`."""
        return {"pre_norm": self.shape.pre_norm}

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`.

        Raises:
            StarError: If an utterance's frames are too far from the student's.
        """
        rows = [
            self._states(speech[row, :size].float(), lengths[row]) for row, size in enumerate(sizes)
        ]
        size = self.shape.frames_of(speech.shape[1])
        return LayerOutputs(stack(rows, size), self.shape.frames(lengths))

    def _states(self, speech: torch.Tensor, length: torch.Tensor) -> list[torch.Tensor]:
        """States ``(1, N, D)`` of one waveform ``(T,)``."""
        frames = int(self.shape.frames(length))
        with torch.no_grad(), torch.autocast(speech.device.type, enabled=False):
            found = self.wrapper.upstream([speech])["hidden_states"]
        return [self._fit(state.float(), frames) for state in found]

    def _fit(self, state: torch.Tensor, frames: int) -> torch.Tensor:
        extra = state.shape[1] - frames
        if abs(extra) > MAX_EXTRA or state.shape[1] == 0:
            raise StarError(
                f"teacher {self.name!r} gives {state.shape[1]} frames where the student has "
                f"{frames}; at most {MAX_EXTRA} may be cut off or made up, choose another upstream"
            )
        if extra >= 0:
            return state[:, :frames]
        return torch.cat([state, state[:, -1:].expand(-1, -extra, -1)], dim=1)


def some_of(values: list[int]) -> str:
    """Distinct values of a list, in order."""
    return ", ".join(str(value) for value in dict.fromkeys(values))


def _load(name: str, upstream: str, ckpt: str | None) -> Any:
    try:
        from s3prl import hub
        from s3prl.nn import S3PRLUpstream
    except ImportError as error:
        raise StarError(
            f"teacher {name!r} needs s3prl ({first_line(error)}): pip install espnet_star[s3prl]"
        ) from error
    if upstream not in hub.options():
        raise unknown_name("upstream of s3prl", upstream, hub.options())
    try:
        return S3PRLUpstream(upstream, path_or_url=ckpt)
    except Exception as error:  # of whatever the upstream is made of
        what = first_line(error) if str(error) else f"{type(error).__name__} in s3prl"
        hint = "check ckpt" if ckpt else "check the network; names ending in _custom need ckpt"
        raise StarError(f"teacher {name!r}: s3prl cannot load it ({what}); {hint}") from error


def _pre_norm(name: str, model: torch.nn.Module) -> bool:
    """What the upstream's own modules or configurations say of their layers."""
    for module in model.modules():
        for holder in (module, getattr(module, "config", None)):
            for key in _PRE_NORM:
                value = getattr(holder, key, None)
                if isinstance(value, bool):
                    return value
    logger.warning(
        "teacher %r: s3prl does not tell whether its layers end in a LayerNorm; taken for pre-norm "
        "(set the teacher's pre_norm to choose)",
        name,
    )
    return True
