import json

import numpy as np
import pytest
import soundfile
import torch

from espnet_star.bin.star_clusters import main, subset
from espnet_star.data.centroids import Centroids
from espnet_star.data.kaldi import read_counts, read_table, read_wav_scp
from espnet_star.data.labels import check_labels, read_labels
from espnet_star.students import StarEncoder

pytest.importorskip("sklearn", reason="pip install espnet_star[recipes]")


@pytest.fixture(scope="module")
def student(tiny_options, tmp_path_factory):
    torch.manual_seed(0)
    encoder = StarEncoder(**tiny_options).eval()
    directory = tmp_path_factory.mktemp("student")
    encoder.save_pretrained(directory)
    return encoder, directory


@pytest.fixture
def clusters(student, data_directory, tmp_path, capsys):
    def call(*options, name="out"):
        status = 0
        common = ["--upstream", student[1], "--data_dir", data_directory]
        try:
            main([str(o) for o in [*common, "--output_dir", tmp_path / name, *options]])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr(), tmp_path / name

    return call


def test_labels_are_the_nearest_centroids(clusters, student, data_directory):
    """Fails if a batch, an order or a layer gives an utterance another one's labels."""
    status, captured, out = clusters("--clusters", 4, "--layer", 1, "--batch_seconds", 0.5)
    assert status == 0, captured.err
    labels, found = read_labels(out / "labels"), Centroids.load(out / "centroids.safetensors")
    assert found.layer == 1 and found.means.shape == (4, 16)
    paths = read_wav_scp(data_directory / "wav.scp")
    assert list(labels) == sorted(paths)
    inertia, frames = 0.0, 0
    for name, path in paths.items():
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        with torch.no_grad():
            state = student[0].encode(wave, torch.tensor([wave.shape[1]])).hidden_states[1][0]
        distances = (state[:, None] - found.means).square().sum(-1)
        chosen = distances[range(len(state)), labels[name]]
        torch.testing.assert_close(chosen, distances.min(dim=1).values, rtol=1e-3, atol=1e-4)
        inertia, frames = inertia + float(chosen.sum()), frames + len(state)
    facts = json.loads((out / "clusters.json").read_text())
    assert facts["frames"] == frames and facts["clusters"] == 4
    assert facts["inertia"] == pytest.approx(inertia, rel=1e-3)
    assert found.variance == pytest.approx(facts["inertia"] / frames / 16, rel=1e-6)
    counts = np.bincount(np.concatenate(list(labels.values())), minlength=4)
    assert facts["empty"] == (counts == 0).sum()
    table, samples = read_table(out / "labels"), read_counts(data_directory / "utt2num_samples")
    check_labels(out / "labels", table, samples, 4)


def test_another_set_is_labeled_with_the_same_centroids(clusters):
    """Fails if centroids are found anew, or their layer is not the file's."""
    _, _, out = clusters("--clusters", 3, "--layer", 0, "--max_hours", 1e-4)
    status, captured, again = clusters("--centroids", out / "centroids.safetensors", name="valid")
    assert status == 0, captured.err
    assert (again / "labels").read_text() == (out / "labels").read_text()
    assert not (again / "centroids.safetensors").exists()


def test_a_subset_is_random_and_the_same_again():
    counts = {f"u{index}": 16000 for index in range(100)}
    chosen = subset(counts, 10 / 3600, seed=1)
    assert len(chosen) == 10 and chosen == subset(counts, 10 / 3600, seed=1)
    assert chosen != sorted(chosen) and chosen != subset(counts, 10 / 3600, seed=2)
    assert sorted(subset(counts, None, seed=0)) == sorted(counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", 3], "--layer must be 0 to 2, or -1 for the last; got 3"),
        (["--clusters", 9999], "frames cannot be put into 9999 clusters"),
        (["--centroids", "x", "--clusters", 3], "leave --clusters, --layer and --max_hours out"),
        (["--centroids", "x"], "x: no file of centroids"),
        (["--max_hours", 0], "--max_hours must be above 0, got 0"),
        (["--data_dir", "nowhere"], "nowhere/wav.scp: cannot be opened"),
    ],
)
def test_mistakes_are_one_line(clusters, options, message):
    status, captured, out = clusters(*options)
    assert status == 2
    assert captured.err.count("\n") == 1 and message in captured.err
    assert not (out / "labels").exists()


def test_labels_that_are_there_are_kept(clusters):
    _, _, out = clusters("--clusters", 2)
    before = (out / "labels").read_text()
    status, captured, _ = clusters("--clusters", 3)
    assert status == 2 and "give --force true to replace them" in captured.err
    assert (out / "labels").read_text() == before
