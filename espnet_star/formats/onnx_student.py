"""A student from an ONNX file: hidden states by onnxruntime, for frontends and extraction."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from espnet_star.errors import StarError, first_line
from espnet_star.outputs import RECEPTIVE_FIELD, LayerOutputs
from espnet_star.teachers.abs_teacher import AbsTeacher
from espnet_star.too_short import TooShort

SUFFIX = ".onnx"
METADATA_KEY = "espnet_star"
# Of inputs, outputs and metadata; raised when a reader must know.
FORMAT = 1


class OnnxStudent(AbsTeacher):
    """A frozen student that onnxruntime runs on the CPU.

    It stands where a teacher may: its weights are in the file, not in checkpoints. An int8
    file quantises what it multiplies by the range found in a whole batch; its utterances are
    run one by one, so that they have the same features in any batch.

    Args:
        name: The file, as ``star_onnx`` writes it.
        threads: Threads of onnxruntime; torch's number by default.

    Raises:
        StarError: If the file is missing, no ONNX model, or not one of ours.
    """

    def __init__(self, name: str | Path, threads: int | None = None):
        super().__init__()
        self.name = str(name)
        self._session = open_session(Path(name), threads)
        self.facts = read_facts(self._session, self.name)
        self.layers: str = self.facts["layers"]
        self.num_layers: int = self.facts["num_layers"]
        self.width: int = self.facts["width"]
        self.pre_norm: bool = self.facts["pre_norm"]
        self.digest = hashlib.blake2b(Path(name).read_bytes(), digest_size=8).hexdigest()
        self.freeze()

    def extra_repr(self) -> str:
        """Precision and content of the file, by which caches tell students apart."""
        return f"{self.facts['precision']}, {self.digest}"

    def layer_outputs(self, speech: torch.Tensor, lengths: torch.Tensor) -> LayerOutputs:
        """Every hidden state, as ``StarEncoder.layer_outputs`` gives it.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``; what stands past a length is ignored.
            lengths: Samples of each waveform, ``(B,)``.

        Raises:
            StarError: If an utterance is shorter than one frame or longer than T, or the
                file holds the last layer only.
        """
        if self.layers != "all":
            raise StarError(
                f"{self.name} gives the last layer only; a weighted sum needs a file written "
                "with star_onnx --layers all"
            )
        states, frames = self._run(speech, lengths)
        return LayerOutputs(states.unbind(0), frames)

    def last(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder hands on, from a file of the last layer.

        Returns:
            ``(B, N, D)``, and the frames of each utterance ``(B,)``.

        Raises:
            StarError: As :meth:`layer_outputs`, or if the file holds all layers, whose last
                has not passed the final norm of the pre-norm layout.
        """
        if self.layers != "last":
            raise StarError(
                f"{self.name} gives all layers; write a file with star_onnx --layers last"
            )
        states, frames = self._run(speech, lengths)
        return states[0], frames

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, attentions: bool
    ) -> LayerOutputs:
        """See :meth:`AbsTeacher.extract`; there are no attention maps."""
        if attentions:
            raise StarError(f"{self.name}: an ONNX student gives no attention maps")
        return self.layer_outputs(speech, lengths)

    def _run(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States ``(L + 1 or 1, B, N, D)`` and frames, on the device of the waveforms."""
        if speech.dim() != 2:
            raise StarError(f"speech must have shape (B, T), got {tuple(speech.shape)}")
        sizes = lengths.tolist()
        if min(sizes) < RECEPTIVE_FIELD or max(sizes) > speech.shape[1]:
            kind = TooShort if min(sizes) < RECEPTIVE_FIELD else StarError
            raise kind(
                f"{self.name}: lengths must lie between {RECEPTIVE_FIELD} (one frame) and T = "
                f"{speech.shape[1]} samples, got {min(sizes)} to {max(sizes)}"
            )
        device, speech = speech.device, speech.detach().float().cpu()
        if self.facts["precision"] == "int8":
            rows = [self._call(row[None, :n], [n]) for row, n in zip(speech, sizes, strict=True)]
            total = int((speech.shape[1] - RECEPTIVE_FIELD) // self.facts["hop"]) + 1
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
        raise StarError(f"{path} is not a file; expected an ONNX model, as star_onnx writes it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = first_line(error)
        raise StarError(
            f"{path} is not an ONNX model that onnxruntime reads ({reason}); copy it again or "
            "write it anew with star_onnx"
        ) from error


def read_facts(session: Any, name: str) -> dict[str, Any]:
    """What ``star_onnx`` noted in a file's metadata.

    Raises:
        StarError: If the file is not one of ours.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise StarError(
            f"{name} is an ONNX model, but not a student: its metadata has no {METADATA_KEY!r}; "
            "expected a file written by star_onnx"
        )
    facts = json.loads(text)
    if facts.get("format") != FORMAT:
        raise StarError(
            f"{name} has format {facts.get('format')!r}, this version reads {FORMAT}; write it "
            "anew with star_onnx"
        )
    return facts
