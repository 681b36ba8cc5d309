import argparse

import numpy as np
import pytest
import torch

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_table
from espnet_star.data.labels import check_labels, on_frames, read_labels, write_labels
from espnet_star.tasks.preflight.frame_labels import check_frame_labels
from espnet_star.tasks.preflight.lists import read_lists

LABELS = {"b": np.array([3, 3, 17], dtype=np.uint8), "a": np.array([-1, 0])}


def test_espnet_reads_what_is_written(tmp_path):
    """Fails if a file of labels is none that ESPnet's loader takes for text_int."""
    from espnet2.train.dataset import ESPnetDataset

    path = tmp_path / "labels"
    write_labels(path, LABELS)
    assert path.read_text() == "a -1 0\nb 3 3 17\n"
    data = ESPnetDataset([(str(path), "labels", "text_int")])
    ours = read_labels(path)
    for key, expected in LABELS.items():
        _, found = data[key]
        assert found["labels"].dtype.kind == "i"
        assert found["labels"].tolist() == ours[key].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u 1 2 3 x", "utterance u must be followed by whole numbers"),
        ("u 1  2 3", "one blank between them"),
        ("u 1 2 3 9", "utterance u has label 9, expected 0 to 8, or -1 for none"),
        ("u 1 -2 3 4", "utterance u has label -2"),
        ("u 1", r"1 utterances have other numbers of labels than of frames.*u \(1 for 4\)"),
    ],
)
def test_labels_of_something_else_are_named(tmp_path, line, message):
    """Fails if wrong labels are found out only in the middle of a training."""
    path = tmp_path / "labels"
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match=message) as error:
        check_labels(path, read_table(path), {"u": 400 + 3 * 320, "not listed": 16000}, 9)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_two_frames_more_or_less_will_do(tmp_path):
    """Front ends differ in whether they pad the end; None allows any label."""
    for count in (2, 6):
        check_labels("labels", {"u": " ".join(["7"] * count)}, {"u": 400 + 3 * 320})


def test_a_training_looks_at_its_labels(tmp_path):
    """Fails if the number of clusters, or utterances left out, are not the training's."""
    (tmp_path / "labels").write_text("long 1\nu 1 2 3 4\n")
    (tmp_path / "num_samples").write_text("long 160000\nu 1360\n")
    lists = read_lists("train_data", [(str(tmp_path / "labels"), "labels", "text_int")])

    def check(clusters, **options):
        conf = {"name": "cluster_prediction", "conf": {"clusters": clusters}}
        usual = {"train_shape_file": [str(tmp_path / "num_samples")], "max_duration": 5.0}
        args = argparse.Namespace(**usual | {"losses": [conf]} | options)
        check_frame_labels(args, "train", lists)

    check(5)
    with pytest.raises(DataError, match="expected 0 to 3"):
        check(4)
    with pytest.raises(DataError, match=r"long \(1 for 499\)"):
        check(5, max_duration=None)
    check(5, train_shape_file=[str(tmp_path)])  # split: a folder of them


@pytest.mark.parametrize("hop", [160, 320, 640])
def test_frames_take_the_label_at_their_time(hop):
    labels = torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, -1, -1]])
    found = on_frames(labels, 6, hop)
    for frame in range(6):
        at = frame * hop // 320
        expected = labels[:, at].tolist() if at < 5 else [-1, -1]
        assert found[:, frame].tolist() == expected
