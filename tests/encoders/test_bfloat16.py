"""A bug here trains a student on garbage, or on a processor's garbage, without a word."""

import logging
from contextlib import nullcontext

import pytest
import torch
from small_checkpoints import FAMILIES, SMALL, save, shake
from transformers import HubertConfig, HubertModel

from espnet_star.distillation import StarDistillation
from espnet_star.encoders.bfloat16 import BOUND, Fault, agree
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

LENGTHS = torch.tensor([8000, 5000])
SPEECH = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher_directory(tmp_path_factory):
    config = HubertConfig(**SMALL, **FAMILIES["hubert"][1])
    directory = tmp_path_factory.mktemp("teacher")
    return str(save(shake(HubertModel(config)), directory, do_normalize=False))


@pytest.fixture
def distillation(teacher_directory, tiny_options):
    """A function: teacher and student, the same weights each time, dropout on."""

    def make(teacher_dtype="float32", **conf):
        torch.manual_seed(0)
        teacher = build_teacher(teacher_directory, dtype=teacher_dtype)
        losses = [{"name": "temporal_gram"}]
        return StarDistillation(StarEncoder(**tiny_options), teacher, losses, **conf).train()

    return make


def step(model, speech=SPEECH, precision=None):
    """Loss and gradients of a training step with the same random numbers."""
    torch.manual_seed(1)
    with precision or nullcontext():
        loss = model(speech, LENGTHS)[0]
    gradients = torch.autograd.grad(loss, list(model.encoder.parameters()))
    return [loss.detach(), *gradients, torch.get_rng_state()]


def assert_same(found, expected):
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def warnings(caplog):
    return [r.message for r in caplog.records if "wrong on this CPU" in r.message]


def test_on_a_faulty_processor_a_run_is_that_in_float32(distillation, faulty, caplog):
    """Targets and student, to the last bit; said once for each, with what is off."""
    expected = step(distillation())
    model = distillation("bfloat16", cpu_dtype="bfloat16")
    assert_same(step(model), expected)
    assert_same(step(model), expected)
    teacher, student = warnings(caplog)
    assert "pos_conv_embed.conv (convolution of 24 to 24 in 2 groups, kernel 16)" in teacher
    assert teacher.startswith("Teacher ") and "float32 is used instead" in teacher
    assert student.startswith("Student: bfloat16 is wrong on this CPU, encoder.layers.0.feed_fo")
    assert "\n" not in teacher + student


def test_lightnings_autocast_is_checked_as_well(distillation, faulty, caplog):
    """ESPnet3's ``precision: bf16-mixed`` asks for the same in another way."""
    expected = step(distillation())
    autocast = torch.autocast("cpu", torch.bfloat16)
    assert_same(step(distillation(), precision=autocast), expected)
    assert len(warnings(caplog)) == 1


def test_the_check_leaves_no_trace(distillation, monkeypatch):
    """Fails if it drew random numbers, dropped out, or kept weights of another type."""
    monkeypatch.setattr("espnet_star.encoders.bfloat16.BOUND", 1e9)  # whatever this processor does
    model = distillation("bfloat16", cpu_dtype="bfloat16")
    first = step(model)
    assert model.teacher.encoder.dtype == torch.bfloat16 and model.encoder.training
    assert_same(step(model), first)
    # A resumed run meets another batch first; Lightning's in inference mode.
    resumed = distillation("bfloat16", cpu_dtype="bfloat16")
    with torch.inference_mode():
        resumed(SPEECH.flip(1), LENGTHS.clone())
    assert_same(step(resumed), first)
    assert not torch.equal(step(distillation())[0], first[0])


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_a_wrong_product_is_found_in_either_direction(part, distillation, monkeypatch, caplog):
    """The gradient's products are kernels of their own."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return -x if part == "forward" else x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return -gradient if part == "backward" else gradient

    linear = torch.nn.functional.linear

    def wrong(x, weight, bias=None):
        out = linear(x, weight, bias)
        return Wrong.apply(out) if out.dtype == torch.bfloat16 and weight.shape == (24, 16) else out

    monkeypatch.setattr(torch.nn.functional, "linear", wrong)
    model = distillation(cpu_dtype="bfloat16")
    found = step(model)
    (line,) = warnings(caplog)
    prefix = "the gradient of " if part == "backward" else ""
    name = "encoder.layers.0.feed_forward.intermediate_dense (linear map of 16 to 24)"
    assert f"CPU, {prefix}{name} is off by 200%" in line
    assert_same(found, step(distillation()))


def test_what_is_no_module_shows_in_the_states(distillation, monkeypatch, caplog):
    """Attention's products are inside torch."""
    attend = torch.nn.functional.scaled_dot_product_attention

    def wrong(q, *args, **kwargs):
        out = attend(q, *args, **kwargs)
        return out.flip(2) * 3 if q.dtype == torch.bfloat16 else out

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", wrong)
    step(distillation("bfloat16"))
    (line,) = warnings(caplog)
    assert "hidden state" in line


def test_a_cache_never_holds_garbage(distillation, tmp_path, request):
    """What is kept is named after the precision that was found right, not that asked for."""

    def kept(dtype, root):
        model = distillation(dtype, cache_dir=str(root))
        step(model)
        states = model.target.encode(SPEECH, LENGTHS).hidden_states  # from the disk
        return model.target.folder.name, states

    right = kept("float32", tmp_path / "right")
    request.getfixturevalue("faulty")
    fallen_back = kept("bfloat16", tmp_path / "faulty")
    assert fallen_back[0] == right[0]
    assert_same(fallen_back[1], right[1])


def test_right_and_wrong_processors_do_not_share_a_cache(distillation, tmp_path, monkeypatch):
    monkeypatch.setattr("espnet_star.encoders.bfloat16.BOUND", 1e9)
    for dtype in ("bfloat16", "float32"):
        step(distillation(dtype, cache_dir=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_audio_is_not_the_processors_fault(distillation, caplog):
    """NaN in the first batch must not decide in which type a run is computed."""
    speech = SPEECH.clone()
    speech[0, 100:200] = torch.nan
    model = distillation("bfloat16", cpu_dtype="bfloat16")
    clean = distillation("bfloat16", cpu_dtype="bfloat16")
    with caplog.at_level(logging.WARNING):
        model(speech, LENGTHS)
        clean(SPEECH, LENGTHS)
    assert model.teacher.encoder.dtype == clean.teacher.encoder.dtype
    assert model.bfloat16_is_wrong == clean.bfloat16_is_wrong


def test_rounding_is_far_below_the_bound():
    """Fails if true bfloat16 were taken for a fault: products summed in float32 and rounded."""
    from espnet_star.encoders.bfloat16 import gram_error, relative_error

    state = torch.randn(300, 64)
    assert relative_error(state.bfloat16(), state) < BOUND / 20
    assert 0 < gram_error(state.bfloat16().double(), state.double()) < BOUND / 20
    assert gram_error(state.flip(1).double(), state.double()) < 1e-6  # products of frames alone
    assert gram_error(state.flip(0).double(), state.double()) > 1


def test_ranks_agree(tmp_path, monkeypatch):
    """Fails if one rank went on in bfloat16 where another had seen a fault."""
    fault = Fault("a convolution", 1.16)
    assert agree(fault) is fault and agree(None) is None
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert agree(fault) == fault

        def gather(found, mine):
            found[:] = [mine, fault]

        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        assert agree(None) == fault
    finally:
        monkeypatch.undo()
        torch.distributed.destroy_process_group()
