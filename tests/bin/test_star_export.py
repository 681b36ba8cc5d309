"""A bug here exports another student, overwrites work, or leaves half of it behind."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModel, HubertModel

from espnet_star.bin.star_export.transformers import main
from espnet_star.evaluate.cost import profile, student_cost
from espnet_star.evaluate.cost.subjects import find_subject
from espnet_star.students import StarEncoder, hugging_face

TINY = {
    "conv_dim": [16] * 9,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.fixture
def experiment(tmp_path):
    """Folder as ESPnet's trainer leaves it, and the student whose weights it holds."""
    directory = tmp_path / "exp"
    directory.mkdir()
    torch.manual_seed(3)
    encoder = StarEncoder(preset="starhubert", **TINY).eval()
    config = {"encoder": "star", "encoder_conf": TINY, "losses": [{"name": "star"}]}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    # The distillation model has weights of its own, for instance heads.
    state["losses.0.head.weight"] = torch.zeros(2, 2)
    torch.save(state, directory / "valid.loss.best.pth")
    return directory, encoder


@pytest.fixture
def export(experiment, tmp_path, capsys, monkeypatch):
    # The cost of one utterance instead of 32, no timing: these tests export often.
    monkeypatch.setattr(student_cost, "LIBRISPEECH_LENGTHS", (16000,))

    def call(outdir, *options, expdir=experiment[0], speed="false"):
        status = 0
        paths = ["--expdir", str(expdir), "--output_dir", str(tmp_path / outdir)]
        try:
            main([*paths, "--speed", speed, *options])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr(), tmp_path / outdir

    return call


def weights(directory):
    return HubertModel.from_pretrained(directory).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_transformers_loads_what_was_distilled(export, experiment):
    status, captured, out = export("student")
    assert status == 0, captured.err
    assert "M parameters, the same in transformers.HubertModel (to " in captured.out
    loaded = StarEncoder.from_pretrained(out).state_dict()
    assert same(loaded, experiment[1].state_dict())
    speech, lengths = torch.randn(1, 8000), torch.tensor([8000])
    with torch.no_grad():
        theirs = HubertModel.from_pretrained(out).eval()(speech).last_hidden_state
        ours = experiment[1].encode(speech, lengths).hidden_states[-1]
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def test_model_file_is_chosen(export, experiment):
    directory, encoder = experiment
    state = {f"encoder.{key}": value * 0.5 for key, value in encoder.state_dict().items()}
    torch.save(state, directory / "5epoch.pth")
    status, captured, out = export("student", "--model_file", "5epoch.pth")
    assert status == 0, captured.err
    name = "encoder.layers.0.attention.q_proj.weight"
    expected = encoder.state_dict()[name] * 0.5
    assert torch.equal(StarEncoder.from_pretrained(out).state_dict()[name], expected)


def test_existing_student_is_replaced_only_with_force(export):
    assert export("student")[0] == 0
    status, captured, out = export("student", "--random_init", "true")
    assert status == 2
    assert f"{out} already holds config.json; give --force true" in captured.err
    before = weights(out)
    assert export("student", "--random_init", "true", "--force", "true")[0] == 0
    assert not same(before, weights(out))


def test_random_init_keeps_the_architecture_and_follows_the_seed(export):
    folders = {
        name: export(name, *options)[2]
        for name, options in {
            "distilled": [],
            "random": ["--random_init", "true"],
            "again": ["--random_init", "true", "--seed", "0"],
            "other": ["--random_init", "true", "--seed", "1"],
        }.items()
    }
    configs = {(path / "config.json").read_text() for path in folders.values()}
    assert len(configs) == 1
    states = {name: weights(path) for name, path in folders.items()}
    assert same(states["random"], states["again"])
    for name in ("distilled", "other"):
        assert not same(states["random"], states[name])


def test_baseline_of_a_ready_student(export, tmp_path, capsys):
    """Fails if a student from elsewhere is compared with weights of another architecture."""
    distilled = export("distilled")[2]
    random = export("random", "--random_init", "true")[2]
    call = ["--upstream", str(distilled), "--output_dir", str(tmp_path / "baseline")]
    main([*call, "--random_init", "true"])
    assert same(weights(tmp_path / "baseline"), weights(random))
    assert not same(weights(tmp_path / "baseline"), weights(distilled))
    capsys.readouterr()
    for options, message in (
        (call, "is exported already; --upstream is for --random_init true"),
        ([*call, "--expdir", "x"], "give one of --expdir and --upstream"),
        (["--output_dir", "x"], "give one of --expdir and --upstream"),
        ([*call, "--random_init", "true"], "already holds"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(options)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_folder_that_is_no_experiment(export, tmp_path):
    (tmp_path / "empty").mkdir()
    status, captured, out = export("student", expdir=tmp_path / "empty")
    assert status == 2
    assert "empty has no config.yaml; expected the folder of a distillation" in captured.err
    assert not out.exists()


def test_experiment_without_a_finished_epoch(export, experiment):
    (experiment[0] / "valid.loss.best.pth").unlink()
    status, captured, out = export("student")
    assert status == 2
    assert "no epoch has finished yet" in captured.err
    assert not out.exists()


def test_a_pre_norm_student_is_compared_state_by_state(export, tmp_path):
    """Fails if our residual stream is held against transformers' normalized last state."""
    options = TINY | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    directory = tmp_path / "pre_norm"
    directory.mkdir()
    encoder = StarEncoder(preset="starhubert", **options)
    config = {"encoder": "star", "encoder_conf": options, "losses": [{"name": "star"}]}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"encoder.{key}": 1.1 * value for key, value in encoder.state_dict().items()}
    torch.save(state, directory / "valid.loss.best.pth")
    status, captured, _ = export("student", expdir=directory)
    assert status == 0, captured.err


def test_difference_from_transformers_is_an_error(export, monkeypatch):
    monkeypatch.setattr(hugging_face, "TOLERANCE", -1.0)
    status, captured, _ = export("student")
    assert status == 2
    assert "gives other features in transformers" in captured.err


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json", "README.md"])
def test_nothing_is_overwritten_without_force(export, name):
    """Fails if half a directory of somebody else's is filled up with ours."""
    out = export("student")[2]
    card = (out / "README.md").read_text()
    for path in out.iterdir():
        path.unlink()
    (out / name).write_text(card)
    status, captured, out = export("student")
    assert status == 2
    assert f"already holds {name}; give --force true" in captured.err
    assert [path.read_text() for path in out.iterdir()] == [card]


def test_files_of_others_stay_even_with_force(export):
    out = export("student")[2]
    (out / "notes.txt").write_text("mine")
    (out / "README.md").write_text("mine")
    status, captured, out = export("student", "--random_init", "true", "--force", "true")
    assert status == 0, captured.err
    assert "README.md is not star_export's and was left as it is" in captured.out
    assert {(out / name).read_text() for name in ("notes.txt", "README.md")} == {"mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_nothing(export, monkeypatch, tmp_path, error):
    def stop(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, "save_file", stop)
        status, captured, out = export("student")
        assert status == (130 if error is KeyboardInterrupt else 2)
        assert "interrupted" in captured.err or "No space left" in captured.err
        assert [path.name for path in tmp_path.iterdir()] == ["exp"]
    assert export("student")[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(hugging_face, "save_file", stop)
    assert export("student", "--random_init", "true", "--force", "true")[0] != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_failed_check_leaves_nothing(export, monkeypatch):
    monkeypatch.setattr(hugging_face, "TOLERANCE", -1.0)
    assert not export("student")[2].exists()


def test_auto_classes_load_it(export):
    out = export("student")[2]
    assert type(AutoModel.from_pretrained(out)) is HubertModel
    assert AutoFeatureExtractor.from_pretrained(out).sampling_rate == 16000
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert len(modes) == 1, "every file must be as readable as the rest"


def test_the_card_tells_what_was_asked(export, tmp_path):
    machine = {"date": "2026-01-01", "cpu": "a CPU", "cores": 2, "gpus": [], "python": "3"}
    machine |= {"torch": "2", "espnet": "2", "transformers": "5", "command": "star_score table"}
    system = {"key": "a", "system": "student", "params": 1, "metrics": {"cer": 0.716}}
    (tmp_path / "results.json").write_text(json.dumps({"systems": [system], "machine": machine}))
    status, captured, out = export(
        "student",
        *("--results", str(tmp_path / "results.json"), "--license", "cc-by-4.0"),
        *("--base_model", "openai/whisper-base", "--hf_repo", "me/star"),
        speed="true",
    )
    assert status == 0, captured.err
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.base_model == "openai/whisper-base"
    assert "| student | 0.00 | 71.6 |" in card.text
    assert 'from_pretrained("me/star")' in card.text
    params = sum(p.numel() for p in StarEncoder.from_pretrained(out).parameters())
    assert f"| Parameters | {params / 1e6:.2f} M |" in card.text
    subject = find_subject(str(out))
    macs = profile.profile(subject, (16000,))["macs_per_second"]
    (factor,) = re.findall(r"\| Real-time factor \| ([\d.]+) with espnet_star: a clip", card.text)
    assert 0 < float(factor) < 10
    assert f"| Multiply-accumulates | {macs / 1e9:.2f} G per second of audio |" in card.text


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--license", "Apache License", "--license must be an identifier"),
        ("--results", "absent.json", "absent.json: cannot be read"),
        ("--results", "exp/other.json", "other.json: expected merged results"),
    ],
)
def test_a_mistake_in_the_card_comes_before_the_work(
    export, tmp_path, monkeypatch, option, value, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp" / "other.json").write_text('{"accuracy": 1}')
    status, captured, out = export("student", option, value)
    assert status == 2
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not out.exists()


def test_module_runs_by_itself(experiment, tmp_path):
    command = [
        sys.executable,
        "-m",
        "espnet_star.bin.star_export",
        "transformers",
        "--expdir",
        str(experiment[0]),
    ]
    out = tmp_path / "student"
    subprocess.run([*command, "--output_dir", str(out)], check=True, capture_output=True)
    assert (out / "model.safetensors").exists()
