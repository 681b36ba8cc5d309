"""Packs of a student, and what is refused before a pack or an upload is made.

A bug here packs another student than the exported one, or sends what nobody asked for.
"""

import zipfile

import pytest
import torch
import transformers
import yaml
from espnet_model_zoo.downloader import ModelDownloader
from huggingface_hub import ModelCard

import espnet_star.formats.packs.hub as hub
from espnet_star.bin import star_export, star_import
from espnet_star.students import StarEncoder

SPEECH = (torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)), torch.tensor([4000]))


@pytest.fixture
def exp(tiny_student, tmp_path):
    """Folder of a distillation, as far as a student is read from it."""
    folder = tmp_path / "exp" / "train_star"
    folder.mkdir(parents=True)
    config = {"encoder": "star", "encoder_conf": tiny_student.options(), "losses": []}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed": 1}))
    weights = {f"encoder.{key}": value for key, value in tiny_student.state_dict().items()}
    torch.save(weights, folder / "3epoch.pth")
    (folder / "valid.loss.ave.pth").symlink_to("3epoch.pth")
    return folder


@pytest.fixture
def failing(capsys):
    """Run a command that stops with one line."""

    def call(main, *options):
        with pytest.raises(SystemExit) as stop:
            main([str(option) for option in options])
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    return call


def pack(exp, target, *options):
    star_export.main(
        ["pack", "ssl", "--expdir", str(exp), "--output", str(target), *map(str, options)]
    )
    return target


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
@pytest.mark.filterwarnings("ignore:Expanding a local model")
def test_an_unpacked_student_has_the_same_features(exp, tiny_student, tmp_path, suffix):
    """Fails if weights, architecture or layout change on the way through the zoo."""
    target = pack(exp, tmp_path / f"student{suffix}", "--license", "mit")
    exp.rename(tmp_path / "gone")
    files = ModelDownloader(tmp_path / "zoo").download_and_unpack(str(target))
    assert files.keys() == {"ssl_train_config", "ssl_model_file"}
    star_import.main(["pack", "--pack", str(target), "--output_dir", str(tmp_path / "model")])
    expected = tiny_student.encode(*SPEECH).hidden_states
    homes = [tmp_path / "model", tmp_path / "model" / "exp" / "train_star"]
    for home in [*homes, *(tmp_path / "zoo").glob("*/exp/train_star")]:
        found = StarEncoder.from_pretrained(home).encode(*SPEECH).hidden_states
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    plain = transformers.HubertModel.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(plain(SPEECH[0]).last_hidden_state, expected[-1])
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license == "mit"
    assert f"--pack {target.name} --output_dir student" in card.text
    assert 'espnet_star.load("student")' in card.text


def test_an_exported_student_brings_its_card(exp, tiny_student, tmp_path):
    """Fails if the model card is lost, or keeps the license of before."""
    tiny_student.save_pretrained(tmp_path / "student")
    card = "---\nlicense: mit\ntags:\n- speech\n---\n\n# Mine\n\nTrained on whales.\n"
    (tmp_path / "student" / "README.md").write_text(card)
    options = ["--upstream", tmp_path / "student", "--license", "cc0-1.0", "--hf_repo", "me/whale"]
    with zipfile.ZipFile(pack(exp, tmp_path / "student.zip", *options)) as file:
        text = file.read("README.md").decode()
        assert "model.safetensors" in file.namelist()
    assert text.count("---\n") == 2
    assert ModelCard(text).data.license == "cc0-1.0"
    for line in (
        "- speech",
        "- espnet_star",
        "Trained on whales.",
        "star_import pack --pack me/whale",
    ):
        assert line in text


def test_a_student_of_another_training_is_refused(exp, tiny_options, tmp_path, failing):
    StarEncoder(**tiny_options).save_pretrained(tmp_path / "student")
    options = ["ssl", "--expdir", exp, "--output", tmp_path / "s.zip"]
    line = failing(star_export.main, "pack", *options, "--upstream", tmp_path / "student")
    assert "is not the student in" in line
    assert not (tmp_path / "s.zip").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "s.rar"], "must end in one of .zip"),
        (["--output", "s.zip", "--model_file", "9epoch.pth"], "has none of 9epoch.pth"),
        (["--output", "s.zip", "--option", "absent"], "absent is no file"),
        (["--output", "s.zip", "--results", "absent"], "absent: cannot be read"),
        (["--output", "taken.zip"], "exists already; give --force true"),
        (["--output", "s.zip", "--expdir", "nowhere"], "nowhere has no config.yaml"),
    ],
)
def test_a_pack_that_cannot_be_made(exp, tmp_path, failing, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.zip").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    assert message in failing(star_export.main, "pack", "ssl", "--expdir", exp, *options)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken.zip").read_text() == "precious"


def test_a_training_cut_short_is_refused(exp, tmp_path, failing):
    path = exp / "valid.loss.ave.pth"
    path.write_bytes(path.read_bytes()[:1000])
    line = failing(star_export.main, "pack", "ssl", "--expdir", exp, "--output", tmp_path / "s.zip")
    assert "is not a complete model file" in line


def test_a_model_without_the_students_weights_is_refused(exp, tiny_student, tmp_path, failing):
    """Fails if a downstream pack is made that cannot bring its student along."""
    config = {"frontend": "star", "frontend_conf": {"student_conf": tiny_student.options()}}
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--expdir", exp, "--output", tmp_path / "s.zip"]
    line = failing(star_export.main, "pack", "asr", *options, "--model_file", "3epoch.pth")
    assert "holds no weights frontend.upstream." in line


def test_a_sentencepiece_model_that_is_gone_is_named(exp, tmp_path, failing):
    (exp / "config.yaml").write_text(yaml.safe_dump({"bpemodel": "tokens/bpe.model"}))
    options = ["--expdir", exp, "--output", tmp_path / "s.zip"]
    line = failing(star_export.main, "pack", "asr", *options, "--model_file", "3epoch.pth")
    assert "tokens/bpe.model, the bpemodel of the configuration, is not here" in line


class NoHub:
    """A hub that must not be asked."""

    def __getattr__(self, name):
        raise AssertionError(f"the hub was asked to {name}")


def test_a_dry_run_shows_what_would_be_sent(exp, tmp_path, monkeypatch, capsys):
    """Fails if it needs a token or network, or leaves out a file, a size or the license."""
    monkeypatch.setattr(hub, "HfApi", NoHub)
    target = pack(exp, tmp_path / "s.zip", "--license", "cc-by-4.0", "--description", "Tiny.")
    capsys.readouterr()
    star_export.main(["upload", "--pack", str(target), "--hf_repo", "me/tiny", "--dry_run", "true"])
    out = capsys.readouterr().out
    assert "me/tiny (dry run, nothing was sent)" in out
    assert "license: cc-by-4.0" in out
    with zipfile.ZipFile(target) as file:
        for info in file.infolist():
            assert f"\n{info.filename} (" in out
    assert "\nTiny.\n" in out


def test_an_upload_that_cannot_be(exp, tmp_path, failing, monkeypatch, capsys):
    """Fails if a missing license, token or network is not one line, or something is sent."""
    monkeypatch.setattr(hub, "HfApi", NoHub)
    target = tmp_path / "s.zip"
    pack(exp, target)
    options = ["--pack", target, "--hf_repo", "me/tiny"]
    assert "names no license" in failing(star_export.main, "upload", *options)
    pack(exp, target, "--license", "mit", "--force", "true")
    assert "Expected user/model" in failing(
        star_export.main, "upload", "--pack", target, "--hf_repo", "a//b"
    )
    # The hub's own client: without a token, then with nobody at the other end.
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    assert "no token found" in failing(star_export.main, "upload", *options)
    monkeypatch.undo()
    monkeypatch.setattr(hub, "HfApi", lambda token: hub_at("http://127.0.0.1:9"))
    assert "me/tiny was not uploaded: " in failing(star_export.main, "upload", *options)


def hub_at(address):
    from huggingface_hub import HfApi

    return HfApi(endpoint=address, token="hf_x")


@pytest.mark.parametrize(
    ("task", "files", "said"),
    [
        (
            "asr",
            "valid.acc.ave.pth valid.loss.best.pth latest.pth",
            "valid.acc.ave.pth (3epoch.pth)",
        ),
        ("asr", "valid.loss.best.pth latest.pth", "valid.loss.best.pth (3epoch.pth)"),
        ("cls", "valid.acc.ave.pth valid.acc.best.pth", "valid.acc.best.pth (3epoch.pth)"),
        ("spk", "valid.acc.ave.pth valid.eer.best.pth", "valid.eer.best.pth (3epoch.pth)"),
        ("spk", "latest.pth", "latest.pth, the last epoch, since none of valid.eer.best.pth, "),
        ("asr --model_file latest.pth", "valid.acc.ave.pth latest.pth", "latest.pth (3epoch.pth)"),
    ],
)
def test_the_model_that_the_recipe_decodes_with(exp, tmp_path, capsys, task, files, said):
    """Fails if a pack holds another model than the one whose scores stand in the results."""
    (exp / "valid.loss.ave.pth").unlink()
    for name in files.split():
        (exp / name).symlink_to("3epoch.pth")
    star_export.main(
        ["pack", *task.split(), "--expdir", str(exp), "--output", str(tmp_path / "x.zip")]
    )
    assert f"model: {exp}/{said}" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "x.zip") as pack:
        packed = [name for name in pack.namelist() if name.endswith(".pth")]
    assert [name.rsplit("/")[-1] for name in packed] == [said.split(" ")[0].strip(",")]
