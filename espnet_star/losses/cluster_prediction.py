"""Labels of frames, recognized by the student: HuBERT's objective and its relatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espnet_star.data.centroids import Centroids, squared_distances
from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.base import Objective, Stats
from espnet_star.losses.layers import choose_layers, want_of
from espnet_star.outputs import LayerOutputs, at_least_float32

LOGITS = ("cosine", "linear")


class ClusterPredictionLoss(Objective):
    r"""Cross entropy against a label for each frame.

    HuBERT's masked prediction of cluster labels by default; DiceHuBERT (arXiv 2507.02911) has
    ``final_dim: 128``, Fast-HuBERT (2309.13860) ``logits: linear`` with two ``layers``. As in
    MelHuBERT's distillation (2211.09949), ``logits: linear, temperature: 1, alpha: 1`` follows
    a teacher's posterior, here that of ``centroids`` instead of the teacher's own head.

    Labels are those that the view gives the student's frames. With weights w of masked and
    other frames,

    .. math::
        (1 - \alpha) \frac{1}{L\,|F|} \sum_{l} \sum_{f \in F} w_f\, \mathrm{CE}_{l,f}
        + \alpha \frac{1}{L\,|G|} \sum_{l} \sum_{f \in G} w_f\,
        \mathrm{KL}(q_f \,\|\, \mathrm{softmax}(z_{l,f} / T)),

    where G are the frames whose weight is not 0, F those of G with a label, q the teacher's
    posterior at temperature T and z the student's logits; no factor of T squared. Where a view
    gives no mask, all frames have weight 1. The value is of one utterance, and the mean over
    utterances is taken after it, so that it does not matter what it shares a batch with; the
    authors divide by the frames of the batch, which is the same where the mask holds as many
    in every utterance, as theirs does.

    The posterior is that of the mixture of Gaussians that k-means stands for, with equal
    weights and variances: ``softmax(-|h - c|^2 / (2 v))`` with the variance v of the file.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        clusters: How many labels there are; to be given.
        layers: State of the student that predicts, -1 for the last, or a list of them.
        logits: ``cosine`` of a projection with an embedding of each label, or ``linear``.
        final_dim: Width of projection and embeddings.
        temperature: Divides the logits.
        masked_weight: Weight of masked frames.
        unmasked_weight: Weight of the others.
        alpha: Share of the teacher's posterior; with 0 no teacher is run.
        soft_temperature: T; divides the logits of student and teacher once more.
        centroids: File of ``star_clusters`` that makes the teacher's logits.
        posterior_temperature: Divides the teacher's squared distances instead of 2 v.

    Raises:
        StarError: If an option is none of these, or the centroids do not fit the teacher or
            ``clusters``.
    """

    source = "prediction of cluster labels"
    terms = {  # noqa: RUF012
        "prediction": "Cluster prediction",
        "accuracy": "Accuracy of clusters",
        "soft": "Divergence from the teacher's clusters",
    }
    label_option = "clusters"

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        clusters: int = 0,
        layers: int | Sequence[int] = -1,
        logits: str = "cosine",
        final_dim: int = 256,
        temperature: float = 0.1,
        masked_weight: float = 1.0,
        unmasked_weight: float = 0.0,
        alpha: float = 0.0,
        soft_temperature: float = 1.0,
        centroids: str | None = None,
        posterior_temperature: float | None = None,
    ):
        # Labels are 50 a second whatever the teacher is, which need not fit without a posterior.
        super().__init__(student, teacher if alpha else student)
        _check(clusters, logits, temperature, alpha, soft_temperature)
        self.clusters = clusters
        self.weights = (masked_weight, unmasked_weight)
        self.alpha, self.soft_temperature = alpha, soft_temperature
        self.layers = choose_layers(layers, student, "student")
        make = _Cosine if logits == "cosine" else _Linear
        self.heads = torch.nn.ModuleList(
            make(student.width, clusters, temperature, final_dim) for _ in self.layers
        )
        self.posterior: torch.nn.Module | None = None
        if alpha:
            self.inputs = ("student", "teacher")
            found = load_centroids(centroids, clusters, teacher)
            self.teacher_layer = found.layer
            self.posterior = _Posterior(found, posterior_temperature)
        else:
            self.inputs = ("student",)

    def wants(self) -> tuple[Want, ...]:
        """The layers that predict, and the teacher's that was clustered."""
        ours = want_of(self.layers)
        return (ours, want_of([self.teacher_layer])) if self.alpha else (ours,)

    def forward(
        self, student: LayerOutputs, teacher: LayerOutputs | None = None
    ) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`; the teacher is needed for its posterior only.

        Raises:
            StarError: If there are no labels, or one beyond ``clusters``.
        """
        labels, weights = self._labels(student), self._weights(student)
        hard, soft = _scale(weights, labels >= 0), _scale(weights, weights != 0)
        # Only frames that count: most of the work is in the logits.
        at = ((soft if self.alpha else hard) != 0).flatten().nonzero()[:, 0]
        picked, hard, soft = labels.flatten()[at], hard.flatten()[at], soft.flatten()[at]
        even = _scale((weights != 0).to(weights), labels >= 0).flatten()[at]
        sums = dict.fromkeys(("prediction", "accuracy", "soft"), hard.new_zeros(()))
        with torch.autocast(device_type=at.device.type, enabled=False):
            theirs = self._teacher_logits(teacher, labels.shape[1], at)
            for layer, head in zip(self.layers, self.heads, strict=True):
                logits = head(at_least_float32(student.state(layer).flatten(0, 1)[at]))
                losses = F.cross_entropy(logits, picked, reduction="none", ignore_index=-1)
                right = logits.argmax(dim=-1) == picked
                sums["prediction"] = sums["prediction"] + (losses * hard).sum()
                sums["accuracy"] = sums["accuracy"] + (right * even).sum()
                if theirs is not None:
                    gaps = divergence(logits, theirs, self.soft_temperature)
                    sums["soft"] = sums["soft"] + (gaps * soft).sum()
        means = {name: value / len(self.layers) for name, value in sums.items()}
        value = (1 - self.alpha) * means["prediction"] + self.alpha * means["soft"]
        if not self.alpha:
            del means["soft"]
        return value, {name: mean.detach() for name, mean in means.items()}

    def _labels(self, student: LayerOutputs) -> torch.Tensor:
        """Label of each valid frame, -1 for none."""
        mask, labels = student.mask(), student.labels
        if labels is None and self.alpha == 1:
            return torch.full_like(mask, -1, dtype=torch.long)
        if labels is None:
            raise StarError(
                "loss cluster_prediction needs labels of frames, and the view gives none; choose "
                "a view that reads labels"
            )
        labels = torch.where(mask, labels.to(mask.device), -1)
        if int(labels.max()) >= self.clusters:
            raise StarError(
                f"loss cluster_prediction: label {int(labels.max())} is beyond clusters: "
                f"{self.clusters} (0 to {self.clusters - 1}); give as many as the labels have"
            )
        return labels.clamp(min=-1)

    def _weights(self, student: LayerOutputs) -> torch.Tensor:
        """Weight of each frame, 0 past an end, in the type of the loss."""
        valid = student.mask()
        weights = at_least_float32(student.hidden_states[0].new_zeros(())) + valid
        if student.masked is not None:
            masked, other = self.weights
            weights = weights * torch.where(student.masked, masked, other)
        return weights

    def _teacher_logits(
        self, teacher: LayerOutputs | None, frames: int, at: torch.Tensor
    ) -> torch.Tensor | None:
        """Of the frames that count: as for labels, the first of those in one of the student's."""
        if self.posterior is None or teacher is None:
            return None
        state = teacher.state(self.teacher_layer).detach()[:, :: self.together]
        state = state[:, :frames].flatten(0, 1).to(at.device)
        return self.posterior(at_least_float32(state[at]))


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence of the student's posterior from the teacher's, of each frame.

    Args:
        student: Logits ``(K, C)``.
        teacher: Logits ``(K, C)``.
        temperature: Divides both.

    Returns:
        ``(K,)``, summed over classes, without a factor of the temperature.
    """
    ours, theirs = (F.log_softmax(z / temperature, dim=-1) for z in (student, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)


def load_centroids(path: str | None, clusters: int, teacher: Shape) -> Centroids:
    """Centroids that make the teacher's posterior.

    Raises:
        StarError: If there are none, or they are not of such a teacher.
    """
    if path is None:
        raise StarError(
            "loss cluster_prediction: alpha needs the teacher's posterior; give centroids, a "
            "file that star_clusters writes"
        )
    found = Centroids.load(path)
    count, width = found.means.shape
    if count != clusters or width != teacher.width or found.layer > teacher.layers:
        raise StarError(
            f"{path} has {count} centroids of width {width} at layer {found.layer}; expected "
            f"{clusters} (clusters) of the teacher's width {teacher.width} and layers 0 to "
            f"{teacher.layers}"
        )
    return found


class _Posterior(torch.nn.Module):
    """Logits by squared distance from centroids, which are in a file and in no checkpoint."""

    means: torch.Tensor

    def __init__(self, centroids: Centroids, temperature: float | None):
        super().__init__()
        self.register_buffer("means", centroids.means, persistent=False)
        self.temperature = temperature or 2 * centroids.variance
        if not self.temperature > 0:
            raise StarError(
                "posterior_temperature of loss cluster_prediction must be above 0, got "
                f"{self.temperature:g}"
            )

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return -squared_distances(state, self.means.to(state)) / self.temperature


class _Cosine(torch.nn.Module):
    """HuBERT's head: cosines of a projection with label embeddings."""

    def __init__(self, width: int, clusters: int, temperature: float, final_dim: int):
        super().__init__()
        self.projection = torch.nn.Linear(width, final_dim)
        self.embeddings = torch.nn.Parameter(torch.rand(clusters, final_dim))
        self.temperature = temperature

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        projected = F.normalize(self.projection(state), dim=-1)
        return projected @ F.normalize(self.embeddings, dim=-1).T / self.temperature


class _Linear(torch.nn.Module):
    """A linear layer straight to the labels."""

    def __init__(self, width: int, clusters: int, temperature: float, _: int):
        super().__init__()
        self.output = torch.nn.Linear(width, clusters)
        self.temperature = temperature

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(state) / self.temperature
        return logits


def _check(
    clusters: int, logits: str, temperature: float, alpha: float, soft_temperature: float
) -> None:
    if logits not in LOGITS:
        raise unknown_name("logits of loss cluster_prediction", str(logits), LOGITS)
    for option, value, right, expected in (
        ("clusters", clusters, isinstance(clusters, int) and clusters > 0, "a number above 0"),
        ("temperature", temperature, temperature > 0, "above 0"),
        ("soft_temperature", soft_temperature, soft_temperature > 0, "above 0"),
        ("alpha", alpha, 0 <= alpha <= 1, "0 to 1"),
    ):
        if not right:
            raise StarError(f"{option} of loss cluster_prediction must be {expected}, got {value}")


def _scale(weights: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Factors that make of a sum over frames the mean over utterances of a mean over frames."""
    counted = counted & (weights != 0)
    frames = counted.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(counted, weights / frames / len(weights), 0.0)
