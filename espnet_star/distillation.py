"""The ESPnet model that trains a student against a teacher."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel

from espnet_star.encoders import Cached, Encoder, Frozen, Want
from espnet_star.encoders.bfloat16 import agree, find_fault, finite, low_on_cpu, plain_tensors
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses import WeightedLoss, build_losses
from espnet_star.outputs import LayerOutputs
from espnet_star.students import Student
from espnet_star.views import VIEWS, Pass

CPU_DTYPES = ("float32", "bfloat16", "auto")


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, so that it is worth using."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class StarDistillation(AbsESPnetModel):
    """Teacher, student and objectives: ``speech -> (loss, stats, weight)``.

    The teacher moves with the model but is absent from checkpoints, optimizers and gradient
    exchange.

    Args:
        encoder: The student.
        teacher: The frozen model to follow.
        losses: Objectives and their weights, ``{name, weight, conf}`` each; the loss is their
            weighted sum.
        view: What is fed to whom, a name of ``VIEWS`` or ``package.module:Class``.
        view_conf: Options of the view.
        cache_dir: Keep the teacher's states there between epochs; for small corpora.
        cpu_dtype: The student's matrix products and convolutions on a CPU: ``float32``,
            ``bfloat16``, or ``auto`` for bfloat16 where the processor has instructions
            for it. Weights, objectives and optimizer stay in float32. On GPUs ESPnet's
            ``--use_amp`` decides.

    bfloat16 on a CPU, the teacher's as well, is held against float32 on the first batch; where
    that shows more than rounding, the run says so and goes on in float32, on all ranks.
    """

    def __init__(
        self,
        encoder: Student,
        teacher: Encoder,
        losses: Sequence[Mapping[str, Any]],
        view: str = "plain",
        view_conf: Mapping[str, Any] | None = None,
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
        self.losses = build_losses(losses, encoder.shape, teacher.shape)
        self.objectives = torch.nn.ModuleList(entry.loss for entry in self.losses)
        self.wants = wants_of(self.losses)
        self.teacher = Frozen(teacher)
        self.target: Encoder = Cached(self.teacher, cache_dir) if cache_dir else self.teacher
        self.view = VIEWS.build(view, view_conf, encoder.shape, teacher.shape)
        self._check_passes(view)
        self.bfloat16_is_wrong = False
        self._tried = False

    def _check_passes(self, view: str) -> None:
        """Refuse objectives that ask for what the view or an encoder has not."""
        for entry in self.losses:
            for name in entry.loss.inputs:
                if name not in self.view.passes:
                    raise StarError(
                        f"loss {entry.entry['name']} compares {' and '.join(entry.loss.inputs)}, "
                        f"view {view} gives {' and '.join(self.view.passes)}; choose another view"
                    )
        for name, want in self.wants.items():
            mask = torch.ones(1, 1) if name in self.view.masked else None
            self._encoder(name).check(replace(want, mask=mask))

    def _encoder(self, name: str) -> Encoder:
        """Whose pass it is."""
        return self.encoder if self.view.passes[name] == "student" else self.target

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Distillation loss of a batch.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``.
            speech_lengths: Samples of each, ``(B,)``.
            **batch: What else the view reads.

        Returns:
            Loss averaged over utterances, one statistic a term, and the batch size.
        """
        speech = speech[:, : int(speech_lengths.max())]
        passes = self.view(speech, speech_lengths, **batch)
        self._calibrate(passes)
        total, stats = self.compute_objectives(self.compute_forward(passes))
        stats["loss"] = total.detach()
        return force_gatherable((total, stats, speech.shape[0]), total.device)

    def compute_forward(self, passes: Mapping[str, Pass]) -> dict[str, LayerOutputs]:
        """Run every pass that an objective compares."""
        outputs = {}
        for names in self._groups(passes):
            first, encoder = passes[names[0]], self._encoder(names[0])
            wants = self._wants_by_mask(names, passes)
            with self._precision(encoder, first.speech.device):
                found = encoder.encode_all(first.speech, first.lengths, list(wants.values()))
            runs = dict(zip(wants, found, strict=True))
            for name in names:
                given = passes[name]
                run = runs[id(given.mask)].only(self.wants[name].states)
                outputs[name] = replace(
                    run,
                    masked=given.mask,
                    labels=given.labels,
                    speech=given.speech,
                    samples=given.lengths,
                )
        return outputs

    def _groups(self, passes: Mapping[str, Pass]) -> list[list[str]]:
        """Names of passes that may share work: of the same speech, with no chance in them.

        A student in training draws its dropout anew in every pass.
        """
        groups: dict[Any, list[str]] = {}
        for name, given in passes.items():
            if name in self.wants:
                apart = name if self._encoder(name).trainable else ""
                key = (apart, id(given.speech), id(given.lengths))
                groups.setdefault(key, []).append(name)
        return list(groups.values())

    def _wants_by_mask(self, names: Sequence[str], passes: Mapping[str, Pass]) -> dict[int, Want]:
        """What is wanted of a group, by the mask's identity: one run each."""
        wants: dict[int, Want] = {}
        for name in names:
            mask, want = passes[name].mask, self.wants[name]
            known = wants.get(id(mask))
            wants[id(mask)] = replace(known | want if known else want, mask=mask)
        return wants

    def compute_objectives(
        self, outputs: Mapping[str, LayerOutputs]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted sum of all objectives, and their terms."""
        device = next(iter(outputs.values())).lengths.device
        total, stats = torch.zeros((), device=device), dict[str, torch.Tensor]()
        for entry in self.losses:
            value, terms = entry.loss(*(outputs[name] for name in entry.loss.inputs))
            total = total + entry.weight * value
            stats |= entry.logged(terms)
        return total, stats

    def _calibrate(self, passes: Mapping[str, Pass]) -> None:
        """What only the first batch can tell: whether bfloat16 is right on this CPU."""
        if self._tried:
            return
        for name, given in passes.items():
            if name not in self.wants:
                continue
            encoder, want = self._encoder(name), self.wants[name]
            if encoder is self.target:
                encoder.calibrate(given.speech, given.lengths, want, agree)
            elif (dtype := self._low_dtype(given.speech.device)) is not None:
                with plain_tensors():
                    speech, lengths = given.speech.clone(), given.lengths.clone()
                    self._calibrate_student(speech, lengths, dtype, want)
        self._tried = True

    def _calibrate_student(
        self, speech: torch.Tensor, lengths: torch.Tensor, dtype: torch.dtype, want: Want
    ) -> None:
        def run(dtype: torch.dtype) -> LayerOutputs:
            with low_on_cpu(dtype):
                return self.encoder.encode(trial, lengths, want)

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

    def _precision(self, encoder: Encoder, device: torch.device) -> AbstractContextManager[Any]:
        """The student's on a CPU; a teacher sees to its own."""
        if device.type != "cpu" or encoder is not self.encoder:
            return nullcontext()
        dtype = self._low_dtype(device)
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

    def collect_feats(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Nothing to collect: lengths come from ``utt2num_samples``."""
        return {"feats": speech, "feats_lengths": speech_lengths}


def wants_of(losses: Sequence[WeightedLoss]) -> dict[str, Want]:
    """What all objectives together want of each pass."""
    wants: dict[str, Want] = {}
    for entry in losses:
        for name, want in zip(entry.loss.inputs, entry.loss.wants(), strict=True):
            wants[name] = wants[name] | want if name in wants else want
    return wants
