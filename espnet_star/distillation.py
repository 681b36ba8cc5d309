"""The ESPnet model that trains a student against a teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel

from espnet_star.bfloat16 import agree, find_fault, finite, low_on_cpu, plain_tensors
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses import WeightedLoss, resolve_layer_map
from espnet_star.outputs import LayerOutputs
from espnet_star.state_cache import StateCache, weights_fingerprint
from espnet_star.students import StarEncoder
from espnet_star.teachers.abs_teacher import AbsTeacher

CPU_DTYPES = ("float32", "bfloat16", "auto")


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, so that it is worth using."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class StarDistillation(AbsESPnetModel):
    """Teacher, student and objectives: ``speech -> (loss, stats, weight)``.

    The teacher moves with the model but is none of its submodules: it is absent from
    checkpoints, optimisers and gradient exchange.

    Args:
        encoder: The student.
        teacher: The frozen model to follow.
        losses: Objectives and their weights; the loss is their weighted sum.
        cache_dir: Keep the teacher's states there between epochs; for small corpora.
        cpu_dtype: The student's matrix products and convolutions on a CPU: ``float32``,
            ``bfloat16``, or ``auto`` for bfloat16 where the processor has instructions
            for it. Weights, objectives and optimiser stay in float32. On GPUs ESPnet's
            ``--use_amp`` decides.

    bfloat16 on a CPU, the teacher's as well, is held against float32 on the first batch; where
    that shows more than rounding, the run says so and goes on in float32, on all ranks.
    """

    def __init__(
        self,
        encoder: StarEncoder,
        teacher: AbsTeacher,
        losses: Sequence[WeightedLoss],
        cache_dir: str | None = None,
        cpu_dtype: str = "float32",
    ):
        super().__init__()
        if cpu_dtype not in CPU_DTYPES:
            raise unknown_name("cpu_dtype", str(cpu_dtype), CPU_DTYPES)
        if cpu_dtype == "auto":
            cpu_dtype = "bfloat16" if cpu_has_bfloat16() else "float32"
        self.cpu_dtype = getattr(torch, cpu_dtype)
        self.encoder = encoder
        self.losses = list(losses)
        self.loss_modules = torch.nn.ModuleList(entry.loss for entry in losses)
        self.needs_attentions = any(entry.loss.needs_attentions for entry in losses)
        if self.needs_attentions:
            teacher.check_attentions()
        # Straight into __dict__, past torch's registration of submodules.
        self.__dict__["teacher"] = teacher
        for entry in losses:
            layer_map = getattr(entry.loss, "layer_map", None)
            resolve_layer_map(encoder.num_layers, teacher.num_layers, layer_map)
        if cache_dir and self.needs_attentions:
            raise StarError(
                "cache_dir keeps hidden states only, but a loss needs attention maps; "
                "remove cache_dir or the loss attention_map"
            )
        self.cache_dir = cache_dir
        self.cache: StateCache | None = None
        self.bfloat16_is_wrong = False
        self._tried = False

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> StarDistillation:
        """Move the teacher wherever the model is moved."""
        self.teacher._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Distillation loss of a batch.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``.
            speech_lengths: Samples of each, ``(B,)``.

        Returns:
            Loss averaged over utterances, one statistic a term, and the batch size.
        """
        speech = speech[:, : int(speech_lengths.max())]
        self._settle(speech, speech_lengths)
        targets = self._targets(speech, speech_lengths)
        with self._student_precision(speech.device):
            outputs = self.encoder.layer_outputs(speech, speech_lengths, self.needs_attentions)
        total = speech.new_zeros((), dtype=torch.float32)
        stats: dict[str, torch.Tensor] = {}
        for entry in self.losses:
            value, terms = entry.loss(outputs, targets)
            total = total + entry.weight * value
            stats |= terms
        stats["loss"] = total.detach()
        return force_gatherable((total, stats, speech.shape[0]), total.device)

    def _settle(self, speech: torch.Tensor, lengths: torch.Tensor) -> None:
        """What only the first batch can tell: whether bfloat16 is right on this CPU."""
        if self._tried:
            return
        self._place_teacher(speech)
        self.teacher.settle(speech, lengths, self.needs_attentions, agree)
        if self.cache_dir:
            # Not before: what is kept is named after the weights that the teacher works with.
            checked = "" if self.teacher.dtype == torch.float32 else "bfloat16, checked"
            fingerprint = weights_fingerprint(self.teacher, repr(self.teacher) + checked)
            self.cache = StateCache(self.cache_dir, fingerprint)
            logging.info("Teacher states are kept in %s", self.cache.directory)
        dtype = self._low_dtype(speech.device)
        if dtype is not None:
            with plain_tensors():
                self._settle_student(speech.clone(), lengths.clone(), dtype)
        self._tried = True

    def _settle_student(
        self, speech: torch.Tensor, lengths: torch.Tensor, dtype: torch.dtype
    ) -> None:
        def run(dtype: torch.dtype) -> LayerOutputs:
            with low_on_cpu(dtype):
                return self.encoder.layer_outputs(trial, lengths, self.needs_attentions)

        trial, training = finite(speech), self.encoder.training
        self.encoder.eval()  # dropout would differ, and move on the random numbers
        try:
            fault = find_fault(
                self.encoder, lambda: run(torch.float32), lambda: run(dtype), gradients=True
            )
        finally:
            self.encoder.train(training)
        fault = agree(fault)
        if fault is not None:
            self.bfloat16_is_wrong = True
            logging.warning(fault.message("Student"))

    def _low_dtype(self, device: torch.device) -> torch.dtype | None:
        """Type of the student's products on a CPU, None for float32 and on GPUs."""
        if device.type != "cpu" or self.bfloat16_is_wrong:
            return None
        if self.cpu_dtype != torch.float32:
            return self.cpu_dtype
        # Under ESPnet3, Lightning's precision decides.
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

    def _student_precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if device.type != "cpu":
            return nullcontext()
        dtype = self._low_dtype(device)
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

    @torch.no_grad()
    def _targets(self, speech: torch.Tensor, lengths: torch.Tensor) -> LayerOutputs:
        self._place_teacher(speech)
        if self.cache is not None:
            return self.cache(self.teacher, speech, lengths)
        return self.teacher(speech, lengths, attentions=self.needs_attentions)

    def _place_teacher(self, speech: torch.Tensor) -> None:
        if next(self.teacher.parameters(), speech).device != speech.device:
            # FSDP moves parameters one by one, past _apply.
            self.teacher.to(speech.device)

    def collect_feats(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Nothing to collect: lengths come from ``utt2num_samples``."""
        return {"feats": speech, "feats_lengths": speech_lengths}
