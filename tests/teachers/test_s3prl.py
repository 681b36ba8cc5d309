"""Against s3prl's own hub."""

import builtins
from pathlib import Path

import pytest
import torch
from small_checkpoints import shake

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher
from espnet_star.teachers.s3prl_upstream import S3prlTeacher

pytest.importorskip("s3prl", reason="needs espnet_star[s3prl]")

SMALL = dict(
    encoder_layers=2,
    encoder_embed_dim=24,
    encoder_ffn_embed_dim=32,
    encoder_attention_heads=2,
    conv_feature_layers="[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    conv_pos=16,
    conv_pos_groups=2,
    label_rate=50,
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A checkpoint as s3prl keeps them, of HuBERT's architecture with random weights."""
    from s3prl.upstream.hubert.hubert_model import (
        HubertConfig,
        HubertModel,
        HubertPretrainingConfig,
    )
    from s3prl.upstream.utils import merge_with_parent

    made = {}

    def make(**options):
        key = str(options)
        if key not in made:
            options, task = {**SMALL, **options}, {"normalize": False}
            config = merge_with_parent(HubertConfig, options)
            tasks = merge_with_parent(HubertPretrainingConfig, task)
            model = shake(HubertModel(config, tasks, [["a"]]))
            content = {"task_cfg": task, "model_cfg": options}
            content["model_weight"] = model.state_dict()
            path = tmp_path_factory.mktemp("s3prl") / "converted.pt"
            torch.save({**content, "dictionaries_symbols": [["a"]]}, path)
            made[key] = str(path)
        return made[key]

    return make


@pytest.mark.parametrize("pre_norm", [False, True])
def test_hidden_states_are_those_of_the_hub(pre_norm, converted):
    from s3prl import hub
    from s3prl.nn import S3PRLUpstream

    ckpt = converted(layer_norm_first=pre_norm)
    teacher = build_teacher("s3prl:hubert_custom", ckpt=ckpt)
    assert isinstance(teacher, S3prlTeacher)
    assert teacher.conf == {"kind": "s3prl", "ckpt": ckpt, "pre_norm": pre_norm}
    assert (teacher.shape.layers, teacher.shape.width, teacher.shape.pre_norm) == (2, 24, pre_norm)
    speech = torch.randn(1, 9000)
    ours = teacher.encode(speech, torch.tensor([9000]))
    assert ours.lengths.tolist() == [27]
    expert = hub.hubert_custom(ckpt).eval()
    with torch.no_grad():
        raw = expert([speech[0]])["hidden_states"]
        wrapped, _ = S3PRLUpstream("hubert_custom", ckpt).eval()(speech, torch.tensor([9000]))
    for state, theirs, padded in zip(ours.hidden_states, raw, wrapped, strict=True):
        torch.testing.assert_close(state, theirs, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(state, padded[:, :27], atol=1e-6, rtol=1e-6)
    # The same file read as fairseq's: two readers, one model.
    other = build_teacher(ckpt).encode(speech, torch.tensor([9000]))
    for state, theirs in zip(ours.hidden_states, other.hidden_states, strict=True):
        torch.testing.assert_close(state, theirs, atol=2e-5, rtol=2e-5)


def test_an_utterance_gets_the_same_in_a_batch_as_alone(converted, batch):
    """Fails if utterances run together: this upstream's GroupNorm sees the padding."""
    teacher = build_teacher("hubert_custom", kind="s3prl", ckpt=converted())
    speech, lengths = batch
    together = teacher.encode(speech, lengths)
    assert torch.equal(together.lengths, frame_count(lengths))
    assert together.hidden_states[0].shape[1] == frame_count(torch.tensor(speech.shape[1]))
    for row, size in enumerate(lengths.tolist()):
        alone = teacher.encode(speech[row : row + 1, :size], lengths[row : row + 1])
        n = int(together.lengths[row])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(a[row, :n], b[0])
    with torch.no_grad():
        leaky = teacher.wrapper.upstream([speech[0, :12000], speech[2, :5000]])["hidden_states"]
    assert (leaky[-1][1, :15] - together.hidden_states[-1][2, :15]).abs().max() > 1e-3


def test_weights_after_a_colon_and_frozen(converted):
    teacher = build_teacher(f"s3prl:hubert_custom:{converted()}").train()
    other = build_teacher("s3prl:hubert_custom", ckpt=converted())
    for key, value in other.state_dict().items():
        assert torch.equal(teacher.state_dict()[key], value), key
    with pytest.raises(StarError, match="name two files"):
        build_teacher("s3prl:hubert_custom:a.pt", ckpt="b.pt")
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


class Upstream(torch.nn.Module):
    """What a user's own upstream may look like."""

    def __init__(self, extra=0, hop=320, widths=(4, 4)):
        super().__init__()
        self.extra, self.hop, self.widths = extra, hop, widths

    def get_downsample_rates(self, _key):
        return self.hop

    def forward(self, wavs):
        count = (len(wavs[0]) - 400) // 320 + 1 + self.extra
        frames = torch.arange(count).float()[None, :, None]
        return {"hidden_states": [frames.expand(len(wavs), -1, width) for width in self.widths]}


@pytest.fixture
def upstream(monkeypatch):
    """Put one into s3prl's hub."""

    def register(**options):
        from s3prl import hub

        monkeypatch.setattr(hub, "mine", lambda **_: Upstream(**options), raising=False)
        monkeypatch.setattr(hub, "options", lambda *_: ["mine"])
        return "s3prl:mine"

    return register


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2])
def test_frames_are_cut_off_or_made_up(extra, upstream):
    teacher = build_teacher(upstream(extra=extra))
    state = teacher.encode(torch.zeros(1, 9000), torch.tensor([9000])).hidden_states[0][0, :, 0]
    assert state.tolist() == [min(frame, 26 + extra) for frame in range(27)]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"extra": 3}, ("gives 15 frames where the student has 12", "another upstream")),
        ({"extra": -3}, ("gives 9 frames",)),
        ({"hop": 160}, ("hop of 160 samples", "320")),
        ({"widths": (4,)}, ("several layers", "got 1 of width 4")),
        ({"widths": (4, 6, 4)}, ("got 3 of width 4, 6",)),
    ],
)
def test_an_upstream_that_does_not_fit(options, parts, upstream):
    with pytest.raises(StarError) as caught:
        build_teacher(upstream(**options))
    for part in ("'s3prl:mine'", *parts):
        assert part in str(caught.value)


def test_pre_norm_is_told_or_assumed(upstream, caplog):
    assert build_teacher(upstream()).shape.pre_norm is True
    assert "does not tell whether its layers end in a LayerNorm" in caplog.text
    assert build_teacher(upstream(), pre_norm=False).shape.pre_norm is False


def test_no_attention_maps(upstream):
    with pytest.raises(StarError, match="has no attention maps; remove the loss"):
        build_teacher(upstream()).encode(
            torch.zeros(1, 9000), torch.tensor([9000]), Want(attentions=True)
        )


def test_bad_names_and_files(converted, tmp_path):
    with pytest.raises(StarError, match=r"upstream of s3prl 'hubert_bas'. Did you mean 'hubert_ba"):
        build_teacher("s3prl:hubert_bas")
    with pytest.raises(StarError, match=r"s3prl cannot load it .*ending in _custom need ckpt"):
        build_teacher("s3prl:hubert_custom")
    with pytest.raises(StarError, match=r"s3prl cannot load it .*check ckpt"):
        build_teacher("s3prl:hubert_custom", ckpt=str(tmp_path / "nothing.pt"))
    content = Path(converted()).read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(StarError, match=r"cut.pt is not a file of plain tensors"):
        build_teacher("s3prl:hubert_custom", ckpt=str(tmp_path / "cut.pt"))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "payload.pt"

    class Payload:
        def __reduce__(self):
            return exec, (f"open({str(mark)!r}, 'w')",)

    torch.save({"task_cfg": Payload()}, path)
    with pytest.raises(StarError, match=r"it holds (builtins\.)?exec"):
        build_teacher("s3prl:distiller_local", ckpt=str(path))
    assert not mark.exists()


def test_without_s3prl(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "s3prl":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StarError, match=r"needs s3prl .*pip install espnet_star\[s3prl\]"):
        build_teacher("s3prl:hubert_base")
