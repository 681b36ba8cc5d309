"""The student: a light HuBERT-shaped encoder that ESPnet and transformers both read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from torch import nn
from transformers import HubertConfig

from espnet_star.errors import StarError
from espnet_star.outputs import RECEPTIVE_FIELD, LayerOutputs
from espnet_star.students import prepared
from espnet_star.students.config import config_options, student_config
from espnet_star.students.front import FeatureExtractor, FeatureProjection
from espnet_star.students.transformer import Transformer


class StarEncoder(AbsEncoder):
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
        StarError: On a misspelt preset or key.

    Example:
        >>> encoder = StarEncoder(preset="starhubert").eval()
        >>> out, olens, _ = encoder(torch.randn(2, 16000), torch.tensor([16000, 12000]))
        >>> out.shape, olens.tolist()
        (torch.Size([2, 49, 432]), [49, 37])
    """

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "starhubert",
        upstream: str | None = None,
        **overrides: Any,
    ):
        super().__init__()
        self.source = upstream
        pretrained = None if upstream is None else StarEncoder.from_pretrained(upstream)
        options = pretrained.options() if pretrained is not None else {}
        self.config = student_config(preset, **(options | overrides))
        self.feature_extractor = FeatureExtractor(self.config)
        self.feature_projection = FeatureProjection(self.config)
        self.encoder = Transformer(self.config)
        self.apply(self._initialise)
        if pretrained is not None:
            self._copy_weights(pretrained)

    def _copy_weights(self, pretrained: StarEncoder) -> None:
        try:
            self.load_state_dict(pretrained.state_dict())
        except RuntimeError as error:
            raise StarError(
                f"overrides change the shape of upstream {self.source}: {error}"
            ) from error

    def reload_pretrained_parameters(self) -> None:
        """Undo ESPnet's ``--init``, which overwrites pretrained weights as well."""
        if self.source is not None:
            self._copy_weights(StarEncoder.from_pretrained(self.source))

    def _initialise(self, module: nn.Module) -> None:
        """Random weights as HuBERT starts from; the positional convolution has its own."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def num_layers(self) -> int:
        """Transformer layers L."""
        return self.config.num_hidden_layers

    def output_size(self) -> int:
        """Width D of every hidden state."""
        return self.config.hidden_size

    def options(self) -> dict[str, Any]:
        """Plain keyword arguments that rebuild this architecture, for ``config.yaml``.

        They name no upstream: whoever reads them brings a checkpoint with the weights.
        """
        return config_options(self.config)

    def prepare(self) -> StarEncoder:
        """Lay the weights out for fast inference on this CPU; the student itself.

        Costs their size in memory again. Features are the same but for rounding. Nothing
        happens where torch lacks the kernels. Call it again after changing weights;
        ``train()`` undoes it.
        """
        if prepared.available():
            prepared.prepare(self.modules())
        return self

    def train(self, mode: bool = True) -> StarEncoder:
        """Switch to training, where prepared weights would go stale, or to eval mode."""
        if mode:
            prepared.discard(self.modules())
        return super().train(mode)

    def layer_outputs(
        self, speech: torch.Tensor, lengths: torch.Tensor, attentions: bool = False
    ) -> LayerOutputs:
        """Every hidden state.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``; what stands past a length is ignored.
            lengths: Samples of each waveform, ``(B,)``.
            attentions: Whether to give attention maps, at the price of the fast kernel.

        Raises:
            StarError: If an utterance is shorter than one frame or longer than T.
        """
        speech = self._check_input(speech, lengths)
        frames, frame_lengths = self.feature_extractor(speech, lengths)
        states, maps = self.encoder(self.feature_projection(frames), frame_lengths, attentions)
        return LayerOutputs(tuple(states), frame_lengths, None if maps is None else tuple(maps))

    def _check_input(self, speech: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        if speech.dim() == 3 and speech.shape[2] == 1:
            speech = speech[:, :, 0]
        if speech.dim() != 2:
            raise StarError(f"speech must have shape (B, T), got {tuple(speech.shape)}")
        sizes = lengths.tolist()  # once: a GPU has to be waited for
        shortest, longest = min(sizes), max(sizes)
        if shortest < RECEPTIVE_FIELD:
            raise StarError(
                f"an utterance of the batch has {shortest} samples; one frame needs "
                f"{RECEPTIVE_FIELD} (25 ms at 16 kHz). Drop shorter clips in data preparation"
            )
        if longest > speech.shape[1]:
            raise StarError(f"lengths must be at most T = {speech.shape[1]} samples, got {longest}")
        return speech

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """ESPnet's encoder call: the last state ``(B, N, D)``, its lengths, None."""
        outputs = self.layer_outputs(xs_pad, ilens)
        out = self.encoder.output(outputs.hidden_states[-1])
        # ESPnet expects the padded length to be the longest utterance's.
        return out[:, : int(outputs.lengths.max())], outputs.lengths, None

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a directory that plain ``transformers.HubertModel`` loads."""
        from espnet_star.formats.hugging_face import save_student

        save_student(self, directory)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path) -> StarEncoder:
        """Load a student, in eval mode.

        Args:
            name_or_directory: Hugging Face directory, hub name or the folder of a
                distillation experiment. Any HuBERT checkpoint of 50 frames per second
                loads, not only students.
        """
        from espnet_star.formats.experiment import is_experiment, load_experiment
        from espnet_star.formats.hugging_face import load_student

        load = load_experiment if is_experiment(name_or_directory) else load_student
        return load(name_or_directory)


def encoder_from_config(config: HubertConfig) -> StarEncoder:
    """Student of a Hugging Face configuration, randomly initialised."""
    return StarEncoder(**config_options(config))
