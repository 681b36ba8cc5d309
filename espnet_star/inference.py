"""A trained student at work: waveforms or audio files to hidden states, in a few lines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from espnet_star import catalog
from espnet_star.data.waveforms import Audio, waveform
from espnet_star.encoders import Encoder
from espnet_star.encoders.bfloat16 import CastWeights, find_fault, plain_tensors
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE, LayerOutputs

Layer: TypeAlias = int | str
ALL, LAST = "all", "last"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Features:
    """Hidden states of some utterances, in the order in which they were given.

    Attributes:
        hidden_states: One tensor ``(B, N, D)`` for each layer asked for, zero past an
            utterance's end. Of all, index 0 is the input of the first Transformer layer
            and index ``l`` the output of layer ``l``.
        lengths: Frames of each utterance, ``(B,)``, at 50 frames per second.
        final: What :attr:`last` gives; None where the last layer was not asked for.
    """

    hidden_states: tuple[torch.Tensor, ...]
    lengths: torch.Tensor
    final: torch.Tensor | None

    @property
    def last(self) -> torch.Tensor:
        """Output of the last layer, ``(B, N, D)``.

        Of pre-norm layers it has passed the final LayerNorm, as transformers'
        ``last_hidden_state`` has.

        Raises:
            StarError: If another layer was asked for, which ``hidden_states`` holds.
        """
        if self.final is None:
            raise StarError("the last layer was not asked for; hidden_states holds what was")
        return self.final

    def utterance(self, index: int) -> tuple[torch.Tensor, ...]:
        """Hidden states ``(N_i, D)`` of one utterance, without padding."""
        frames = int(self.lengths[index])
        return tuple(state[index, :frames] for state in self.hidden_states)


class Speech2Features:
    """A student in eval mode that takes waveforms, lists of them, or audio files.

    Args:
        encoder: The student, or any other encoder.
        device: Where it runs: ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: Type that it computes in: float32, bfloat16 or float16. On a CPU the first
            batch decides whether the other two are right there; if not, the log says so and
            float32 does the work. Features are of this type either way.

    Raises:
        StarError: If the device is not there or the type is another one.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ):
        self.device = _device(device)
        self.dtype = _dtype(dtype)
        self.encoder = encoder.to(device=self.device, dtype=torch.float32).eval()
        self.computed = torch.float32
        # Others see to it themselves, in `Encoder.calibrate`.
        self.calibrated = self.dtype == torch.float32 or not encoder.trainable
        self._prepare()

    @property
    def num_layers(self) -> int:
        """Transformer layers L; there are L + 1 hidden states."""
        return self.encoder.shape.layers

    def output_size(self) -> int:
        """Width D of every hidden state."""
        return self.encoder.shape.width

    @torch.no_grad()  # not inference_mode: a head may be trained on what comes out
    def __call__(
        self,
        audio: Audio | Iterable[Audio],
        sampling_rate: int | None = None,
        layer: Layer = ALL,
        batch_seconds: float | None = None,
    ) -> Features:
        """Hidden states of one or several utterances.

        An utterance has the same features whatever it is given with.

        Args:
            audio: A waveform ``(T,)`` (NumPy or torch, floating point or int16), a path to an
                audio file of any rate and number of channels, or several of either: a list,
                a tuple, a generator.
            sampling_rate: That of waveforms in Hz, 16000 by default. Files bring their own.
            layer: ``"all"``, ``"last"``, or an index: 0 is the input of the first layer, L or
                -1 the last output.
            batch_seconds: Most audio to encode at once, with its padding, to limit memory;
                all of it by default. An utterance that is longer goes alone.

        Returns:
            The features, on the student's device and in its type.

        Raises:
            StarError: Naming the utterance that is empty, shorter than one frame (25 ms), not
                finite, missing or no audio; or the option that is out of range.
        """
        layers = _layers(layer, self.num_layers)
        limit = _limit(batch_seconds)
        waves = [waveform(item, sampling_rate, name) for name, item in _items(audio)]
        if not waves:
            raise StarError("no audio was given; expected at least one waveform or path")
        lengths = torch.tensor([len(wave) for wave in waves])
        frames = self.encoder.shape.frames(lengths)
        shape = (len(waves), int(frames.max()), self.output_size())
        states = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in layers]
        normalize = layers[-1] == self.num_layers and self.encoder.shape.pre_norm
        last = torch.zeros_like(states[-1]) if normalize else states[-1]
        for batch in _batches(lengths.tolist(), limit):
            speech = torch.nn.utils.rnn.pad_sequence([waves[i] for i in batch], batch_first=True)
            speech = speech.to(device=self.device)
            if not self.calibrated:
                with plain_tensors():
                    self._calibrate(speech.clone(), lengths[batch].to(self.device))
            speech = speech.to(self.computed)
            outputs = self.encoder.encode(speech, lengths[batch].to(self.device))
            chosen = [outputs.hidden_states[index] for index in layers]
            for row, index in enumerate(batch):
                n = int(frames[index])
                for state, values in zip(states, chosen, strict=True):
                    state[index, :n] = values[row, :n]
                if normalize:
                    last[index, :n] = self.encoder.output(chosen[-1][row, :n])
        final = last if layers[-1] == self.num_layers else None
        return Features(tuple(states), frames.to(self.device), final)

    def stream(
        self,
        audio: Iterable[Audio],
        sampling_rate: int | None = None,
        layer: Layer = ALL,
        batch_seconds: float = 60.0,
    ) -> Iterator[Features]:
        """Hidden states of a corpus, an utterance after the other, in constant memory.

        Args:
            audio: Paths or waveforms, read as they are needed.
            sampling_rate: That of waveforms in Hz, 16000 by default.
            layer: As in :meth:`__call__`.
            batch_seconds: Audio to encode at once, with its padding.

        Yields:
            The features of one utterance, in the order of ``audio``; the batch's axis stays.

        Raises:
            StarError: As :meth:`__call__`; for an option before anything is read.

        Example:
            >>> for path, features in zip(paths, encode.stream(paths, layer="last")):
            ...     numpy.save(f"{path}.npy", features.last[0])
        """
        _layers(layer, self.num_layers)
        return self._stream(_items(audio), sampling_rate, layer, _limit(batch_seconds))

    def _stream(
        self,
        items: Iterator[tuple[str, Audio]],
        sampling_rate: int | None,
        layer: Layer,
        limit: float,
    ) -> Iterator[Features]:
        waves: list[torch.Tensor] = []
        for name, item in items:
            wave = waveform(item, sampling_rate, name)
            longest = max(map(len, [*waves, wave]))
            if waves and (len(waves) + 1) * longest > limit:
                yield from self._one_by_one(waves, layer)
                waves = []
            waves.append(wave)
        if waves:
            yield from self._one_by_one(waves, layer)

    def _one_by_one(self, waves: Sequence[torch.Tensor], layer: Layer) -> Iterator[Features]:
        features = self(waves, layer=layer)
        for row, frames in enumerate(features.lengths.tolist()):
            part = slice(row, row + 1)
            final = None if features.final is None else features.final[part, :frames]
            states = tuple(state[part, :frames] for state in features.hidden_states)
            yield Features(states, features.lengths[part], final)

    def _calibrate(self, speech: torch.Tensor, lengths: torch.Tensor) -> None:
        """Take up the type asked for; on a CPU only if the first batch shows that it is right."""

        def run(dtype: torch.dtype) -> LayerOutputs:
            return self.encoder.encode(speech.to(dtype), lengths)

        exact = run(torch.float32) if self.device.type == "cpu" else None
        cast = CastWeights(self.encoder.modules(), self.dtype)
        self.computed = self.dtype
        if exact is not None:
            fault = find_fault(self.encoder, lambda: exact, lambda: run(self.dtype))
            if fault is not None:
                cast.undo()
                self.computed = torch.float32
                logging.warning(fault.message("Student", self.dtype))
        self.calibrated = True
        self._prepare()

    def _prepare(self) -> None:
        if self.calibrated and self.computed == torch.float32 and self.device.type == "cpu":
            self.encoder.prepare()


def load(
    name_or_directory: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    kind: str = "auto",
) -> Speech2Features:
    """Load a student, an ONNX file of one or a teacher to extract features with.

    Args:
        name_or_directory: Hugging Face directory, hub name, the folder of a distillation, a file
            of ``star_export onnx``, or any teacher.
        device: Where it runs; ONNX files on the CPU.
        dtype: Type that a student computes in: ``float32``, ``bfloat16`` or ``float16``; a
            teacher has its own rules, and an ONNX file its own type.
        kind: What it is, see :mod:`espnet_star.catalog`; ``"student"`` takes any HuBERT for one.

    Returns:
        A callable from waveforms or files to :class:`Features`.

    Raises:
        StarError: If there is no such encoder, or device or type cannot be used.

    Example:
        >>> encode = espnet_star.load("student")
        >>> features = encode(["first.wav", "second.flac"])
        >>> features.last.shape, features.lengths
    """
    conf = {} if _dtype(dtype) == torch.float32 else {"dtype": _name(_dtype(dtype))}
    return Speech2Features(catalog.load(str(name_or_directory), kind, **conf), device, dtype)


def _items(audio: Audio | Iterable[Audio]) -> Iterator[tuple[str, Audio]]:
    """Utterances with a name each for messages."""
    if isinstance(audio, str | Path | np.ndarray | torch.Tensor):
        yield (str(audio) if isinstance(audio, str | Path) else "the waveform"), audio
        return
    if not isinstance(audio, Iterable) or isinstance(audio, bytes | dict):
        raise StarError(
            f"audio must be a waveform, a path, or several of them, got {type(audio).__name__}"
        )
    for index, item in enumerate(audio):
        yield (str(item) if isinstance(item, str | Path) else f"waveform {index}"), item


def _layers(layer: Layer, num_layers: int) -> Sequence[int]:
    """Indices of the hidden states asked for, counted from 0."""
    if layer == ALL:
        return range(num_layers + 1)
    index = num_layers if layer == LAST else layer
    whole = isinstance(index, int | np.integer) and not isinstance(index, bool)
    if not whole or not -num_layers - 1 <= int(index) <= num_layers:
        raise StarError(
            f"layer must be 'all', 'last', 0 to {num_layers} or -1 for the last, got {layer!r}"
        )
    return [int(index) % (num_layers + 1)]


def _limit(batch_seconds: float | None) -> float:
    """Samples of a batch."""
    if batch_seconds is None:
        return float("inf")
    if isinstance(batch_seconds, bool) or not isinstance(batch_seconds, int | float):
        raise StarError(f"batch_seconds must be a number, got {type(batch_seconds).__name__}")
    if not batch_seconds > 0:
        raise StarError(f"batch_seconds must be above 0, got {batch_seconds}")
    return batch_seconds * SAMPLE_RATE


def _batches(lengths: Sequence[int], limit: float) -> Iterator[list[int]]:
    """Indices of utterances of similar lengths, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > limit:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StarError(f"device {name} cannot be used ({reason}); try 'cpu'") from error
    return device


def _dtype(name: str | torch.dtype) -> torch.dtype:
    known = {_name(dtype): dtype for dtype in _DTYPES}
    dtype = known.get(name) if isinstance(name, str) else name
    if dtype not in _DTYPES:
        raise StarError(f"dtype must be one of {', '.join(known)}, got {name}")
    return dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
