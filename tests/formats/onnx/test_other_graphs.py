"""Graphs and ONNX files of students that no HubertModel holds."""

import pytest
import torch

from espnet_star.encoders.base import Encoder
from espnet_star.errors import StarError
from espnet_star.formats.onnx.export import export_onnx
from espnet_star.formats.onnx.plain_graph import PlainStudent
from espnet_star.students import STUDENTS
from espnet_star.students.onnx_student import OnnxStudent

THIN = {"num_hidden_layers": 3, "conv_dim": [8] * 9}
CASES = {
    "distilhubert": {"conv_dim": [8] * 7},
    "fithubert": THIN,
    "arm": THIN | {"reuse": [False, True, True], "second_softmax": True},
    "fast_hubert": {"conv_dim": [8, 12], "mel_bins": 20, "num_hidden_layers": 1},
}


@pytest.fixture
def student(request, tiny_options):
    student = STUDENTS[request.param](**(tiny_options | CASES[request.param])).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@torch.no_grad()
def assert_same(student, run):
    """Fails if the graph drops another frame, mixes another map or pads another way."""
    field, hop = student.shape.field, student.shape.hop
    for sizes in ([field + 5 * hop, field + 2 * hop - 1, field], [field + hop - 1]):
        lengths = torch.tensor(sizes)
        speech = 0.3 * torch.randn(len(sizes), max(sizes))
        ours = student.encode(speech, lengths)
        states, frames = run(speech, lengths)
        assert frames.tolist() == ours.lengths.tolist()
        for one, other in zip(ours.hidden_states, states, strict=True):
            mask = ours.mask()
            torch.testing.assert_close(other[mask], one[mask], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("student", CASES, indirect=True)
def test_the_graph_is_the_student(student):
    assert_same(student, PlainStudent(student))


@pytest.mark.parametrize("student", ["fast_hubert"], indirect=True)
def test_a_file_with_a_filterbank(student, tmp_path):
    """Fails if the exporter has no form for the spectrum, or the file tells other frames."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    export_onnx(student, tmp_path)
    file: Encoder = OnnxStudent(tmp_path / "model.onnx")
    assert (file.shape.hop, file.shape.field) == (student.shape.hop, student.shape.field)

    def run(speech, lengths):
        outputs = file.encode(speech, lengths)
        return outputs.hidden_states, outputs.lengths

    assert_same(student, run)


@pytest.mark.parametrize("student", ["arm"], indirect=True)
def test_heads_are_refused(student, tmp_path):
    headed = STUDENTS["arm"](**(student.options() | {"heads": 1})).eval()
    with pytest.raises(StarError, match="without heads") as error:
        export_onnx(headed, tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
