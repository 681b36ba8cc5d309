"""Teacher and student on the same utterances: what the report's matrices are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from espnet_star.data.audio import AudioOptions, Job, convert
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.encoders import Encoder
from espnet_star.errors import StarError
from espnet_star.evaluate.report.similarity import LinearCKA, gram_matrix
from espnet_star.losses.layers import frames_together, on_frames_of
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE, LayerOutputs


class Utterance(NamedTuple):
    """A name and its waveform at 16 kHz, ``(T,)``."""

    name: str
    wave: torch.Tensor


@dataclass
class GramRow:
    """Gram matrices of a student layer and of the teacher's layer that it follows.

    Attributes:
        student_layer: 1 to L_S.
        teacher_layer: 1 to L_T.
        matrices: By system (teacher first), each ``(n, n)``.
    """

    student_layer: int
    teacher_layer: int
    matrices: dict[str, np.ndarray]

    def gap(self, system: str) -> float:
        """Mean squared difference from the teacher's matrix: this layer's layer-wise term."""
        gap = self.matrices[system] - self.matrices["teacher"]
        return float(np.mean(np.square(gap)))


@dataclass
class GramPanel:
    """What is drawn of one utterance."""

    utterance: Utterance
    rows: list[GramRow]


@dataclass
class Comparison:
    """Teacher and student on speech.

    Attributes:
        panels: Gram matrices, one an utterance.
        similarity: Linear CKA by system, each ``(L_T + 1, L_S + 1)``.
        layer_map: Teacher state that each student state follows.
        utterances: How many the similarity was computed over.
        frames: Their frames.
        source: The ``wav.scp`` they come from.
        normalized: Whether states are layer-normalized first, as the objective did.
        teacher_params: The teacher's size.
    """

    layer_map: list[int]
    normalized: bool
    source: str
    teacher_params: int
    panels: list[GramPanel] = field(default_factory=list)
    similarity: dict[str, torch.Tensor] = field(default_factory=dict)
    utterances: int = 0
    frames: int = 0


def read_utterances(
    wav_scp: str | Path, count: int, scratch: str
) -> tuple[list[Utterance], list[str]]:
    """Some utterances, spread evenly over the file's sorted keys.

    Args:
        wav_scp: Kaldi-style table; audio of any rate and format.
        count: At most so many.
        scratch: Folder for audio that has to be converted.

    Returns:
        The utterances, shortest first, and the reasons for those that cannot be used.

    Raises:
        DataError: If the table is malformed or none of the utterances can be used.
    """
    paths = read_wav_scp(wav_scp)
    options = AudioOptions(
        fs=SAMPLE_RATE, min_samples=RECEPTIVE_FIELD, min_duration=0.0, max_duration=float("inf")
    )
    found, skipped = [], []
    for key in spread(sorted(paths), count):
        result = convert(Job(key, paths[key]), scratch, options)
        if result.reason:
            skipped.append(f"{key} ({result.reason})")
            continue
        wave = soundfile.read(result.path, dtype="float32")[0]
        found.append(Utterance(key, torch.from_numpy(wave)))
    if not found:
        raise DataError(
            f"{wav_scp}: none of {len(skipped)} utterances can be used: {some(skipped)}"
        )
    return sorted(found, key=lambda u: (len(u.wave), u.name)), skipped


def spread(items: Sequence, count: int) -> list:
    """At most ``count`` items at even distances, none of the ends preferred."""
    if count >= len(items):
        return list(items)
    return [items[int((index + 0.5) * len(items) / count)] for index in range(count)]


def choose_layers(wanted: Sequence[int] | None, num_layers: int) -> list[int]:
    """Student layers to draw: the first, the middle and the last unless told.

    Raises:
        StarError: If one is out of range.
    """
    if wanted is None:
        return sorted({1, (num_layers + 1) // 2, num_layers})
    wrong = [layer for layer in wanted if not 1 <= layer <= num_layers]
    if wrong:
        raise StarError(f"--layers {wrong[0]}: the student has layers 1 to {num_layers}")
    return sorted(set(wanted))


@torch.inference_mode()
def compare(
    result: Comparison,
    teacher: Encoder,
    students: Mapping[str, Encoder],
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    panels: int,
) -> None:
    """Run teacher and students over utterances and fill in a comparison.

    Args:
        result: Filled in.
        teacher: Frozen encoder.
        students: By system.
        utterances: Sorted by length.
        layers: Student layers whose Gram matrices are kept.
        panels: Utterances whose Gram matrices are kept, spread over the lengths.

    Raises:
        StarError: If an encoder gives features that are not finite.
    """
    drawn = {utterance.name for utterance in spread(utterances, panels)}
    totals = {system: LinearCKA(result.normalized) for system in students}
    for utterance in utterances:
        speech, lengths = utterance.wave[None], torch.tensor([len(utterance.wave)])
        targets = teacher.encode(speech, lengths)
        outputs = {"teacher": targets}
        for system, student in students.items():
            found = outputs[system] = student.encode(speech, lengths)
            together = frames_together(student.shape, teacher.shape)
            outputs["teacher"] = on_frames_of(found, targets, together)
            totals[system].update(outputs["teacher"], found)
        for system, found in outputs.items():
            if not all(torch.isfinite(state).all() for state in found.hidden_states):
                raise StarError(
                    f"utterance {utterance.name}: features of the {system} are NaN or infinite "
                    "although its audio is finite; check its weights"
                )
        if utterance.name in drawn:
            rows = [_gram_row(result, outputs, layer) for layer in layers]
            result.panels.append(GramPanel(utterance, rows))
    result.similarity = {system: total.similarity() for system, total in totals.items()}
    result.utterances = len(utterances)
    result.frames = next(iter(totals.values())).frames


def _gram_row(result: Comparison, outputs: dict[str, LayerOutputs], layer: int) -> GramRow:
    matrices = {}
    for system, found in outputs.items():
        index = result.layer_map[layer] if system == "teacher" else layer
        state = found.hidden_states[index][0, : int(found.lengths[0])]
        matrices[system] = gram_matrix(state, result.normalized).numpy()
    return GramRow(layer, result.layer_map[layer], matrices)
