"""Whisper's encoder as a teacher, without its padding to 30 seconds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_star.encoders.base import Shape, Want
from espnet_star.encoders.inner import FEED_FORWARD, caught
from espnet_star.errors import StarError
from espnet_star.outputs import HOP, SAMPLE_RATE, LayerOutputs, valid_mask
from espnet_star.teachers import loading
from espnet_star.teachers.base import Teacher

N_FFT = 400
MEL_HOP = 160


class WhisperTeacher(Teacher):
    """Encoder of a Whisper checkpoint on utterances of their own length.

    Transformers pads every clip to 30 s and lets attention see the padding. Here an
    utterance is processed at its own length, in a batch as alone; for a clip of 30 s
    both agree. Index 0 is the input of the first layer (positions added), indices
    0 to ``L - 1`` the residual stream of the pre-norm layers, and index ``L`` has passed
    the encoder's final LayerNorm, as in Transformers' ``hidden_states``.

    Frame ``t`` is centered at sample ``320 t``, that of the student at ``320 t + 199.5``:
    the teacher is 12.5 ms early, less than a frame (20 ms), and its frames see more
    context than that. Whisper gives up to one frame more than the student; it takes
    part in attention and is cut from the output, where the remaining attention weights
    are scaled to sum to one. Padded frames hold finite values without meaning.

    Args:
        name: Hub name, or directory with an encoder or a full model.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.

    Raises:
        StarError: If the checkpoint is absent, broken, incomplete or of another
            sampling rate.
    """

    model_types = ("whisper",)
    inner = (FEED_FORWARD,)

    def __init__(self, name: str, dtype: str = "float32") -> None:
        super().__init__()
        self.name = name
        self.dtype = loading.check_dtype(dtype)
        config = loading.read_config(name, self.model_types)
        loading.read_preparation(name)
        # A full model keeps the encoder under a prefix; the decoder is not built.
        prefix = {r"^(model\.)?encoder\.": ""}
        self._use(config, loading.load_weights(WhisperEncoder, name, config, key_mapping=prefix))

    @classmethod
    def from_config(cls, config: transformers.WhisperConfig) -> WhisperTeacher:
        """A teacher of this shape with random weights, to count what it costs.

        Args:
            config: Of the encoder or the full model. Modules are made on torch's default
                device, which may be the meta device.
        """
        teacher = cls.__new__(cls)
        Teacher.__init__(teacher)
        teacher.name = "random Whisper encoder"
        teacher.dtype = torch.float32
        teacher._use(config, WhisperEncoder(config))
        return teacher

    def _use(self, config: Any, encoder: Any) -> None:
        """Take the encoder in, with what its input needs."""
        self.encoder = encoder
        self.shape = Shape(
            config.encoder_layers, config.d_model, config.encoder_attention_heads, pre_norm=True
        )
        self.max_samples = config.max_source_positions * HOP
        self._attention = self.encoder.config._attn_implementation
        extractor = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        filters = torch.from_numpy(extractor.mel_filters).float()
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.freeze()

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`.

        Raises:
            StarError: If an utterance is longer than 30 s.
        """
        longest = max(sizes)
        if longest > self.max_samples:
            raise StarError(
                f"teacher {self.name!r} reads at most {self.max_samples / SAMPLE_RATE:g} s "
                f"({self.max_samples} samples), got {longest / SAMPLE_RATE:.2f} s; split or drop "
                "longer utterances"
            )
        with (
            loading.autocast(self.dtype, speech.device),
            caught(want.inner, lambda _, layer: self.encoder.layers[layer - 1].fc2) as inner,
        ):
            mel, mel_lengths = log_mel(speech[:, :longest], lengths, self.mel_filters, self.window)
            states, maps = self.encode_mel(mel, mel_lengths, want.attentions)
        frames = self.shape.frames(lengths)
        size = self.shape.frames_of(speech.shape[1])
        return LayerOutputs(
            tuple(_resize(state.float(), size) for state in states),
            frames,
            tuple(_resize_maps(m.float(), frames, size) for m in maps) if want.attentions else None,
            inner={name: _resize(state.float(), size) for name, state in inner.items()},
        )

    def encode_mel(
        self, mel: torch.Tensor, mel_lengths: torch.Tensor, attentions: bool = False
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Convolutions, positions and layers.

        Args:
            mel: ``(B, F, M)``, zero past the end.
            mel_lengths: Valid mel frames, ``(B,)``; on the CPU if ``mel`` is on the meta
                device.
            attentions: Whether maps are wanted.

        Returns:
            ``L + 1`` states ``(B, W, D)`` with ``W = ceil(M / 2)``, and ``L`` maps
            ``(B, H, W, W)`` or none.
        """
        encoder = self.encoder
        # The library pads an utterance alone with zeros before each convolution.
        x = F.gelu(encoder.conv1(mel))
        x = x * valid_mask(mel_lengths, x.shape[2])[:, None].to(x)
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        mask = self._attention_mask((mel_lengths + 1) // 2, x.shape[1], attentions)
        states = [x.float() + encoder.embed_positions.weight[: x.shape[1]]]
        maps: list[torch.Tensor] = []
        handles = [
            layer.self_attn.register_forward_hook(lambda _m, _a, out: maps.append(out[1]))
            for layer in (encoder.layers if attentions else ())
        ]
        try:
            for layer in encoder.layers:
                out = layer(states[-1], mask)
                states.append(out[0] if isinstance(out, tuple) else out)
        finally:
            for handle in handles:
                handle.remove()
        states[-1] = encoder.layer_norm(states[-1])
        return states, maps

    def _attention_mask(
        self, lengths: torch.Tensor, size: int, attentions: bool
    ) -> torch.Tensor | None:
        """Keys of padded frames ``(B, 1, W, W)``, in the form the attention kernel takes."""
        implementation = "eager" if attentions else self._attention
        if self.encoder.config._attn_implementation != implementation:
            self.encoder.set_attn_implementation(implementation)
        mask = valid_mask(lengths, size)
        if bool(mask.all()):
            return None
        mask = mask[:, None, None, :].expand(-1, 1, size, -1)
        if implementation != "eager":
            return mask
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, lowest)


def log_mel(
    speech: torch.Tensor, lengths: torch.Tensor, filters: torch.Tensor, window: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whisper's log-mel spectrogram of every utterance at its own length.

    Equals ``WhisperFeatureExtractor`` on one utterance without padding: reflection at
    both ends of the utterance, floor at 8 below the utterance's own maximum (log10).

    Args:
        speech: Waveforms at 16 kHz ``(B, T)``, anything past the length.
        lengths: Samples of each waveform, ``(B,)``, more than 200.
        filters: Mel filters ``(201, F)``.
        window: Window ``(400,)``.

    Returns:
        Features ``(B, F, T // 160)``, zero past the end, and valid mel frames ``(B,)``.
    """
    with torch.autocast(speech.device.type, enabled=False):
        padded = _reflect(speech.float(), lengths, N_FFT // 2)
        spectrum = torch.stft(
            padded, N_FFT, MEL_HOP, window=window, center=False, return_complex=True
        )
        power = spectrum[..., :-1].abs().square()
        mel = (filters.T @ power).clamp(min=1e-10).log10()
        mel_lengths = lengths // MEL_HOP
        padding = ~valid_mask(mel_lengths, mel.shape[2])[:, None]
        peak = mel.masked_fill(padding, -torch.inf).amax(dim=(1, 2), keepdim=True)
        mel = (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0
    return mel.masked_fill(padding, 0.0), mel_lengths


def _reflect(speech: torch.Tensor, lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Mirror each utterance about its first and its last sample.

    Args:
        speech: ``(B, T)``.
        lengths: ``(B,)``, more than ``width``.
        width: Samples to mirror at either end.

    Returns:
        ``(B, T + 2 * width)``; past an utterance's mirrored end some sample of it.
    """
    last = (lengths - 1)[:, None]
    index = torch.arange(-width, speech.shape[1] + width, device=speech.device).abs()[None, :]
    index = torch.where(index > last, 2 * last - index, index).clamp(min=0)
    return speech.gather(1, index)


def _resize(state: torch.Tensor, size: int) -> torch.Tensor:
    """Cut or zero-pad ``(B, W, D)`` to ``(B, size, D)``."""
    return F.pad(state, (0, 0, 0, size - state.shape[1]))


def _resize_maps(maps: torch.Tensor, frames: torch.Tensor, size: int) -> torch.Tensor:
    """Cut or zero-pad ``(B, H, W, W)`` to the student's frames, rows summing to one."""
    extra = size - maps.shape[2]
    maps = F.pad(maps, (0, extra, 0, extra))
    maps = maps * valid_mask(frames, size)[:, None, None, :].to(maps.dtype)
    return maps / maps.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
