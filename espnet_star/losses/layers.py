"""Which states an objective compares: layer with layer, frame with frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from espnet_star.encoders.base import Shape, Want
from espnet_star.encoders.inner import FEED_FORWARD, PROJECTION, feed_forward, kind_and_layer
from espnet_star.errors import StarError
from espnet_star.outputs import Layer, LayerOutputs

Group = tuple[Layer, ...]


@dataclass(frozen=True)
class Pairs:
    """Layers of the student and those of the teacher that they follow.

    Attributes:
        student: States, one or several a pair, whose mean is compared.
        teacher: As many pairs of the teacher's.
    """

    student: tuple[Group, ...]
    teacher: tuple[Group, ...]

    def wants(self) -> tuple[Want, Want]:
        """What to ask of student and teacher."""
        return want_of(sum(self.student, ())), want_of(sum(self.teacher, ()))

    def of_student(self, outputs: LayerOutputs) -> list[torch.Tensor]:
        """States ``(B, N, D_S)``, one a pair."""
        return [_mean(outputs, group) for group in self.student]

    def of_teacher(self, outputs: LayerOutputs) -> list[torch.Tensor]:
        """States ``(B, N, D_T)``, one a pair."""
        return [_mean(outputs, group) for group in self.teacher]

    def __iter__(self) -> Iterator[tuple[Group, Group]]:
        return iter(zip(self.student, self.teacher, strict=True))


def want_of(layers: Iterable[Layer]) -> Want:
    """What to ask of an encoder for these states."""
    layers = set(layers)
    numbered = frozenset(layer for layer in layers if isinstance(layer, int))
    inner = frozenset(layer for layer in layers if isinstance(layer, str))
    # One state at least, for its frames.
    return Want(numbered or frozenset({0}), inner=inner)


def number_of(layer: Layer) -> int:
    """Where a state stands among those numbered 0 to L; an inner one at that of its layer."""
    return layer if isinstance(layer, int) else kind_and_layer(layer)[1]


def _mean(outputs: LayerOutputs, group: Group) -> torch.Tensor:
    states = [outputs.state(layer) for layer in group]
    return states[0] if len(states) == 1 else torch.stack(states).mean(dim=0)


def spread(student: Shape, teacher: Shape) -> list[int]:
    """Teacher state that each student state follows when both depths are filled evenly.

    Returns:
        ``L_S + 1`` indices; the first follows the first and the last the last.
    """
    step = teacher.layers / student.layers
    return [0] + [max(1, round(step * (layer + 1))) for layer in range(student.layers)]


def rising(student: Shape, teacher: Shape, layer_map: Sequence[int] | None = None) -> Pairs:
    """Every state of the student with one of the teacher's, in order.

    Args:
        student: Its shape.
        teacher: Its shape.
        layer_map: Teacher layer (1 to L_T) for each student layer, or None to spread
            them evenly with the last following the last. The inputs of the first layers
            follow each other.

    Raises:
        StarError: If the map has the wrong length, leaves the range, or falls.
    """
    if layer_map is None:
        if student.layers > teacher.layers:
            raise StarError(
                f"the student has {student.layers} layers and the teacher {teacher.layers}; "
                "give layer_map, one teacher layer for each student layer"
            )
        chosen = spread(student, teacher)
    else:
        chosen = [0, *(int(layer) for layer in layer_map)]
        if len(chosen) != student.layers + 1:
            raise StarError(
                f"layer_map must name one teacher layer for each of {student.layers} student "
                f"layers, got {chosen[1:]}"
            )
        if chosen[1] < 1 or chosen[-1] > teacher.layers or chosen != sorted(chosen):
            raise StarError(
                f"layer_map must rise within 1..{teacher.layers} (the teacher's layers), got "
                f"{chosen[1:]}"
            )
    return Pairs(tuple((s,) for s in range(student.layers + 1)), tuple((t,) for t in chosen))


def pairs(student: Shape, teacher: Shape, layers: Sequence[Any]) -> Pairs:
    """Any layers with any layers.

    Args:
        student: Its shape.
        teacher: Its shape.
        layers: ``[STUDENT, TEACHER]`` a pair, each a state from 0 to L, -1 for the last,
            ``projection`` (before the positional convolution), ``{feed_forward: 5}`` (what
            the feed-forward part of layer 5 adds; a list means several), or a list of such,
            whose mean is compared.

    Raises:
        StarError: Naming the pair that is none, or the layer that is not there.
    """
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise StarError(f"layers must be a list of pairs such as [[-1, -1]], got {layers!r}")
    found = []
    for entry in layers:
        if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 2:
            raise StarError(f"layers must be pairs of student and teacher layer, got {entry!r}")
        sides = zip(entry, (student, teacher), ("student", "teacher"), strict=True)
        found.append([choose_layers(side, shape, name) for side, shape, name in sides])
    if not found:
        raise StarError("layers is empty; give at least one pair, e.g. [[-1, -1]]")
    return Pairs(tuple(side for side, _ in found), tuple(side for _, side in found))


def every_layer(student: Shape, teacher: Shape) -> Pairs:
    """Every layer of the student with one of the teacher's, spread evenly over both depths."""
    return pairs(student, teacher, list(enumerate(spread(student, teacher)))[1:])


def choose_layers(layers: Any, shape: Shape, name: str) -> Group:
    """Indices of the states that an option names.

    Args:
        layers: A state from 0 to L, -1 for the last, ``projection``,
            ``{feed_forward: LAYERS}``, or a list of them.
        shape: Whose they are.
        name: What messages call it.

    Raises:
        StarError: Naming the layer that is not there.
    """
    listed = layers if isinstance(layers, (list, tuple)) and layers else [layers]
    return tuple(found for layer in listed for found in _layers(layer, shape, name))


def _layers(layer: Any, shape: Shape, name: str) -> list[Layer]:
    last = shape.layers
    if layer == PROJECTION:
        return [PROJECTION]
    if isinstance(layer, Mapping) and list(layer) == [FEED_FORWARD]:
        inside = layer[FEED_FORWARD]
        parts = inside if isinstance(inside, (list, tuple)) and inside else [inside]
        if all(_is_whole(part) and part and -last <= part <= last for part in parts):
            return [feed_forward(part % (last + 1)) for part in parts]
    elif _is_whole(layer) and -last - 1 <= layer <= last:
        return [layer % (last + 1)]
    raise StarError(
        f"layers: the {name} has states 0 to {last} (-1 is the last), projection and "
        f"{{feed_forward: 1 to {last}}}, got {layer!r}"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def frames_together(student: Shape, teacher: Shape) -> int:
    """Frames of the teacher in one of the student's.

    Raises:
        StarError: If the student is not slower by a whole number, or has frames where the
            teacher has none.
    """
    together, rest = divmod(student.hop, teacher.hop)
    if rest or not together:
        raise StarError(
            f"the student has {student.rate:g} frames/s and the teacher {teacher.rate:g}; the "
            "teacher's must be the same or a multiple"
        )
    if student.field < teacher.field or (together == 1 and student.field != teacher.field):
        raise StarError(
            f"a frame of the student sees {student.field} samples, one of the teacher "
            f"{teacher.field}, so that their numbers of frames do not fit together"
        )
    return together


def on_frames_of(student: LayerOutputs, teacher: LayerOutputs, together: int) -> LayerOutputs:
    """The teacher's states on the student's frames, each the mean of its own.

    Args:
        student: Says which frames there are.
        teacher: Of the same utterances.
        together: See :func:`frames_together`.

    Raises:
        ValueError: If their valid frames do not fit together.
    """
    lengths = teacher.lengths.to(student.lengths.device)
    if together == 1:
        # A GPU is not waited for: equal hops and fields have told already.
        if not lengths.is_cuda and not torch.equal(student.lengths, lengths):
            raise ValueError(
                "student and teacher must have the same valid frames, got "
                f"{student.lengths.tolist()} and {lengths.tolist()}"
            )
        return teacher
    if bool(((lengths + together - 1) // together < student.lengths).any()):
        raise ValueError(
            f"{student.lengths.tolist()} frames of the student are more than the teacher's "
            f"{lengths.tolist()}, {together} of them to one"
        )
    size = together * student.hidden_states[0].shape[1]
    mask = _fit(teacher.mask()[..., None], size)
    counts = mask.unflatten(1, (-1, together)).sum(dim=2).clamp(min=1)

    def means(state: torch.Tensor) -> torch.Tensor:
        kept = torch.where(mask, _fit(state, size), 0.0)
        return kept.unflatten(1, (-1, together)).sum(dim=2) / counts

    return teacher.each(means, lengths=student.lengths, attentions=None)


def _fit(x: torch.Tensor, size: int) -> torch.Tensor:
    """Cut or zero-pad ``(B, N, D)`` to ``(B, size, D)``."""
    return F.pad(x, (0, 0, 0, size - x.shape[1]))
