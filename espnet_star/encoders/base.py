"""The one interface of student, teacher, ONNX file, frozen and cached encoder."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from espnet_star.encoders.bfloat16 import Agree, alone
from espnet_star.encoders.inner import kind_and_layer
from espnet_star.encoders.too_short import TooShort
from espnet_star.errors import StarError
from espnet_star.outputs import HOP, RECEPTIVE_FIELD, SAMPLE_RATE, LayerOutputs, frame_count


@dataclass(frozen=True)
class Shape:
    """What an encoder's states look like, known before it has run.

    Attributes:
        layers: Transformer layers L; there are L + 1 states.
        width: Width D of every state.
        heads: Attention heads of a layer; None where there are no attention maps.
        hop: Samples at 16 kHz from a frame to the next.
        field: Samples that a frame sees; the fewest of an utterance.
        pre_norm: Whether layers do not end in a LayerNorm, so that the states are an
            unnormalized residual stream.
    """

    layers: int
    width: int
    heads: int | None = None
    hop: int = HOP
    field: int = RECEPTIVE_FIELD
    pre_norm: bool = False

    @classmethod
    def of(cls, outputs: LayerOutputs) -> Shape:
        """Shape of what is at hand, all its layers, at 50 frames a second."""
        heads = None if outputs.attentions is None else outputs.attentions[0].shape[1]
        return cls(outputs.num_layers, outputs.hidden_states[0].shape[2], heads)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames of waveforms of so many samples, same shape; see :func:`frame_count`."""
        return frame_count(samples, self.hop, self.field)

    def frames_of(self, samples: int) -> int:
        """The same of one number."""
        return int(self.frames(torch.tensor(samples)))

    @property
    def rate(self) -> float:
        """Frames a second."""
        return SAMPLE_RATE / self.hop


def hop_and_field(kernels: Iterable[int], strides: Iterable[int]) -> tuple[int, int]:
    """Hop and receptive field, in samples, of convolutions one after another."""
    hop, field = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
    return hop, field


@dataclass(frozen=True)
class Want:
    """What is asked of an encoder, so that it computes and keeps no more.

    Attributes:
        states: Indices of the states, 0 to L; None for all.
        attentions: Whether attention maps are wanted, at the price of the fast kernels.
        mask: ``(B, N)``, true on frames that a mask vector replaces before the first layer;
            None for none.
        inner: Names of states inside the encoder, see :mod:`espnet_star.encoders.inner`.
    """

    states: frozenset[int] | None = None
    attentions: bool = False
    mask: torch.Tensor | None = None
    inner: frozenset[str] = frozenset()

    def __or__(self, other: Want) -> Want:
        """What two objectives want of the same pass."""
        every = self.states is None or other.states is None
        states = None if every else frozenset({*(self.states or ()), *(other.states or ())})
        maps, inner = self.attentions or other.attentions, self.inner | other.inner
        return Want(states, maps, inner=inner)


ALL_STATES = Want()


class Encoder(torch.nn.Module, ABC):
    """Waveforms at 16 kHz to the hidden states of every layer.

    Attributes:
        role: What messages call it.
        trainable: Whether it may be trained, and is then saved with whatever holds it. All
            others run without gradient.
        masks: Whether it has a vector for masked frames.
        inner: Kinds of states inside it that it can give, see
            :mod:`espnet_star.encoders.inner`.
        name: Directory, hub name or file that the weights came from.
        shape: What its states look like.
        conf: Its ``kind`` and options, those found out by itself included, for ``config.yaml``.
    """

    role: ClassVar[str] = "encoder"
    trainable: bool = False
    masks: bool = False
    inner: tuple[str, ...] = ()
    name: str = ""
    shape: Shape
    conf: dict[str, Any]

    @abstractmethod
    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """States of a batch that has been checked; called without gradient unless trainable.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``; what stands past a length is ignored.
            lengths: Samples of each waveform, ``(B,)``.
            sizes: The same as numbers, for which a GPU has been waited for once.
            want: What is needed at least.

        Returns:
            All states, with ``shape.frames(lengths)`` valid frames each: the same alone and
            in any padded batch; of the inner ones those that are wanted.
        """

    def extract_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """:meth:`extract` for several masks; an encoder may share what comes before them.

        Args:
            speech: See :meth:`extract`.
            lengths: See :meth:`extract`.
            sizes: See :meth:`extract`.
            wants: What is needed, one run for each.
        """
        return [self.extract(speech, lengths, sizes, want) for want in wants]

    def encode(
        self, speech: torch.Tensor, lengths: torch.Tensor, want: Want = ALL_STATES
    ) -> LayerOutputs:
        """Hidden states of a batch.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``; what stands past a length is ignored.
            lengths: Samples of each waveform, ``(B,)``.
            want: Which states, and whether attention maps.

        Raises:
            StarError: If an utterance is shorter than one frame or longer than T, or the
                encoder has not what is wanted.
        """
        return self.encode_all(speech, lengths, [want])[0]

    def encode_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """:meth:`encode` for several masks at once.

        Args:
            speech: See :meth:`encode`.
            lengths: See :meth:`encode`.
            wants: What is needed, one run for each.

        Raises:
            StarError: See :meth:`encode`; also if a mask has not the batch's frames.
        """
        for want in wants:
            self.check(want)
        sizes = self._check_batch(speech, lengths)
        for want in wants:
            if want.mask is not None:
                self._check_mask(want.mask, speech)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable):
            self.calibrate(speech, lengths, wants[0])
            found = self.extract_all(speech, lengths, sizes, wants)
        return [one.only(want.states) for one, want in zip(found, wants, strict=True)]

    def check(self, want: Want) -> None:
        """Refuse what this encoder has not, before anything is computed.

        Raises:
            StarError: Naming what is missing.
        """
        if want.attentions and self.shape.heads is None:
            raise StarError(
                f"{self.label} has no attention maps; remove the loss that compares them"
            )
        if want.mask is not None and not self.masks:
            raise StarError(
                f"{self.label} has no vector for masked frames; choose a view without masks"
            )
        inner = sorted(map(kind_and_layer, want.inner))
        for kind, _ in inner:
            if kind not in self.inner:
                raise StarError(
                    f"{self.label} gives no {kind} (it gives its states 0 to {self.shape.layers}"
                    f"{''.join(f', {known}' for known in self.inner)}); compare one of these"
                )
        beyond = max([*(want.states or ()), *(layer for _, layer in inner)], default=0)
        if beyond > self.shape.layers:
            raise StarError(
                f"{self.label} has layers 1 to {self.shape.layers}, asked for was {beyond}"
            )

    def _check_batch(self, speech: torch.Tensor, lengths: torch.Tensor) -> list[int]:
        """Refuse a batch that holds an utterance without a single frame.

        Returns:
            The lengths as numbers.
        """
        if speech.dim() != 2 or lengths.shape != speech.shape[:1]:
            raise StarError(
                f"{self.label}: speech must have shape (B, T) and lengths (B,), got "
                f"{tuple(speech.shape)} and {tuple(lengths.shape)}"
            )
        sizes: list[int] = lengths.tolist()
        shortest, longest, field = min(sizes), max(sizes), self.shape.field
        if shortest < field or longest > speech.shape[1]:
            # The message is for both; only the first is an utterance's own fault.
            kind = TooShort if shortest < field else StarError
            raise kind(
                f"{self.label}: lengths must lie between {field} (one frame) and T = "
                f"{speech.shape[1]} samples, got {shortest} to {longest}; drop shorter utterances"
            )
        return sizes

    def _check_mask(self, mask: torch.Tensor, speech: torch.Tensor) -> None:
        expected = (len(speech), self.shape.frames_of(speech.shape[1]))
        if mask.shape != expected:
            raise StarError(
                f"{self.label}: a mask must have shape {expected} (utterances, frames), got "
                f"{tuple(mask.shape)}"
            )

    def calibrate(
        self,
        speech: torch.Tensor,
        lengths: torch.Tensor,
        want: Want = ALL_STATES,
        agreed: Agree = alone,
    ) -> None:
        """Decide by the first batch what only a batch can tell; nothing by default.

        Args:
            speech: See :meth:`encode`.
            lengths: See :meth:`encode`.
            want: See :meth:`encode`.
            agreed: Makes the decision of all ranks out of that of this one.
        """

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """What the encoder hands on, from its last state ``(B, N, D)``."""
        return last

    def prepare(self) -> Self:
        """Lay the weights out for fast inference on this CPU; the encoder itself."""
        return self

    def fingerprint(self) -> str:
        """Short name for its exact weights, so that nothing kept outlives them."""
        return weights_fingerprint(self, repr(self))

    @property
    def label(self) -> str:
        """What messages call it, e.g. ``teacher 'exp/hubert'``."""
        return f"{self.role} {self.name!r}" if self.name else self.role


def weights_fingerprint(module: torch.nn.Module, extra: str = "") -> str:
    """Digest of every parameter and buffer, and of what else tells encoders apart."""
    digest = hashlib.blake2b(extra.encode(), digest_size=8)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
