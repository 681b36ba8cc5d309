"""ESPnet's self-supervised experiments (``espnet2.tasks.ssl``) as teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError, first_line
from espnet_star.outputs import LayerOutputs, valid_mask
from espnet_star.teachers import loading
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.espnet_files import build, open_model
from espnet_star.teachers.espnet_waveform import check_rate, normalized
from espnet_star.teachers.once import run_once
from espnet_star.teachers.padding import (
    LAYER_NORM_EPS,
    MaskedGroupNorm,
    Padding,
    prepare_waveform,
    stack,
)

# What masked frames become, where the experiment masked any.
_VECTOR = "util_modules.mask.mask_embedding"
# Long enough for every subsampling to show; 12 frames.
_PROBE = 4000


class EspnetSslTeacher(Teacher):
    """An encoder of ESPnet's ``SSLTask``: Transformer, E-Branchformer or Conformer.

    ESPnet's own task builds the model; specaug is off, and its vector for masked frames
    stands where a view has drawn a mask. Index 0 is the input of the first layer, whatever
    stands before it (positions added; their norm, where there is one, passed), index ``l``
    what layer ``l`` returns, and index ``L`` has passed the encoder's final LayerNorm where
    it has one, as ESPnet hands it on.

    An utterance gets the same features in a padded batch as alone: statistics of the
    front's GroupNorm, of the waveform and of ``normalize`` are each utterance's own,
    convolutions over time see zeros past the end, and attention never looks there. ESPnet's
    legacy relative positions depend on the padded length; with them utterances run one by one.

    Args:
        name: The experiment's folder, its ``config.yaml``, a ``.pth`` in it, a pack (a
            .zip), or a name of ESPnet's model zoo.
        model_file: Name of the ``.pth`` in a folder. None takes the averaged model, else the
            best one by the experiment's own criterion, else the latest.
        dtype: ``"float32"``, or ``"bfloat16"`` for matrix products and convolutions in
            bfloat16. Hidden states are float32 either way.

    Raises:
        StarError: If files are missing, damaged or of another task, the weights do not
            fit, or the model reads anything but waveforms at 16 kHz with 50 frames/s.
    """

    reads = "ESPnet SSL experiment, pack or zoo name"

    def __init__(self, name: str, model_file: str | None = None, dtype: str = "float32") -> None:
        from espnet2.asr.layers.fastformer import FastSelfAttention
        from espnet2.tasks.ssl import SSLTask  # slow to import

        super().__init__()
        self.name = name
        self.dtype = loading.check_dtype(dtype)
        with open_model(name, "ssl", model_file) as model:
            check_rate(name, model.config)
            self.model_file = model.model_file
            self.is_pack = model.is_pack
            built = build(name, SSLTask, model)
            vector = model.state.get(_VECTOR)
        self.mask_vector = None if vector is None else vector.float()
        _check_parts(name, built)
        self.frontend, self.normalize = built.frontend, built.normalize
        self.preencoder, self.encoder = built.preencoder, built.encoder
        self.layers = list(built.encoder.encoders)
        # Its shift lets the last frames see what follows them, wherever the batch ends.
        self.alone = any(
            type(_attention(layer)).__name__.startswith("Legacy") for layer in self.layers
        )
        fast = any(isinstance(_attention(layer), FastSelfAttention) for layer in self.layers)
        self.shape = Shape(
            len(self.layers),
            built.encoder.output_size(),
            heads=None if fast else _attention(self.layers[0]).h,
            pre_norm=_is_pre_norm(built.encoder),
        )
        self._mask_padding()
        self.freeze()
        self._check_frames()

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Teacher.chosen`."""
        return {} if self.is_pack else {"model_file": self.model_file}

    def _mask_padding(self) -> None:
        """Tell the modules that look across time where utterances end."""
        blocks = list(self.frontend.layers)
        kernels = [block.kernel_size for block in blocks]
        strides = [block.stride for block in blocks]
        loading.check_frame_rate(self.name, kernels, strides)
        self._padding = Padding(kernels[0], strides[0])
        if isinstance(blocks[0].layer_norm, torch.nn.GroupNorm):
            blocks[0].layer_norm = MaskedGroupNorm(blocks[0].layer_norm, self._padding)
        self._padding.watch(self.encoder)
        # ESPnet's runs over the whole batch with its padding.
        self.normalize_audio = self.frontend.normalize_audio
        self.frontend.normalize_audio = False

    def _check_frames(self) -> None:
        """Run it once: frames and states must come out as the objective needs them."""
        lengths = torch.tensor([_PROBE])
        try:
            with torch.no_grad():
                states, _ = self._run(0.1 * torch.randn(1, _PROBE), lengths, Want())
                width = self._features(torch.zeros(1, _PROBE), lengths)[0].shape[2]
        except Exception as error:
            raise StarError(
                f"teacher {self.name!r}: ESPnet's encoder does not run ({first_line(error)})"
            ) from error
        # As wide as the encoder's output: where its input is not, ESPnet could mask nothing.
        self.masks = self.mask_vector is not None and len(self.mask_vector) == width
        found, expected = states[0].shape[1], self.shape.frames_of(_PROBE)
        if found != expected:
            raise StarError(
                f"teacher {self.name!r} gives {found} frames for {_PROBE} samples, the student "
                f"{expected}: its encoder subsamples; choose one with input_layer wav2vec, linear "
                "or none"
            )

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`."""
        if not self.alone:
            states, maps = self._run(speech, lengths, want)
            return LayerOutputs(
                tuple(states), self.shape.frames(lengths), maps if want.attentions else None
            )
        rows = [
            self._run(
                speech[row : row + 1, :size], lengths[row : row + 1], self._row(want, row, size)
            )
            for row, size in enumerate(sizes)
        ]
        count = self.shape.frames_of(speech.shape[1])
        return LayerOutputs(
            stack([states for states, _ in rows], count),
            self.shape.frames(lengths),
            stack([maps for _, maps in rows], count) if want.attentions else None,
        )

    def extract_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """See :meth:`Encoder.extract_all`."""
        if self.alone or len(wants) == 1:
            return super().extract_all(speech, lengths, sizes, wants)
        with run_once(self, "frontend"):
            return super().extract_all(speech, lengths, sizes, wants)

    def _row(self, want: Want, row: int, samples: int) -> Want:
        """What is wanted of an utterance that runs alone."""
        if want.mask is None:
            return want
        return replace(want, mask=want.mask[row : row + 1, : self.shape.frames_of(samples)])

    def _run(
        self, speech: torch.Tensor, lengths: torch.Tensor, want: Want
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """States and maps of a batch, in float32."""
        mask = valid_mask(lengths, speech.shape[1])
        speech = prepare_waveform(speech, mask, self.normalize_audio, LAYER_NORM_EPS)
        with (
            self._padding.of(None if bool(mask.all()) else lengths),
            loading.autocast(self.dtype, speech.device),
        ):
            states, maps = self._encode(speech, lengths, want)
        return tuple(state.float() for state in states), tuple(each.float() for each in maps)

    def _encode(
        self, speech: torch.Tensor, lengths: torch.Tensor, want: Want
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Front, normalization, projection and layers; ``L + 1`` states and ``L`` maps."""
        feats, frames = self._features(speech, lengths)
        if want.mask is not None and self.mask_vector is not None:
            feats = torch.where(want.mask[..., None], self.mask_vector.to(feats), feats)
        states: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        handles = [self.layers[0].register_forward_pre_hook(_keep_input(states))]
        handles += [layer.register_forward_hook(_keep_output(states)) for layer in self.layers]
        if want.attentions:
            handles += [self._watch_attention(layer, maps) for layer in self.layers]
        try:
            last, _, _ = self.encoder(feats, frames, masks=~valid_mask(frames, feats.shape[1]))
        finally:
            for handle in handles:
                handle.remove()
            for layer in self.layers:
                _attention(layer).attn = None  # ESPnet keeps every layer's maps
        states[-1] = last[0] if isinstance(last, tuple) else last
        return states, maps

    def _features(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder is fed, where nothing is masked, and its frames."""
        feats, frames = self.frontend(speech, lengths)
        feats = normalized(self.normalize, feats, frames)
        if self.preencoder is not None:
            feats, frames = self.preencoder(feats, frames)
        return feats, frames

    def _watch_attention(self, layer: torch.nn.Module, maps: list[torch.Tensor]) -> Any:
        """Keep what ESPnet's attention leaves behind for plots; fast kernels leave nothing."""
        attention = _attention(layer)
        attention.use_flash_attn = attention.use_sdpa = False

        def keep(module: Any, _args: Any, _out: Any) -> None:
            maps.append(module.attn)
            module.attn = None

        return attention.register_forward_hook(keep)


def _check_parts(name: str, built: Any) -> None:
    """Refuse parts in which frames or waveforms are not what the student's are."""
    from espnet2.asr.frontend.cnn import CNNFrontend
    from espnet2.asr.preencoder.linear import LinearProjection

    if not isinstance(built.frontend, CNNFrontend):
        raise StarError(
            f"teacher {name!r} does not read waveforms as the student does: frontend must be "
            f"wav2vec_cnn, got {type(built.frontend).__name__}"
        )
    if built.preencoder is not None and not isinstance(built.preencoder, LinearProjection):
        raise StarError(
            f"teacher {name!r}: preencoder must be linear or none, got "
            f"{type(built.preencoder).__name__}"
        )


def _is_pre_norm(encoder: Any) -> bool:
    """Whether layers end in an unnormalized sum; a ``norm_final`` closes the others."""
    layer = encoder.encoders[0]
    return bool(getattr(layer, "normalize_before", False)) and not hasattr(layer, "norm_final")


def _attention(layer: Any) -> Any:
    """Self-attention of a layer, which E-Branchformer calls otherwise."""
    return layer.self_attn if hasattr(layer, "self_attn") else layer.attn


def _keep_input(states: list[torch.Tensor]) -> Callable[..., None]:
    def keep(_module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        states.append(args[0][0] if isinstance(args[0], tuple) else args[0])

    return keep


def _keep_output(states: list[torch.Tensor]) -> Callable[..., None]:
    def keep(_module: torch.nn.Module, _args: Any, out: tuple[Any, ...]) -> None:
        states.append(out[0][0] if isinstance(out[0], tuple) else out[0])

    return keep
