"""What every student has, whatever its architecture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder

from espnet_star.encoders.base import Encoder
from espnet_star.errors import StarError


class Student(Encoder, AbsEncoder):
    """An encoder that is trained, saved and built again; one of ESPnet's as well.

    Attributes:
        presets: Architectures by name, as keyword arguments.
        from_teacher: Options that may say ``teacher``, for that of the training.
        own: Options beyond those of every student of ours, and their defaults.
        beyond_hubert: What it has that no ``HubertModel`` of transformers can hold; empty where
            one can.
    """

    role = "student"
    trainable = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    from_teacher: ClassVar[tuple[str, ...]] = ("upstream",)
    own: ClassVar[Mapping[str, Any]] = {}
    beyond_hubert: str = "an architecture of its own"

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Plain keyword arguments that rebuild this architecture, for ``config.yaml``.

        They name no upstream: whoever reads them brings a checkpoint with the weights.
        """

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a directory that ``espnet_star.load`` reads, whole or not at all.

        It is one of ``transformers.HubertModel`` where that can hold the student.

        Raises:
            StarError: If the architecture is none of this package.
        """
        from espnet_star.students.directory import save_own

        save_own(self, directory)

    def load_weights(self, state: dict[str, torch.Tensor], source: str) -> None:
        """Fill in every weight, or fail.

        Args:
            state: Tensors by name.
            source: Where they are from, for messages.

        Raises:
            StarError: Naming missing, unexpected or misshapen weights.
        """
        expected = self.state_dict()
        missing = sorted(expected.keys() - state.keys())
        unexpected = sorted(state.keys() - expected.keys())
        if missing or unexpected:
            raise StarError(
                f"{source} does not fit its configuration: missing {missing[:5]}, "
                f"unexpected {unexpected[:5]} ({len(missing)} and {len(unexpected)} in all)"
            )
        for key, value in state.items():
            if value.shape != expected[key].shape:
                raise StarError(
                    f"{source}: {key} must have shape {tuple(expected[key].shape)}, "
                    f"got {tuple(value.shape)}"
                )
        self.load_state_dict(state)

    def reload_pretrained_parameters(self) -> None:
        """Undo ESPnet's ``--init``, which overwrites pretrained weights as well; none here."""

    def output_size(self) -> int:
        """Width D of every hidden state."""
        return self.shape.width

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """ESPnet's encoder call: the last state ``(B, N, D)``, its lengths, None."""
        if xs_pad.dim() == 3 and xs_pad.shape[2] == 1:
            xs_pad = xs_pad[:, :, 0]
        outputs = self.encode(xs_pad, ilens)
        out = self.output(outputs.hidden_states[-1])
        # ESPnet expects the padded length to be the longest utterance's.
        return out[:, : int(outputs.lengths.max())], outputs.lengths, None
