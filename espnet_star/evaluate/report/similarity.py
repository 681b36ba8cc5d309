"""How alike two encoders are: temporal Gram matrices, and linear CKA of all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espnet_star.outputs import LayerOutputs


def gram_matrix(state: torch.Tensor, normalized: bool) -> torch.Tensor:
    """Temporal Gram matrix, as `TemporalGramLoss` compares it.

    Args:
        state: Valid frames of one utterance, ``(n, D)``.
        normalized: Layer-normalize each frame and divide by D (``target_norm: layer_norm``),
            so that the diagonal is 1.

    Returns:
        ``(n, n)`` in float64.
    """
    state = state.double()
    if normalized:
        state = _layer_norm(state) / state.shape[-1] ** 0.5
    return state @ state.T


def _layer_norm(state: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(state, state.shape[-1:])


class LinearCKA:
    r"""Linear centered kernel alignment of every teacher layer with every student layer.

    For centered features X and Y of the same n frames (Kornblith et al. 2019,
    arXiv 1905.00414):

    .. math:: \|Y^T X\|_F^2 / (\|X^T X\|_F \, \|Y^T Y\|_F)

    It is 1 for features that are the same up to rotation and scale. Centered products are
    accumulated utterance by utterance in float64 (Chan et al. 1979), so memory does not depend
    on the number of frames: ``8 (sum D_T) (sum D_S)`` bytes and those of the layers' own.
    With few frames beside the widths every pair looks alike: take ten times as many or more.

    Args:
        normalized: Layer-normalize each frame first, as ``target_norm: layer_norm`` does. The
            few huge entries of a residual stream otherwise decide alone.

    Example:
        >>> states = tuple(torch.randn(1, 50, 8) for _ in range(3))
        >>> outputs = LayerOutputs(states, torch.tensor([50]))
        >>> cka = LinearCKA()
        >>> cka.update(outputs, outputs)
        >>> [round(float(value), 6) for value in cka.similarity().diagonal()]
        [1.0, 1.0, 1.0]
    """

    def __init__(self, normalized: bool = False) -> None:
        self.normalized = normalized
        self.frames = 0

    def update(self, teacher: LayerOutputs, student: LayerOutputs) -> None:
        """Take in the valid frames of a batch.

        Args:
            teacher: Widths may differ from the student's.
            student: Of the same utterances.

        Raises:
            ValueError: If the two do not have the same valid frames.
        """
        if not torch.equal(teacher.lengths.cpu(), student.lengths.cpu()):
            raise ValueError(
                "teacher and student must have the same valid frames, got "
                f"{teacher.lengths.tolist()} and {student.lengths.tolist()}"
            )
        new_t, new_s = self._valid_frames(teacher), self._valid_frames(student)
        frames = new_t.shape[1]
        if frames == 0:
            return
        if self.frames == 0:
            self._start(new_t, new_s)
        mean_t, mean_s = new_t.mean(1), new_s.mean(1)
        new_t, new_s = new_t - mean_t[:, None], new_s - mean_s[:, None]
        shift_t, shift_s = mean_t - self.mean_t, mean_s - self.mean_s
        total = self.frames + frames
        scale = self.frames * frames / total
        self.cross.addmm_(_wide(new_t).T, _wide(new_s))
        self.cross.addr_(shift_t.flatten(), shift_s.flatten(), alpha=scale)
        for own, new, shift in ((self.own_t, new_t, shift_t), (self.own_s, new_s, shift_s)):
            own.baddbmm_(new.transpose(1, 2), new)
            own.baddbmm_(shift[:, :, None], shift[:, None], alpha=scale)
        self.mean_t += shift_t * (frames / total)
        self.mean_s += shift_s * (frames / total)
        self.frames = total

    def _valid_frames(self, outputs: LayerOutputs) -> torch.Tensor:
        """``(L + 1, n, D)`` in float64, padding left out."""
        mask = outputs.mask()
        frames = torch.stack([state[mask].double() for state in outputs.hidden_states])
        return _layer_norm(frames) if self.normalized else frames

    def _start(self, teacher: torch.Tensor, student: torch.Tensor) -> None:
        (layers_t, _, width_t), (layers_s, _, width_s) = teacher.shape, student.shape
        self.mean_t = teacher.new_zeros(layers_t, width_t)
        self.mean_s = teacher.new_zeros(layers_s, width_s)
        self.own_t = teacher.new_zeros(layers_t, width_t, width_t)
        self.own_s = teacher.new_zeros(layers_s, width_s, width_s)
        self.cross = teacher.new_zeros(layers_t * width_t, layers_s * width_s)

    def similarity(self) -> torch.Tensor:
        """Similarity of the frames seen so far.

        Returns:
            ``(L_T + 1, L_S + 1)`` in float64; not a number where a layer is constant.

        Raises:
            ValueError: Without at least two frames.
        """
        if self.frames < 2:
            raise ValueError(f"similarity needs two frames or more, got {self.frames}")
        (layers_t, width_t), (layers_s, width_s) = self.mean_t.shape, self.mean_s.shape
        blocks = self.cross.view(layers_t, width_t, layers_s, width_s)
        # A layer at a time: the squares of all at once would double the memory.
        joint = torch.stack([block.square().sum((0, 2)) for block in blocks])
        norms_t = torch.linalg.matrix_norm(self.own_t)
        norms_s = torch.linalg.matrix_norm(self.own_s)
        return joint / (norms_t[:, None] * norms_s)


def _wide(states: torch.Tensor) -> torch.Tensor:
    """``(L + 1, n, D) -> (n, (L + 1) D)``, layers side by side."""
    return states.transpose(0, 1).flatten(1)


def followed(similarity: torch.Tensor, layer_map: Sequence[int]) -> float:
    """Mean similarity of the student's layers with those they follow.

    Args:
        similarity: Of :meth:`LinearCKA.similarity`.
        layer_map: Teacher state of each student state, as `Experiment.compared` gives it.
    """
    pairs = [similarity[t, s] for s, t in enumerate(layer_map) if s > 0]
    return float(torch.stack(pairs).mean())
