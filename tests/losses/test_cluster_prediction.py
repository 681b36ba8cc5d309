import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from espnet_star.data.centroids import Centroids
from espnet_star.data.labels import on_frames
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import build_losses, label_count
from espnet_star.losses.cluster_prediction import ClusterPredictionLoss
from espnet_star.outputs import HOP, LayerOutputs

SHAPE = Shape(layers=4, width=6)
CLUSTERS = 5


def objective(shape=SHAPE, teacher=SHAPE, **conf):
    return ClusterPredictionLoss(shape, teacher, **({"clusters": CLUSTERS} | conf))


def outputs(states, lengths, labels=None, masked=None):
    """Of all layers, or one for each of a mapping's keys."""
    given = states if isinstance(states, dict) else dict(enumerate(states))
    return LayerOutputs(
        tuple(given.values()),
        torch.tensor(lengths),
        layers=tuple(given),
        labels=labels,
        masked=masked,
    )


@pytest.fixture
def centroids(tmp_path):
    path = tmp_path / "centroids.safetensors"
    Centroids(torch.randn(CLUSTERS, SHAPE.width), 3, 0.7).save(path)
    return str(path)


@pytest.mark.parametrize("suffix", ["", "_nomask"])
def test_fast_huberts_loss(reference, suffix):
    """Fails if labels of a slower student, two layers, weights or the divisor are not theirs."""
    data = {
        k: torch.from_numpy(v)
        for k, v in np.load(reference("fasthubert.npz")).items()
        if v.dtype.kind in "fib"
    }
    (total,) = [k for k in data if re.fullmatch(rf"loss_sum{suffix}[\d.]*", k)]
    weight = float(total.removeprefix("loss_sum_nomask")) if suffix else 0.0
    masked = data["mask"]
    logits = {}
    for layer in range(sum(key.startswith("logits_masked_") for key in data)):
        both = data[f"logits_masked_{layer}"], data[f"logits_unmasked_{layer}"]
        logits[layer + 1] = torch.zeros(*masked.shape, both[0].shape[1])
        logits[layer + 1][masked], logits[layer + 1][~masked] = both
    clusters = both[0].shape[1]
    shape = Shape(layers=len(logits), width=clusters, hop=2 * HOP)
    conf = {"clusters": clusters, "logits": "linear", "unmasked_weight": weight}
    loss = objective(shape, shape, layers=list(logits), **conf)
    # The file's logits are already divided; the head hands them through.
    loss.heads = torch.nn.ModuleList(torch.nn.Identity() for _ in logits)
    labels = on_frames(data["targets50hz"], masked.shape[1], shape.hop)
    found, size = 0.0, 0
    for row in range(len(masked)):
        one = outputs(
            {k: v[row : row + 1] for k, v in logits.items()},
            [masked.shape[1]],
            labels[row : row + 1],
            masked[row : row + 1],
        )
        counted = len(logits) * int(masked.shape[1] if weight else masked[row].sum())
        found, size = found + counted * loss(one)[0].item(), size + counted
    assert size == int(data[total.replace("loss_sum", "sample_size")])
    assert found == pytest.approx(float(data[total]), rel=1e-5)
    for layer in range(len(logits)):
        assert labels[masked].equal(data[f"targets_masked_{layer}"].long())


@pytest.mark.parametrize("name", ["q", "nq"])
def test_unispeech_sats_masked_prediction(reference, name):
    """Fails if HuBERT's cosine head or its temperature is another."""
    data = np.load(reference("unispeech_sat.npz"))
    x, weight, bias, embeddings, target, logits = (
        torch.from_numpy(data[f"{name}_{key}"])
        for key in (
            "x_masked",
            "final_proj_weight",
            "final_proj_bias",
            "label_embs",
            "targets_masked",
            "logit_m",
        )
    )
    shape = Shape(layers=1, width=x.shape[1])
    loss = objective(shape, shape, clusters=len(embeddings), final_dim=len(weight))
    loss.heads[0].load_state_dict(
        {"projection.weight": weight, "projection.bias": bias, "embeddings": embeddings}
    )
    masked = torch.ones(1, len(x), dtype=torch.bool)
    value, _ = loss(outputs({1: x[None]}, [len(x)], target[None], masked))
    assert value.item() * len(x) == pytest.approx(float(data[f"{name}_ce_sum"]), rel=1e-5)
    # Their first column is the target, which stands at minus infinity among the others.
    found = loss.heads[0](x)
    torch.testing.assert_close(
        found.gather(1, target[:, None]), logits[:, :1], rtol=1e-4, atol=1e-5
    )
    others = logits[:, 1:].isfinite()
    torch.testing.assert_close(found[others], logits[:, 1:][others], rtol=1e-4, atol=1e-5)


def test_melhuberts_distillation(reference):
    """Fails if the direction, a factor of the temperature or ignored labels are not theirs."""
    data = {k: torch.from_numpy(v) for k, v in np.load(reference("melhubert_kd.npz")).items()}
    ours, theirs = data["student_logits"], data["teacher_logits"]
    frames, clusters = ours.shape
    shape = Shape(layers=1, width=clusters)
    labels = data["labels"].clamp(min=-1)[None]

    def run(student, alpha, temperature=1.0):
        loss = objective(shape, shape, clusters=clusters, logits="linear")
        loss.heads[0], loss.posterior, loss.teacher_layer = torch.nn.Identity(), None, 1
        if alpha:
            loss.posterior = torch.nn.Identity()
        loss.alpha, loss.soft_temperature = alpha, temperature
        teacher = outputs({1: theirs[None]}, [frames])
        return loss(outputs({1: student[None]}, [frames], labels), teacher)

    settings = {match[0] for key in data if (match := re.match(r"T[\d.]+_a[\d.]+", key))}
    assert settings
    for setting in settings:
        temperature, alpha = map(float, re.findall(r"[\d.]+", setting))
        value, terms = run(ours, alpha, temperature)
        found = {"total": value, "hard": terms["prediction"], "soft": terms["soft"]}
        found["teacher"] = run(theirs, 0.0)[0]
        for key, number in found.items():
            assert number.item() == pytest.approx(float(data[f"{setting}_{key}"]), rel=1e-9), key
    for key in data:
        if match := re.fullmatch(r"grad_T([\d.]+)_a([\d.]+)", key):
            leaf = ours.clone().requires_grad_()
            run(leaf, float(match[2]), float(match[1]))[0].backward()
            torch.testing.assert_close(leaf.grad, data[key], rtol=1e-8, atol=1e-12)


def test_a_batch_is_the_mean_of_its_utterances(centroids):
    """Fails if padding counts, or if long utterances outweigh short ones in a batch."""
    torch.manual_seed(0)
    lengths = [7, 1, 4]
    states = [torch.randn(3, 7, SHAPE.width).double() for _ in range(5)]
    teacher = [torch.randn(3, 7, SHAPE.width).double() for _ in range(5)]
    labels, masked = torch.randint(-1, CLUSTERS, (3, 7)), torch.rand(3, 7) < 0.5
    for row, length in enumerate(lengths):
        for state in states:
            state[row, length:] = torch.nan
    for conf in (
        {},
        {"layers": [2, -1], "logits": "linear", "unmasked_weight": 0.3},
        {"alpha": 0.4, "centroids": centroids, "soft_temperature": 2.0},
    ):
        loss = objective(**conf).double()
        leaves = [state.clone().requires_grad_() for state in states]

        def run(rows, size, given, loss=loss):
            pair = (
                outputs(
                    [s[rows, :size] for s in given],
                    lengths[rows],
                    labels[rows, :size],
                    masked[rows, :size],
                ),
                outputs([s[rows, :size] for s in teacher], lengths[rows]),
            )
            return loss(*pair[: len(loss.inputs)])

        together, terms = run(slice(0, 3), 7, leaves)
        alone = [run(slice(r, r + 1), n, states)[0].item() for r, n in enumerate(lengths)]
        assert together.item() == pytest.approx(sum(alone) / 3, rel=1e-10)
        assert 0 <= terms["accuracy"].item() <= 1
        assert ("soft" in terms) is ("alpha" in conf)
        together.backward()
        used = leaves[-1].grad[torch.tensor(lengths)[:, None] > torch.arange(7)]
        assert used.isfinite().all() and used.abs().sum() > 0


def test_the_posterior_is_that_of_the_centroids(centroids):
    """Fails if the teacher's logits grow with the distance, or another layer is read."""
    found = Centroids.load(centroids)
    loss = objective(alpha=1.0, centroids=centroids)
    assert [set(want.states) for want in loss.wants()] == [{4}, {3}]
    assert loss.inputs == ("student", "teacher")
    mixture = torch.distributions.Normal(found.means, found.variance**0.5)
    x = torch.randn(6)
    expected = mixture.log_prob(x).sum(dim=1).softmax(dim=0)
    torch.testing.assert_close(loss.posterior(x[None]).softmax(-1)[0], expected)
    assert not any("posterior" in key for key in loss.state_dict())


def test_a_slower_student_follows_the_frames_of_its_labels(centroids):
    """Fails if labels and the posterior come from different frames of the teacher."""
    slow = Shape(layers=1, width=6, hop=2 * HOP, field=720)
    loss = objective(slow, alpha=1.0, centroids=centroids)
    teacher = {3: torch.randn(1, 7, 6)}
    value = loss(outputs({1: torch.zeros(1, 3, 6)}, [3]), outputs(teacher, [7]))[0]
    teacher[3][:, 1::2] = 100.0  # not looked at
    assert loss(outputs({1: torch.zeros(1, 3, 6)}, [3]), outputs(teacher, [7]))[0] == value


def test_without_a_mask_every_frame_counts():
    """Fails if a view without masks trains nothing in silence."""
    states, labels = [torch.randn(2, 4, 6) for _ in range(5)], torch.randint(0, 5, (2, 4))
    loss = objective()
    plain = outputs(states, [4, 4], labels)
    everywhere = replace(plain, masked=torch.ones(2, 4, dtype=torch.bool))
    assert loss(plain)[0] == loss(everywhere)[0] > 0
    nowhere = loss(replace(plain, masked=torch.zeros(2, 4, dtype=torch.bool)))[0]
    assert nowhere == 0
    nowhere.backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"logits": "cosin"}, "unknown logits of loss cluster_prediction 'cosin'. Did you mean"),
        ({"clusters": 0}, "clusters of loss cluster_prediction must be a number above 0, got 0"),
        ({"alpha": 2}, "alpha of loss cluster_prediction must be 0 to 1, got 2"),
        ({"alpha": 1, "centroids": True, "posterior_temperature": -1}, "must be above 0, got -1"),
        ({"alpha": 0.5}, "give centroids, a file that star_clusters writes"),
        ({"alpha": 0.5, "centroids": "nowhere"}, "nowhere: no file of centroids"),
        ({"alpha": 1, "centroids": True, "clusters": 9}, r"5 centroids of width 6 at layer 3"),
        ({"layers": [5]}, r"the student has states 0 to 4 .* got 5"),
    ],
)
def test_mistakes_are_named(conf, message, centroids):
    if conf.get("centroids") is True:
        conf = conf | {"centroids": centroids}
    with pytest.raises(StarError, match=message) as error:
        objective(**conf)
    assert "\n" not in str(error.value)


def test_labels_that_are_missing_or_unknown_are_named():
    loss, states = objective(), [torch.zeros(1, 3, 6) for _ in range(5)]
    with pytest.raises(StarError, match="choose a view that reads labels"):
        loss(outputs(states, [3]))
    with pytest.raises(StarError, match=r"label 8 is beyond clusters: 5 \(0 to 4\)"):
        loss(outputs(states, [3], torch.tensor([[0, 8, 1]])))
    # Past an utterance's end nobody reads them.
    assert loss(outputs(states, [1], torch.tensor([[0, 8, 1]])))[0].isfinite()
    entries = [
        {"name": "cluster_prediction", "conf": {"clusters": 7}},
        {"name": "cluster_prediction", "conf": {"clusters": 5}},
        {"name": "temporal_gram"},
    ]
    assert len(build_losses(entries, SHAPE, SHAPE)) == 3
    assert label_count(entries) == 5 and label_count(entries[2:]) is None
