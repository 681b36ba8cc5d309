"""Scores of verification; a bug here publishes a wrong error rate."""

import json

import numpy as np
import pytest

from espnet_star.bin import star_score
from espnet_star.data.errors import DataError
from espnet_star.evaluate.verification import error_rates, score_sv

pytest.importorskip("sklearn")


def by_hand(scores, labels):
    """Equal error rate and minimum cost over every threshold, by counting."""
    scores, labels = np.array(scores), np.array(labels)
    targets, others = scores[labels == 1], scores[labels == 0]
    gaps, costs = [], []
    for threshold in [*np.unique(scores), np.inf]:
        miss = (targets < threshold).mean()
        false_alarm = (others >= threshold).mean()
        gaps.append((abs(miss - false_alarm), max(miss, false_alarm)))
        costs.append(0.05 * miss + 0.95 * false_alarm)
    return min(gaps)[1], min(costs) / 0.05


@pytest.fixture
def files(tmp_path):
    """Write trials over named embeddings; returns both files."""

    def write(trials, embeddings):
        (tmp_path / "trials").write_text("\n".join(trials) + "\n")
        lines = []
        for name, values in embeddings.items():
            np.save(tmp_path / f"{name}.npy", np.asarray(values, dtype=np.float32))
            lines.append(f"{name} {tmp_path / name}.npy\n")
        (tmp_path / "embed.scp").write_text("".join(sorted(lines)))
        return tmp_path / "trials", tmp_path / "embed.scp"

    return write


@pytest.mark.parametrize("overlap", [0.0, 0.8, 2.0])
def test_rates_are_those_of_counting(overlap):
    """Fails if the percentage is not turned into a fraction, or labels are swapped."""
    rng = np.random.default_rng(0)
    labels = [1] * 150 + [0] * 250
    scores = [*rng.normal(1, overlap, 150), *rng.normal(-0.5, overlap, 250)]
    found = error_rates(scores, labels)
    eer, mindcf = by_hand(scores, labels)
    assert found["eer"] == pytest.approx(eer, abs=1 / 150)
    assert found["mindcf"] == pytest.approx(mindcf, abs=1 / 150)
    # Whether ESPnet's one (the larger of both rates) or the crossing itself: scikit-learn's.
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(labels, scores)
    nearest = np.abs(1 - hits - alarms).argmin()
    assert found["eer"] == pytest.approx(max(1 - hits[nearest], alarms[nearest]), abs=1e-12)


def test_scores_are_cosines(files, tmp_path, capsys):
    """Fails if lengths of embeddings count, or trials are scored in another order."""
    trials = ["1 a b", "0 a c", "1 c d", "0 b d", "1 a b"]
    listed = files(trials, {"a": [2, 0], "b": [3, 1], "c": [[0, 5]], "d": [-1, 1], "e": [1, 1]})
    out, scores = tmp_path / "sv.json", tmp_path / "scores"
    call = ["sv", "--ref", str(listed[0]), "--hyp", str(listed[1])]
    star_score.main([*call, "--output", str(out), "--scores", str(scores)])
    expected = [3 / 10**0.5, 0, 0.5**0.5, -2 / 20**0.5, 3 / 10**0.5]
    found = [line.split() for line in scores.read_text().splitlines()]
    assert [words[:2] for words in found] == [line.split()[1:] for line in trials]
    assert [float(words[2]) for words in found] == pytest.approx(expected, abs=1e-6)
    result = json.loads(out.read_text())
    assert (result["eer"], result["mindcf"]) == (0, 0)
    assert (result["trials"], result["targets"], result["utterances"]) == (5, 3, 4)
    assert "EER 0.00 %, minDCF 0.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trials", "embeddings", "message"),
    [
        (["1 a b", "0 a x"], {}, "1 of 2 trials name 1 utterances that"),
        (["1 a b"], {}, "1 trials, all of one speaker"),
        (["0 a b"], {}, "1 trials, none of one speaker"),
        (["1 a b", "0 a"], {}, "trials:2: expected '1 utterance utterance'"),
        (["1 a b", "0 b a"], {"b": [1, 2, 3]}, "not of one model"),
        (["1 a b", "0 b a"], {"b": [0, 0]}, "has length 0.0"),
        (["1 a b", "0 b a"], {"b": [np.nan, 0]}, "has length nan"),
    ],
)
def test_what_cannot_be_scored(files, trials, embeddings, message):
    """Fails if half a list, or a broken model, gets an error rate."""
    listed = files(trials, {"a": [1, 2], "b": [2, 1]} | embeddings)
    with pytest.raises(DataError, match=message):
        score_sv(*listed)


def test_an_embedding_that_is_cut_off(files, tmp_path):
    listed = files(["1 a b", "0 b a"], {"a": [1, 2], "b": [2, 1]})
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"b: .*b.npy is no embedding"):
        score_sv(*listed)


def test_table_shows_hundredths(tmp_path):
    """Fails if 5.39 % and 5.45 % look alike, as the published rows do not."""
    from espnet_star.evaluate.table import cells

    metrics = {"sv_eer": 0.05389, "sv_mindcf": 0.31234, "sid_acc": 0.77}
    results = {"systems": [{"key": "a", "system": "a", "params": None, "metrics": metrics}]}
    assert cells(results) == [
        ["system", "params (M)", "sid_acc (%)", "sv_eer (%)", "sv_mindcf"],
        ["a", "-", "77.0", "5.39", "0.3123"],
    ]
