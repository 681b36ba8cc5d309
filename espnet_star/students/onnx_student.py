"""A student from an ONNX file: hidden states by onnxruntime, for frontends and extraction."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from espnet_star.encoders.base import Encoder, Shape, Want
from espnet_star.errors import StarError, first_line
from espnet_star.outputs import LayerOutputs

SUFFIX = ".onnx"
METADATA_KEY = "espnet_star"
# Of inputs, outputs and metadata; raised when a reader must know.
FORMAT = 1


class OnnxStudent(Encoder):
    """A frozen student that onnxruntime runs on the CPU.

    Its weights are in the file, not in checkpoints. An int8
    file quantizes what it multiplies by the range found in a whole batch; its utterances are
    run one by one, so that they have the same features in any batch.

    Args:
        name: The file, as ``star_export onnx`` writes it.
        threads: Threads of onnxruntime; torch's number by default.

    Raises:
        StarError: If the file is missing, no ONNX model, or not one of ours.
    """

    role = "ONNX file"

    def __init__(self, name: str | Path, threads: int | None = None):
        super().__init__()
        self.name = str(name)
        self._session = open_session(Path(name), threads)
        self.facts = read_facts(self._session, self.name)
        self.layers: str = self.facts["layers"]
        self.conf = {"kind": "onnx"}
        self.shape = Shape(
            layers=self.facts["num_layers"],
            width=self.facts["width"],
            hop=self.facts["hop"],
            field=self.facts["receptive_field"],
            pre_norm=self.facts["pre_norm"],
        )
        self.digest = hashlib.blake2b(Path(name).read_bytes(), digest_size=8).hexdigest()

    def extra_repr(self) -> str:
        """Precision and content of the file, by which caches tell students apart."""
        return f"{self.facts['precision']}, {self.digest}"

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`.

        Raises:
            StarError: If the file holds the last layer only.
        """
        if self.layers != "all":
            raise StarError(
                f"{self.name} gives the last layer only; a weighted sum needs a file written "
                "with star_export onnx --layers all"
            )
        states, frames = self._run(speech, sizes)
        return LayerOutputs(states.unbind(0), frames)

    def last(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder hands on, from a file of the last layer.

        Returns:
            ``(B, N, D)``, and the frames of each utterance ``(B,)``.

        Raises:
            StarError: As :meth:`encode`, or if the file holds all layers, whose last
                has not passed the final norm of the pre-norm layout.
        """
        if self.layers != "last":
            raise StarError(
                f"{self.name} gives all layers; write a file with star_export onnx --layers last"
            )
        states, frames = self._run(speech, self._check_batch(speech, lengths))
        return states[0], frames

    def _run(self, speech: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States ``(L + 1 or 1, B, N, D)`` and frames, on the device of the waveforms."""
        device, speech = speech.device, speech.detach().float().cpu()
        if self.facts["precision"] == "int8":
            rows = [self._call(row[None, :n], [n]) for row, n in zip(speech, sizes, strict=True)]
            total = self.shape.frames_of(speech.shape[1])
            states = torch.cat([F.pad(s, (0, 0, 0, total - s.shape[2])) for s, _ in rows], dim=1)
            frames = torch.cat([f for _, f in rows])
        else:
            states, frames = self._call(speech, sizes)
        return states.to(device), frames.to(device)

    def _call(self, speech: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        feed = {"speech": speech.numpy(), "lengths": torch.tensor(sizes).numpy()}
        states, frames = (torch.from_numpy(array) for array in self._session.run(None, feed))
        return (states if states.dim() == 4 else states[None]), frames


def open_session(path: Path, threads: int | None = None) -> Any:
    """Onnxruntime's session of a file, on the CPU.

    Raises:
        StarError: If onnxruntime or the file is missing, or it cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise StarError(
            f"{path} needs the package onnxruntime ({error}); run pip install 'espnet_star[onnx]'"
        ) from error
    if not path.is_file():
        raise StarError(f"{path} is not a file; expected an ONNX model of star_export onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = first_line(error)
        raise StarError(
            f"{path} is not an ONNX model that onnxruntime reads ({reason}); copy it again or "
            "write it anew with star_export onnx"
        ) from error


def read_facts(session: Any, name: str) -> dict[str, Any]:
    """What ``star_export onnx`` noted in a file's metadata.

    Raises:
        StarError: If the file is not one of ours.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise StarError(
            f"{name} is an ONNX model, but not a student: its metadata has no {METADATA_KEY!r}; "
            "expected a file written by star_export onnx"
        )
    facts = json.loads(text)
    if facts.get("format") != FORMAT:
        raise StarError(
            f"{name} has format {facts.get('format')!r}, this version reads {FORMAT}; write it "
            "anew with star_export onnx"
        )
    return facts
