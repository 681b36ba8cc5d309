"""Utterances with more symbols than CTC has frames for: counted, named, refused if all are.

Such an utterance has no alignment. Its loss is infinite, which ESPnet turns into zero with
its gradient, so that a run over nothing else ends with loss 0 and untouched weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from espnet2.asr.ctc import CTC

from espnet_star.data.errors import some
from espnet_star.errors import StarError

# Batches without a single alignment before a run is refused.
PATIENCE = 50


class CtcAlignment:
    """Watches what CTC is given during one epoch of one of ESPnet's models.

    Works on the real lengths: whatever frontend, encoder and subsampling made of the audio,
    and whatever tokens were made of the text. Models without CTC are left alone.

    Use as a context manager around the epoch, then call :meth:`report`.

    Args:
        model: What ESPnet calls with a batch.
        distributed: Whether other ranks take the same steps.
        training: Whether the epoch trains: where CTC is the whole loss and can align no
            utterance, an error is raised.

    Attributes:
        seen: Utterances that CTC was given.
        lost: Those without an alignment: name to frames and the frames they need.
    """

    def __init__(self, model: torch.nn.Module, distributed: bool, training: bool = True):
        self.model, self.distributed, self.training = model, distributed, training
        # Another loss beside CTC's may still teach something.
        alone = any(
            getattr(part, "ctc_weight", None) == 1.0
            and not getattr(part, "use_transducer_decoder", False)
            for part in model.modules()
        )
        self.refuse = training and alone
        self.seen = 0
        self.lost: dict[str, tuple[int, int]] = {}
        self._batches = 0
        self._aligned = False
        self._names: Sequence[str] = ()
        self._hooks: list[Any] = []

    def __enter__(self) -> CtcAlignment:
        plain = getattr(self.model, "module", self.model)
        modules = [part for part in self.model.modules() if isinstance(part, CTC)]
        hooks = [part.register_forward_pre_hook(self._given, with_kwargs=True) for part in modules]
        if getattr(plain, "use_auxiliary_ctc", False):  # the stand-alone transducer
            hooks.append(plain.encoder.register_forward_hook(self._encoded))
        if hooks:
            hooks.append(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
            hooks.append(self.model.register_forward_hook(self._end))
        self._hooks = hooks
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, _module: Any, _args: Any, batch: dict[str, Any]) -> None:
        self._batch = batch
        self._names = [str(name) for name in batch.get("utt_id") or ()]
        self._fits: list[torch.Tensor] = []

    def _given(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(("hs_pad", "hlens", "ys_pad", "ys_lens"), args, strict=False)) | kwargs
        self._look(named["hlens"], named["ys_pad"], named["ys_lens"])

    def _encoded(self, _module: Any, _args: Any, out: tuple[torch.Tensor, ...]) -> None:
        self._look(out[1], self._batch["text"], self._batch["text_lengths"])

    def _look(self, frames: torch.Tensor, text: torch.Tensor, lengths: torch.Tensor) -> None:
        needed = frames_needed(text, lengths).to(frames.device)
        fits = frames >= needed
        self._fits.append(fits)
        for row in (~fits).nonzero().flatten().tolist():
            known = len(self._names) == len(fits)
            name = self._names[row] if known else f"one of {some(self._names)}"
            self.lost[name] = (int(frames[row]), int(needed[row]))

    def _end(self, *_: Any) -> None:
        if not self._fits:  # weight 0: ESPnet does not ask CTC
            return
        self.seen += len(self._fits[0])
        if self._aligned or not self.refuse:
            return
        some_fit = torch.stack([fits.any() for fits in self._fits]).any().to(torch.int32)
        if self.distributed:
            torch.distributed.all_reduce(some_fit, torch.distributed.ReduceOp.MAX)
        self._aligned = bool(some_fit)
        self._batches += 1
        if not self._aligned and self._batches >= PATIENCE:
            raise self._refusal()

    def report(self) -> None:
        """Say how many there were, of all ranks; every rank has to call it.

        Raises:
            StarError: If none could be aligned, see ``training``.
        """
        if self.distributed:
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, (self.seen, self.lost))
            self.seen = sum(seen for seen, _ in parts)
            self.lost = {name: sizes for _, lost in parts for name, sizes in lost.items()}
        if self.refuse and self.seen and not self._aligned:
            raise self._refusal()
        if self.lost:
            logging.warning(self._message())

    def _refusal(self) -> StarError:
        return StarError(
            f"CTC can align none of the utterances, {self.examples()}: the loss is 0 and nothing "
            "is learned; give CTC more frames (a smaller stack or subsampling in encoder_conf) or "
            "fewer symbols (token_type bpe), and check that text belongs to wav.scp"
        )

    def _message(self) -> str:
        part = "training" if self.training else "validation"
        return (
            f"CTC cannot align {len(self.lost)} of {self.seen} utterances of {part} and learns "
            "nothing from them; their symbols, repeated ones twice, are more than their frames: "
            f"{self.examples()}"
        )

    def examples(self) -> str:
        """First names with their frames and what they need."""
        sizes = self.lost.items()
        return some(f"{name} ({has} frames, {needs} needed)" for name, (has, needs) in sizes)


def frames_needed(text: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Fewest frames that CTC can align a transcript with: one a symbol, one between equals.

    Args:
        text: Symbols ``(B, S)``, anything past the length.
        lengths: Symbols of each, ``(B,)``.

    Returns:
        Frames, ``(B,)``.
    """
    inside = torch.arange(1, text.shape[1], device=text.device)[None] < lengths[:, None]
    return lengths + ((text[:, 1:] == text[:, :-1]) & inside).sum(dim=1)
