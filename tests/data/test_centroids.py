import sys

import numpy as np
import pytest
import torch

from espnet_star.data.centroids import Centroids, Usage, fit_means, squared_distances
from espnet_star.data.errors import DataError


def pieces(generator, centers, count=40, size=60):
    for _ in range(count):
        at = generator.integers(len(centers), size=size)
        yield (centers[at] + 0.05 * generator.normal(size=(size, 3))).astype(np.float32)


def test_well_separated_clusters_are_found_and_the_same_again():
    """Fails if frames are lost between pieces, or the seed does not decide."""
    pytest.importorskip("sklearn", reason="pip install espnet_star[recipes]")
    centers = np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, 5]], dtype=np.float32)
    first, again = (fit_means(pieces(np.random.default_rng(1), centers), 4, 3) for _ in range(2))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    order = [int(np.square(first - center).sum(1).argmin()) for center in centers]
    np.testing.assert_allclose(first[order], centers, atol=0.02)


def test_what_cannot_be_clustered_is_named(monkeypatch):
    pytest.importorskip("sklearn", reason="pip install espnet_star[recipes]")
    few = [np.zeros((3, 2), dtype=np.float32)]
    with pytest.raises(DataError, match="3 frames cannot be put into 4 clusters"):
        fit_means(few, 4)
    with pytest.raises(DataError, match="no audio"):
        fit_means([], 4)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(DataError, match=r"scikit-learn is needed .*espnet_star\[recipes\]"):
        fit_means(few, 2)


def test_distances_and_usage():
    x, means = torch.randn(5, 3), torch.randn(4, 3)
    found = squared_distances(x, means)
    torch.testing.assert_close(found, (x[:, None] - means).square().sum(-1))
    usage = Usage(np.zeros(4, dtype=np.int64))
    usage.add(np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0]))
    usage.add(np.array([1], dtype=np.uint8), np.array([4.0]))
    facts = usage.facts()
    assert facts["frames"] == 4 and facts["empty"] == 2 and facts["inertia"] == 10.0
    assert facts["perplexity"] == pytest.approx(2.0)
    assert facts["entropy_bits"] == pytest.approx(1.0)


def test_a_file_of_centroids(tmp_path):
    path = tmp_path / "centroids.safetensors"
    Centroids(torch.randn(4, 3).T, 9, 0.25, "hubert").save(path)
    found = Centroids.load(path)
    assert (found.layer, found.variance, found.upstream) == (9, 0.25, "hubert")
    assert found.means.shape == (3, 4)
    path.write_bytes(b"no such file")
    for name in (path, tmp_path / "missing"):
        with pytest.raises(DataError, match="no file of centroids"):
            Centroids.load(name)
