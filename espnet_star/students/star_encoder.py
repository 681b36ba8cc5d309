"""The student: a light HuBERT-shaped encoder that ESPnet and transformers both read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import HubertConfig

from espnet_star import kernels
from espnet_star.encoders.base import Shape, Want, hop_and_field
from espnet_star.encoders.inner import FEED_FORWARD, FRONT, PROJECTION, caught
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs
from espnet_star.students.base import Student
from espnet_star.students.config import PRESETS, build_config, config_options
from espnet_star.students.front import FeatureExtractor, FeatureProjection
from espnet_star.students.layers import scale_gradient
from espnet_star.students.transformer import Transformer


class StarEncoder(Student):
    """Waveform to hidden states at 50 frames per second.

    Parameter names are those of ``transformers.HubertModel``. GroupNorm statistics and
    attention see valid samples and frames only, so an utterance has the same features
    alone and in any padded batch.

    Args:
        input_size: Ignored; ESPnet gives it to every encoder (1 for raw waveform).
        preset: Name of an architecture, see ``espnet_star.students.config.PRESETS``.
        upstream: Start from this student (Hugging Face directory, hub name or
            distillation experiment) and its architecture instead of a preset.
        overrides: Any architecture key in transformers' names, e.g. ``hidden_size=240``.

    Raises:
        StarError: On a misspelled preset or key.

    Example:
        >>> encoder = StarEncoder(preset="starhubert").eval()
        >>> out, olens, _ = encoder(torch.randn(2, 16000), torch.tensor([16000, 12000]))
        >>> out.shape, olens.tolist()
        (torch.Size([2, 49, 432]), [49, 37])
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    beyond_hubert = ""
    # Whether the convolutions read the waveform itself.
    reads_waveform = True
    inner: tuple[str, ...] = (PROJECTION, FEED_FORWARD, FRONT)

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "starhubert",
        upstream: str | None = None,
        **overrides: Any,
    ):
        super().__init__()
        self.source, self.name = upstream, upstream or ""
        pretrained = None if upstream is None else self.from_pretrained(upstream)
        if pretrained is not None and type(pretrained) is not type(self):
            raise StarError(
                f"upstream {upstream} is a {type(pretrained).__name__}, not a "
                f"{type(self).__name__}; choose that encoder"
            )
        options = pretrained.options() if pretrained is not None else {}
        self.config = build_config(
            preset, self.presets, self.own, options | overrides, self.reads_waveform
        )
        self.masks = bool(self.config.mask_embedding)
        self.shape = self.build()
        self.apply(self._initialize)
        if self.masks:
            self.masked_spec_embed = nn.Parameter(torch.rand(self.config.hidden_size))
        if pretrained is not None:
            self._copy_weights(pretrained)

    def build(self) -> Shape:
        """Make the modules of ``self.config``; the shape of their states."""
        self.feature_extractor: nn.Module = FeatureExtractor(self.config)
        self.feature_projection = FeatureProjection(self.config)
        self.encoder = self.transformer()
        return shape_of(self.config)

    def transformer(self) -> Transformer:
        """The part behind the projection."""
        return Transformer(self.config)

    def _copy_weights(self, pretrained: StarEncoder) -> None:
        """Take over every weight of a student of the same shape."""
        try:
            self.load_state_dict(pretrained.state_dict())
        except RuntimeError as error:
            raise StarError(
                f"overrides change the shape of upstream {self.source}: {error}"
            ) from error

    def reload_pretrained_parameters(self) -> None:
        """Undo ESPnet's ``--init``, which overwrites pretrained weights as well."""
        if self.source is not None:
            self._copy_weights(self.from_pretrained(self.source))

    def _initialize(self, module: nn.Module) -> None:
        """Random weights as HuBERT starts from; the positional convolution has its own."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def options(self) -> dict[str, Any]:
        """See :meth:`Student.options`."""
        return config_options(self.config, self.own)

    def prepare(self) -> Self:
        """Lay the weights out for fast inference on this CPU; the student itself.

        Costs their size in memory again. Features are the same but for rounding. Nothing
        happens where torch lacks the kernels. Call it again after changing weights;
        ``train()`` undoes it.
        """
        kernels.prepare(self.modules())
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch to training, where prepared weights would go stale, or to eval mode."""
        if mode:
            kernels.discard(self.modules())
        return super().train(mode)

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`."""
        frames, frame_lengths = self.feature_extractor(speech, lengths)
        frames = scale_gradient(frames, self.config.feature_grad_mult)
        with caught(want.inner, self._module_of) as inner:
            projected = self._masked(self.feature_projection(frames), want.mask)
            states, maps = self.encoder(projected, frame_lengths, want.attentions)
        frame_lengths = self.encoder.frames(frame_lengths)
        return LayerOutputs(
            tuple(states), frame_lengths, None if maps is None else tuple(maps), inner=inner
        )

    def _masked(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The mask vector in place of masked frames ``(B, N)``."""
        if mask is None and not (self.masks and self.training):
            return x
        if mask is None:  # the vector has a gradient, zero, in every step: DDP waits for it
            mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        return torch.where(mask[..., None], self.masked_spec_embed.to(x.dtype), x)

    def _module_of(self, kind: str, layer: int) -> nn.Module:
        """What gives an inner state."""
        if kind in (PROJECTION, FRONT):
            return self.feature_projection
        return self.encoder.layers[layer - 1].feed_forward

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """The last state, normalized in the pre-norm layout."""
        return self.encoder.output(last)

    def load_weights(self, state: dict[str, torch.Tensor], source: str) -> None:
        """See :meth:`Student.load_weights`; by the names of a ``HubertModel``, old ones too."""
        from espnet_star.students.hugging_face import own_names

        keep = () if not self.masks else ("masked_spec_embed",)
        state = own_names(state, source, self.config.identity_projection, keep)
        super().load_weights(state, source)

    def save_pretrained(self, directory: str | Path) -> None:
        """See :meth:`Student.save_pretrained`."""
        if self.beyond_hubert:
            super().save_pretrained(directory)
            return
        from espnet_star.students.hugging_face import save_student

        save_student(self, directory)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path) -> Self:
        """Load a student, in eval mode.

        Args:
            name_or_directory: Hugging Face directory, hub name or the folder of a
                distillation experiment. Any HuBERT checkpoint of 50 frames per second
                loads, not only students.

        Raises:
            StarError: If there is none, or one of another architecture.
        """
        from espnet_star.students.directory import load_as

        return load_as(name_or_directory, cls)


def shape_of(config: HubertConfig) -> Shape:
    """Shape of a HuBERT's states."""
    hop, field = hop_and_field(config.conv_kernel, config.conv_stride)
    return Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        hop=hop,
        field=field,
        pre_norm=bool(config.do_stable_layer_norm),
    )


def encoder_from_config(config: HubertConfig) -> StarEncoder:
    """Student of a Hugging Face configuration, randomly initialized."""
    return StarEncoder(**config_options(config))
