"""ONNX files of a student; a bug gives their users other features than were measured.

Two exports are shared by all tests, since each takes seconds.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import espnet_star
from espnet_star.bin import star_export, star_extract
from espnet_star.data.kaldi import read_table
from espnet_star.downstream.frontend import StarFrontend
from espnet_star.encoders import Want
from espnet_star.encoders.base import weights_fingerprint
from espnet_star.errors import StarError
from espnet_star.formats.onnx import export as onnx_export
from espnet_star.students import StarEncoder
from espnet_star.students.onnx_student import OnnxStudent

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def student(onnx_files):
    return StarEncoder.from_pretrained(onnx_files / "student")


@pytest.fixture(scope="module")
def last(tiny_options, tmp_path_factory):
    """A student of the other layout everywhere, and the file of its last layer."""
    shape = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    shape |= {"hidden_size": 24, "num_hidden_layers": 1}
    torch.manual_seed(0)
    student = StarEncoder(**(tiny_options | shape)).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    directory = tmp_path_factory.mktemp("last")
    onnx_export.export_onnx(student, directory, layers="last")
    return student, directory / "model.onnx"


@torch.no_grad()
def relative(ours, theirs):
    mask = ours.mask()
    return max(
        float((a - b)[mask].norm() / a[mask].norm())
        for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True)
    )


@torch.no_grad()
def outputs(student, samples):
    lengths = torch.tensor(samples)
    speech = 0.3 * torch.randn(len(samples), max(samples) + 77)
    return speech, lengths, student.encode(speech, lengths)


@pytest.mark.parametrize("samples", [[400], [719], [720], [33333], [9000, 400, 8000, 720, 5001]])
@pytest.mark.parametrize(("name", "limit"), [("model", 1e-5), ("model.float16", 1e-2)])
def test_any_batch_gives_the_students_states(onnx_files, student, samples, name, limit):
    """Fails if batch, time or padding of the example at export is baked in."""
    speech, lengths, ours = outputs(student, samples)
    theirs = OnnxStudent(onnx_files / "files" / f"{name}.onnx").encode(speech, lengths)
    assert theirs.lengths.tolist() == ours.lengths.tolist()
    assert relative(ours, theirs) < limit


def test_int8_is_close_and_independent_of_the_batch(onnx_files, student):
    """Fails if quantization ruins the states, or one utterance's range rounds another's."""
    speech, lengths, _ = outputs(student, [9000, 400, 8000])
    speech[0] *= 20
    ours = student.encode(speech, lengths)
    quantized = OnnxStudent(onnx_files / "files" / "model.int8.onnx")
    theirs = quantized.encode(speech, lengths)
    assert 1e-4 < relative(ours, theirs) < onnx_export.TOLERANCES["int8"]
    alone = quantized.encode(speech[2:, :8000], lengths[2:])
    for one, many in zip(alone.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(one[0], many[2, : one.shape[1]], rtol=0, atol=0)


def test_quiet_frames_survive_int8(onnx_files, student):
    """Fails if the front is quantized as well: one scale leaves nothing of quiet frames."""
    speech, lengths = onnx_export.check_batch()
    with torch.no_grad():
        ours = student.encode(speech, lengths)
    theirs = OnnxStudent(onnx_files / "files" / "model.int8.onnx").encode(speech, lengths)
    quiet = [frame for frame in range(100) if (frame * 0.02) % (1 / 3) > 0.2]  # pauses
    for one, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        a, b = one[0, quiet], other[0, quiet]
        assert float((a - b).norm() / a.norm()) < onnx_export.TOLERANCES["int8"]


def test_a_foreign_reader_finds_its_way(onnx_files):
    """Fails if names, types, free sizes or metadata are not what the documentation promises."""
    path = onnx_files / "files" / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("speech", "tensor(float)"), ("lengths", "tensor(int64)"),
    ]  # fmt: skip
    assert session.get_inputs()[0].shape == ["batch", "samples"]
    assert [o.name for o in session.get_outputs()] == ["hidden_states", "frames"]
    states, frames = session.run(
        None, {"speech": np.zeros((2, 1000), np.float32), "lengths": np.array([1000, 400])}
    )
    assert states.shape == (3, 2, 2, 16) and states.dtype == np.float32
    assert frames.tolist() == [2, 1]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["espnet_star"])
    assert (facts["sample_rate"], facts["hop"], facts["receptive_field"]) == (16000, 320, 400)
    assert (facts["layers"], facts["num_layers"], facts["width"]) == ("all", 2, 16)


def test_the_graph_is_lean(onnx_files):
    """Fails if weight norm or separate queries and keys come back, or GELU is spelled out."""
    nodes = [node.op_type for node in onnx.load(onnx_files / "files" / "model.onnx").graph.node]
    assert not {"If", "Loop", "Erf", "ReduceL2", "Pow"} & set(nodes)
    assert nodes.count("Conv") == 1  # the positional one
    # Nine convolutions, mean, variance and covariance of the group norm, and for each layer
    # four linear maps and two products of attention.
    assert nodes.count("MatMul") == 9 + 3 + 2 * 6
    quantized = onnx.load(onnx_files / "files" / "model.int8.onnx").graph.node
    assert [node.op_type for node in quantized].count("MatMulInteger") == 2 * 4


def test_files_shrink(onnx_files):
    """Fails if a precision's weights are stored in float32."""

    def stored(name):
        graph = onnx.load(onnx_files / "files" / name).graph
        return {tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) > 300}

    types = onnx.TensorProto
    assert stored("model.onnx") == {types.FLOAT}
    assert stored("model.float16.onnx") == {types.FLOAT16}
    assert types.INT8 in stored("model.int8.onnx")


def test_torch_reads_the_program(onnx_files, student):
    """Fails if ``model.pt2`` is tied to the example's shape."""
    speech, lengths, ours = outputs(student, [9000, 1000, 5001])
    program = torch.export.load(onnx_files / "files" / "model.pt2").module()
    states, frames = program(speech, lengths)
    assert frames.tolist() == ours.lengths.tolist()
    mask = ours.mask()
    for one, other in zip(ours.hidden_states, states, strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_last_layer_of_the_other_layout(last, batch):
    """Fails if pre-norm, LayerNorm front or projection are exported wrongly."""
    student, path = last
    speech, lengths = batch[0][:, : int(batch[1].max())], batch[1]
    expected, _, _ = student(speech, lengths)
    found, frames = OnnxStudent(path).last(speech, lengths)
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(found[row, :count], expected[row, :count], rtol=1e-4, atol=1e-5)


def test_frontend_reads_the_file(onnx_files, batch):
    """Fails if ASR and SID hear other features from the file than from the student."""
    path = str(onnx_files / "files" / "model.onnx")
    ours = StarFrontend(str(onnx_files / "student"), normalize=True)
    theirs = StarFrontend(path, normalize=True).train()
    expected, lengths = ours(*batch)
    features, found = theirs(*batch)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert found.tolist() == lengths.tolist() and theirs.output_size() == 16
    assert set(theirs.state_dict()) == {"layer_weights", "updates"}
    assert theirs.options()["upstream"] == path
    features.sum().backward()
    assert theirs.layer_weights.grad is not None
    with pytest.raises(StarError, match="stays frozen, and so does ONNX"):
        StarFrontend(path, freeze_updates=0)


def test_it_is_loaded_by_its_name(onnx_files, student):
    """Fails if load() did not take what the frontend takes."""
    wave = 0.3 * torch.randn(9000)
    files = onnx_files / "files" / "model.onnx", onnx_files / "student"
    ours, theirs = (espnet_star.load(path)(wave).last for path in files)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_caches_tell_files_apart(onnx_files):
    """Fails if states of one precision are taken for those of another."""
    encoders = [OnnxStudent(onnx_files / "files" / name) for name in onnx_export.FILES.values()]
    assert len({weights_fingerprint(encoder, repr(encoder)) for encoder in encoders}) == 3


def test_extraction_from_the_file(onnx_files, data_directory, tmp_path):
    """Fails if features cannot be written without the student in torch."""
    options = ["--wav_scp", f"{data_directory}/wav.scp", "--layer", "all"]
    for name in ("files/model.onnx", "student"):
        out = tmp_path / name.replace("/", "_")
        star_extract.main(
            ["--upstream", str(onnx_files / name), "--output_dir", str(out), *options]
        )
    places = read_table(tmp_path / "student" / "feats.scp")
    assert len(places) == 8
    for name, place in places.items():
        other = read_table(tmp_path / "files_model.onnx" / "feats.scp")[name]
        np.testing.assert_allclose(np.load(place), np.load(other), rtol=1e-3, atol=1e-4)


def test_nothing_is_left_of_a_file_that_misses_its_tolerance(
    onnx_files, student, tmp_path, monkeypatch
):
    """Fails if a user could pick up a file that was found wrong."""
    model = onnx.load(onnx_files / "files" / "model.onnx")
    # The graph made before: making it takes seconds.
    monkeypatch.setattr(onnx_export, "trace", lambda *args: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: SimpleNamespace(model_proto=model))
    monkeypatch.setitem(onnx_export.TOLERANCES, "int8", 1e-9)
    with pytest.raises(StarError, match=r"model\.int8\.onnx differs from the student by"):
        onnx_export.export_onnx(student, tmp_path / "out", ["float32", "int8"])
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_overwritten_unasked(onnx_files, capsys):
    before = (onnx_files / "files" / "model.onnx").read_bytes()
    with pytest.raises(SystemExit) as stop:
        star_export.main(
            ["onnx", "--upstream", f"{onnx_files}/student", "--output_dir", f"{onnx_files}/files"]
        )
    assert stop.value.code == 2
    assert "already holds model.onnx; give --force true" in capsys.readouterr().err
    assert (onnx_files / "files" / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_names_the_extra(student, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StarError, match=rf"package {package} .*espnet_star\[onnx\]"):
        onnx_export.export_onnx(student, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reading_without_onnxruntime_names_the_extra(onnx_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(StarError, match=r"espnet_star\[onnx\]"):
        StarFrontend(str(onnx_files / "files" / "model.onnx"))


def test_files_that_are_not_ours(tmp_path):
    """Fails if a wrong file is taken for a student, or ends in onnxruntime's traceback."""
    with pytest.raises(StarError, match=r"absent\.onnx is not a file"):
        StarFrontend(str(tmp_path / "absent.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf")
    with pytest.raises(StarError, match=r"broken\.onnx is not an ONNX model"):
        StarFrontend(str(broken))
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "other", [value], [result])
    opset = [onnx.helper.make_opsetid("", onnx_export.OPSET)]
    other = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(StarError, match="not a student"):
        StarFrontend(str(tmp_path / "other.onnx"))


def test_what_a_file_does_not_hold(onnx_files, last, batch):
    """Fails if the wrong layer or no attention comes without a word."""
    with pytest.raises(StarError, match="gives the last layer only"):
        OnnxStudent(last[1]).encode(*batch)
    encoder = OnnxStudent(onnx_files / "files" / "model.onnx")
    with pytest.raises(StarError, match="gives all layers"):
        encoder.last(*batch)
    with pytest.raises(StarError, match="no attention maps"):
        encoder.encode(*batch, Want(attentions=True))
    with pytest.raises(StarError, match=r"between 400 .* and T = 1000 samples, got 399 to 1000"):
        encoder.encode(torch.zeros(2, 1000), torch.tensor([1000, 399]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ["int4"]}, "unknown precision 'int4'"),
        ({"layers": "first"}, "unknown layers 'first'"),
    ],
)
def test_misspelled_options(student, tmp_path, options, message):
    with pytest.raises(StarError, match=message):
        onnx_export.export_onnx(student, tmp_path / "out", **options)
