"""Against the models of fairseq and Microsoft that s3prl vendors; fairseq installs nowhere new."""

import pytest
import torch
from fairseq_checkpoints import CASES, forget_fairseq, module_of_fairseq, write_checkpoint

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher
from espnet_star.teachers.fairseq import FairseqTeacher


def hidden_states(model, speech):
    """Inputs of the library's layers and its output, for one utterance."""
    states = []
    handles = [
        layer.register_forward_pre_hook(
            lambda _m, args, kwargs: states.append((args or [kwargs["x"]])[0].transpose(0, 1)),
            with_kwargs=True,
        )
        for layer in model.encoder.layers
    ]
    with torch.no_grad():
        padding = torch.zeros(speech.shape, dtype=torch.bool)
        out = model.extract_features(speech, padding_mask=padding, mask=False)
    for handle in handles:
        handle.remove()
    states.append(out["x"] if isinstance(out, dict) else out[0])
    return [state[:, : states[-1].shape[1]] for state in states]


@pytest.fixture(autouse=True)
def no_fairseq():
    yield
    forget_fairseq()


@pytest.fixture
def saved(tmp_path):
    return lambda case: write_checkpoint(case, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_those_of_the_library(case, saved):
    """Fails if a name, a norm, a bias or the input's normalization is mapped wrongly."""
    path, model, normalize = saved(case)
    teacher = build_teacher(str(path))
    assert isinstance(teacher, FairseqTeacher)
    assert teacher.conf == {"kind": "fairseq", "do_normalize": normalize}
    assert teacher.shape.pre_norm is case.endswith("pre-norm")
    speech = 0.01 * torch.randn(1, 9000) + 0.02
    theirs_in = torch.nn.functional.layer_norm(speech, speech.shape) if normalize else speech
    theirs = hidden_states(model, theirs_in)
    ours = teacher.encode(speech, torch.tensor([9000]))
    assert ours.num_layers == 3 and ours.lengths.tolist() == [27]
    for a, b in zip(ours.hidden_states, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("case", ["hubert", "wavlm-pre-norm"])
def test_an_utterance_gets_the_same_in_a_batch_as_alone(case, saved, batch):
    teacher = build_teacher(saved(case)[0])
    speech, lengths = batch
    together = teacher.encode(speech, lengths, Want(attentions=True))
    assert torch.equal(together.lengths, frame_count(lengths))
    for row, size in enumerate(lengths.tolist()):
        alone = teacher.encode(
            speech[row : row + 1, :size], lengths[row : row + 1], Want(attentions=True)
        )
        n = int(together.lengths[row])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(a[row, :n], b[0], atol=1e-4, rtol=1e-4)
        for a, b in zip(together.attentions, alone.attentions, strict=True):
            torch.testing.assert_close(a[row, :, :n, :n], b[0], atol=1e-4, rtol=1e-4)


def edited(saved, tmp_path, change, case="hubert-square"):
    content = torch.load(saved(case)[0], weights_only=True)
    change(content)
    torch.save(content, tmp_path / "edited.pt")
    return tmp_path / "edited.pt"


def without(content):
    del content["model_weight"]["encoder.layers.1.fc1.bias"]


def with_adapter(content):
    content["model_weight"]["encoder.layers.1.adapter.weight"] = torch.ones(1)


def wider(content):
    content["model_cfg"]["encoder_ffn_embed_dim"] = 64


def not_finite(content):
    content["model_weight"]["encoder.layers.1.fc1.bias"][0] = torch.nan


def fine_tuned(content):
    content["model_weight"]["w2v_encoder.proj.weight"] = torch.ones(1)


def other_rate(content):
    content["task_cfg"]["sample_rate"] = 8000


def other_hop(content):
    content["model_cfg"]["conv_feature_layers"] = "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)]"


def conformer(content):
    content["model_cfg"]["layer_type"] = "conformer"


def code(content):
    content["model_cfg"]["conv_feature_layers"] = "__import__('os').system('touch /tmp/x')"


def no_options(content):
    content["model_cfg"] = {}


def no_tensors(content):
    content["model_weight"] = {"a": 1}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (without, ("lacks encoder.layers.1.fc1.bias",)),
        (with_adapter, ("also holds encoder.layers.1.adapter.weight",)),
        (wider, ("encoder.layers.0.fc1.weight is (32, 8), the options say (64, 8)",)),
        (not_finite, ("encoder.layers.1.fc1.bias holds NaN",)),
        (fine_tuned, ("was fine-tuned", "w2v_encoder.proj.weight", "pre-trained")),
        (other_rate, ("8000 Hz", "16000 Hz")),
        (other_hop, ("100 frames/s (hop 160)",)),
        (conformer, ("layer_type must be 'transformer'", "'conformer'")),
        (code, ("conv_feature_layers", "only lists, tuples, whole numbers")),
        (no_options, ("nothing of its architecture",)),
        (no_tensors, ("no tensors under 'model'",)),
    ],
)
def test_a_bad_checkpoint_is_named(change, parts, saved, tmp_path):
    path = edited(saved, tmp_path, change)
    with pytest.raises(StarError) as caught:
        build_teacher(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("case", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_a_file_cut_short(case, kept, saved, tmp_path):
    content = saved(case)[0].read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(StarError, match=r"cut.pt is not a complete checkpoint \(.*copy or down"):
        build_teacher(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped, tmp_path):
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return exec, (f"open({str(mark)!r}, 'w')",)

    path = tmp_path / "payload.pt"
    torch.save({"cfg": Payload()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(StarError, match=r"names (__builtin__|builtins).exec.*refused"):
        build_teacher(path)
    assert not mark.exists()


def test_a_class_of_fairseq_is_never_imported(tmp_path):
    """Fails if an allowed name is looked up instead of stood in for."""
    module = module_of_fairseq("fairseq.evil")
    ran = []
    module.run = lambda *args: ran.append(args)
    module.run.__module__, module.run.__qualname__ = "fairseq.evil", "run"

    class Payload:
        def __reduce__(self):
            return module.run, (1,)

    torch.save({"cfg": {"model": {"a": Payload()}}, "model": {}}, tmp_path / "payload.pt")
    with pytest.raises(StarError, match="no tensors"):
        build_teacher(tmp_path / "payload.pt")
    assert not ran


def test_missing_file(tmp_path):
    with pytest.raises(StarError, match=r"nothing.pt': no such file"):
        build_teacher(tmp_path / "nothing.pt")
