"""UniSpeech-SAT's contrastive term: which frames are of the same utterance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError
from espnet_star.losses.base import Objective, Stats
from espnet_star.losses.layers import choose_layers, want_of
from espnet_star.outputs import LayerOutputs, at_least_float32


class UtteranceContrastLoss(Objective):
    r"""Binary decisions whether masked frames are of one utterance (arXiv 2110.05752).

    A masked frame x of one layer gives an anchor ``p = Linear(x)`` and a target ``y``, which is
    p itself or ``Linear(VQ(x))``. Candidates of an anchor are its own target and ``negatives``
    drawn with replacement from those of the whole batch. With ``z = cos(p, candidate) /
    temperature`` and label 1 for candidates of the anchor's utterance, else 0,

    .. math::
        \mathrm{mean}\; \mathrm{BCE}(\sigma(z), \mathrm{label})

    over all anchors and candidates; gradients flow into both. With a quantizer of G codebooks
    with V entries each, ``diversity_weight`` times a term is added that is least where all
    entries are used alike: :math:`(GV - \sum_g e^{H(\bar p_g)}) / (GV)`, of the mean softmax of
    each codebook.

    Unlike other objectives this one is about a batch: an utterance alone has nothing to be
    told from. Padded frames are neither anchors nor candidates; a view whose mask holds as
    many frames in every utterance weighs all utterances alike.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like; it takes no part.
        layer: Whose states are used, -1 for the last.
        final_dim: Width in which anchors and targets are compared.
        negatives: Candidates besides the anchor's own.
        temperature: Divides cosines.
        quantizer: Whether targets pass vector quantization (Gumbel softmax).
        groups: Codebooks of the quantizer.
        codes: Entries of each.
        gumbel: Temperature of the Gumbel softmax at first, its least, and its factor from one
            batch of training to the next.
        diversity_weight: Weight of the diversity term, wav2vec 2.0's by default.

    Raises:
        StarError: If the layer is not there, or ``final_dim`` is no multiple of ``groups``.
    """

    source = "utterance contrast (arXiv 2110.05752)"
    terms = {"contrast": "Utterance contrast", "diversity": "Codebook diversity"}  # noqa: RUF012
    inputs = ("student",)
    across_ranks = "loss utterance_contrast tells utterances of a rank's own part of a batch apart"

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        layer: int = 6,
        final_dim: int = 256,
        negatives: int = 100,
        temperature: float = 0.1,
        quantizer: bool = False,
        groups: int = 2,
        codes: int = 320,
        gumbel: Sequence[float] = (2.0, 0.5, 0.999995),
        diversity_weight: float = 0.1,
    ):
        super().__init__(student, student)
        (self.layer,) = choose_layers(layer, student, "student")
        self.negatives, self.temperature = negatives, temperature
        self.diversity_weight = diversity_weight
        width = student.width
        self.norm = torch.nn.LayerNorm(width) if student.pre_norm else torch.nn.Identity()
        self.anchor = torch.nn.Linear(width, final_dim)
        if quantizer and final_dim % groups:
            raise StarError(
                f"loss utterance_contrast: final_dim {final_dim} must be a multiple of the "
                f"{groups} groups of the quantizer"
            )
        self.quantizer = Quantizer(width, final_dim, groups, codes, gumbel) if quantizer else None

    def wants(self) -> tuple[Want, ...]:
        """One layer of the student."""
        return (want_of([self.layer]),)

    def forward(  # type: ignore[override]
        self, student: LayerOutputs
    ) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`.

        Raises:
            StarError: If the student's input has no mask.
        """
        if student.masked is None:
            raise StarError(
                "loss utterance_contrast compares masked frames, and the view masks none of the "
                "student's; choose a view with masks"
            )
        utterance, frame = (student.masked & student.mask()).nonzero(as_tuple=True)
        state = student.state(self.layer)[utterance, frame]
        with torch.autocast(device_type=state.device.type, enabled=False):
            x = self.norm(at_least_float32(state))
            anchors = self.anchor(x)
            targets, diversity = anchors, None
            if self.quantizer is not None:
                targets, diversity = self.quantizer(x)
            logits, same = self._decisions(anchors, targets, utterance)
            gaps = F.binary_cross_entropy_with_logits(logits, same, reduction="sum")
            value = gaps / max(same.numel(), 1)
            terms = {"contrast": value.detach()}
            if diversity is not None:
                value = value + self.diversity_weight * diversity
                terms["diversity"] = diversity.detach()
        return value, terms

    def draw(self, frames: int, device: torch.device) -> torch.Tensor:
        """Candidates besides its own of each masked frame, ``(frames, negatives)``.

        They are drawn from torch's global generator, which the trainer seeds anew every epoch.
        """
        return torch.randint(max(frames, 1), (frames, self.negatives), device=device)

    def _decisions(
        self, anchors: torch.Tensor, targets: torch.Tensor, utterance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels, ``(frames, 1 + negatives)``, the own target first."""
        own = torch.arange(len(anchors), device=anchors.device)
        candidates = torch.cat((own[:, None], self.draw(len(anchors), anchors.device)), dim=1)
        # All pairs are cheaper than a copy of the targets for each candidate.
        cosines = F.normalize(anchors, dim=-1) @ F.normalize(targets, dim=-1).T
        same = utterance[candidates] == utterance[:, None]
        return cosines.gather(1, candidates) / self.temperature, same.to(cosines.dtype)


class Quantizer(torch.nn.Module):
    """Vector quantization by a Gumbel softmax (wav2vec 2.0), hard in both directions.

    In training entries are drawn and the gradient is the softmax's; in evaluation the most
    likely ones are taken.

    Args:
        width: Of its input.
        final_dim: Of its output; each codebook gives an equal part before the last layer.
        groups: Codebooks.
        codes: Entries of each.
        gumbel: See :class:`UtteranceContrastLoss`.
    """

    def __init__(
        self, width: int, final_dim: int, groups: int, codes: int, gumbel: Sequence[float]
    ):
        super().__init__()
        if len(gumbel) != 3:
            raise StarError(
                f"loss utterance_contrast: gumbel must be 3 numbers, got {list(gumbel)}"
            )
        self.first, self.least, self.factor = gumbel
        self.choose = torch.nn.Linear(width, groups * codes)
        torch.nn.init.normal_(self.choose.weight)
        torch.nn.init.zeros_(self.choose.bias)
        self.codebooks = torch.nn.Parameter(torch.rand(groups, codes, final_dim // groups))
        self.output = torch.nn.Linear(final_dim, final_dim)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantized frames ``(K, final_dim)`` of ``(K, width)``, and the diversity term."""
        groups, codes, _ = self.codebooks.shape
        logits = self.choose(x).unflatten(-1, (groups, codes))
        if self.training:
            # A tensor, so that no GPU is waited for.
            heat = (self.first * self.factor**self.batches).clamp(min=self.least).to(logits)
            chosen = F.gumbel_softmax(logits, tau=heat, hard=True)  # type: ignore[arg-type]
            self.batches += 1
        else:
            chosen = F.one_hot(logits.argmax(dim=-1), codes).to(logits)
        picked = torch.einsum("kgv,gvd->kgd", chosen, self.codebooks.to(logits)).flatten(1)
        used = logits.softmax(dim=-1).sum(dim=0) / max(len(x), 1)
        entropy = -(used * (used + 1e-7).log()).sum(dim=-1)
        return self.output(picked), 1 - entropy.exp().sum() / (groups * codes)
