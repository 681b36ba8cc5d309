"""The student's convolutions are to tell speech from noise: a mask that cleans its spectrum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from espnet_star.encoders.base import Shape, Want
from espnet_star.encoders.inner import FRONT
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.base import Objective, Stats
from espnet_star.outputs import LayerOutputs, valid_mask

# Size, hop and window of the Fourier transform that is masked, in samples.
SPECTRUM = (512, 160, 400)
# Those whose magnitudes mrstft compares.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
CRITERIA = ("l1", "l2", "mrstft")
# Smallest power whose logarithm is taken.
FLOOR = 1e-7


class EnhancementLoss(Objective):
    r"""A mask over the noisy spectrum from the convolutions' output (RobustDistiller).

    With the magnitudes :math:`|N|` of what the student hears and :math:`|C|` of what the teacher
    hears, ``(257, S)`` at 10 ms, and the output f of the student's convolutions, each frame of it
    repeated for the time that it stands for,

    .. math::
        M = \sigma(W\,\mathrm{BLSTM}(f) + b), \qquad L = \text{mean}\;\bigl|\,M|N| - |C|\,\bigr|,

    the mean over an utterance's own frames, then over utterances. ``l2`` squares the difference.
    ``mrstft`` compares waveforms, :math:`M|N|` with the noisy phase: half spectral convergence and
    half the mean difference of log magnitudes, over three resolutions. The head is trained with
    the student and dropped. Published: weight 2, beside the loss of DistilHuBERT. Needs a view
    whose student hears something else than its teacher, such as ``noisy``.

    Source: Guimaraes et al., RobustDistiller (arXiv 2302.09437).

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        channels: Of the student's last convolution.
        width: Of the LSTM, in each direction.
        layers: Of the LSTM.
        dropout: Between its layers.
        criterion: ``l1``, ``l2`` or ``mrstft``.

    Raises:
        StarError: If an option is unknown, or a frame of the student is no multiple of 10 ms.
    """

    source = "enhancement (arXiv 2302.09437)"
    terms = {"enhancement": "Enhancement"}  # noqa: RUF012

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        channels: int = 512,
        width: int = 256,
        layers: int = 3,
        dropout: float = 0.1,
        criterion: str = "l1",
    ):
        super().__init__(student, teacher)
        if criterion not in CRITERIA:
            raise unknown_name("criterion", str(criterion), CRITERIA)
        self.repeats, rest = divmod(student.hop, SPECTRUM[1])
        if rest:
            raise StarError(
                f"enhancement needs frames of the student that last a multiple of 10 ms, got "
                f"{1000 / student.rate:g} ms"
            )
        self.criterion = criterion
        self.rnn = torch.nn.LSTM(
            channels,
            width,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
        )
        self.linear = torch.nn.Linear(2 * width, SPECTRUM[0] // 2 + 1)

    def wants(self) -> tuple[Want, ...]:
        """The convolutions' output of the student, and any state of the teacher."""
        return Want(frozenset({0}), inner=frozenset({FRONT})), Want(frozenset({0}))

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`."""
        features = student.state(FRONT)
        if features.shape[2] != self.rnn.input_size:
            raise StarError(
                f"enhancement was built for {self.rnn.input_size} channels, the student's "
                f"convolutions have {features.shape[2]}; give conf: {{channels: "
                f"{features.shape[2]}}}"
            )
        assert student.speech is not None and student.samples is not None
        assert teacher.speech is not None
        # LSTM, spectra and logarithms in float32 whatever the student's step runs in.
        with torch.autocast(features.device.type, enabled=False):
            sizes = student.samples.tolist()
            masks = self.masks(features.float(), student.lengths, sizes)
            value = torch.stack(
                [
                    self._distance(mask[: frames_of(size)].T, noisy[:size], clean[:size])
                    for mask, noisy, clean, size in zip(
                        masks, student.speech.float(), teacher.speech.float(), sizes, strict=True
                    )
                ]
            ).mean()
        return value, {"enhancement": value.detach()}

    def masks(
        self, features: torch.Tensor, lengths: torch.Tensor, sizes: list[int]
    ) -> torch.Tensor:
        """Masks ``(B, S, 257)`` of a batch, S being the most frames of a spectrum.

        Args:
            features: The convolutions' output, ``(B, N, C)``.
            lengths: Valid frames of each utterance, ``(B,)``.
            sizes: Samples of each.
        """
        frames = [frames_of(size) for size in sizes]
        valid = valid_mask(lengths, features.shape[1])[..., None]
        repeated = torch.where(valid, features, 0.0).repeat_interleave(self.repeats, dim=1)
        fitted = F.pad(repeated, (0, 0, 0, max(max(frames) - repeated.shape[1], 0)))
        packed = pack_padded_sequence(
            fitted[:, : max(frames)], torch.tensor(frames), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        masks: torch.Tensor = self.linear(hidden).sigmoid()
        return masks

    def _distance(
        self, mask: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor
    ) -> torch.Tensor:
        """Of an utterance ``(T,)`` under its mask ``(257, S)``."""
        heard = spectrum(noisy, *SPECTRUM)
        if self.criterion == "mrstft":
            return resolutions_apart(rebuilt(mask, heard, len(noisy)), clean)
        gap = mask * heard.abs() - spectrum(clean, *SPECTRUM).abs()
        return gap.abs().mean() if self.criterion == "l1" else gap.square().mean()


def frames_of(samples: int) -> int:
    """Frames of the spectrum of so many samples."""
    return samples // SPECTRUM[1] + 1


def spectrum(x: torch.Tensor, size: int, hop: int, window: int) -> torch.Tensor:
    """Short-time Fourier transform, Hann window, frames centered: ``(..., size / 2 + 1, S)``."""
    shape = torch.hann_window(window, device=x.device)
    # Reflected ends as published; a waveform too short for that is continued by zeros.
    mode = "reflect" if x.shape[-1] > size // 2 else "constant"
    out: torch.Tensor = torch.stft(
        x, size, hop, window, window=shape, pad_mode=mode, return_complex=True
    )
    return out


def rebuilt(mask: torch.Tensor, heard: torch.Tensor, samples: int) -> torch.Tensor:
    """Waveform of a masked spectrum with the phase of what was heard."""
    shape = torch.hann_window(SPECTRUM[2], device=heard.device)
    wave: torch.Tensor = torch.istft(mask * heard, *SPECTRUM, window=shape, length=samples)
    return wave


def resolutions_apart(wave: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Half the spectral convergence, half the log magnitudes' distance, over all resolutions.

    Args:
        wave: Waveforms ``(..., T)``.
        clean: Their targets; convergence is that of all rows together.
    """
    values = []
    for resolution in RESOLUTIONS:
        ours, theirs = (
            spectrum(x, *resolution).abs().square().clamp(min=FLOOR).sqrt() for x in (wave, clean)
        )
        convergence = (theirs - ours).square().sum().sqrt() / theirs.square().sum().sqrt()
        values.append(0.5 * convergence + 0.5 * (theirs.log() - ours.log()).abs().mean())
    return torch.stack(values).mean()
