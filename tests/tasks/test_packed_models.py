"""Packed models at work elsewhere.

A bug here leaves a pack that runs on the machine it was made on and nowhere else, or a README
whose lines do not run.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import espnet_model_zoo.downloader
import pytest
import torch
import yaml
from downstream_runs import asr_options, cls_options, inference
from espnet_model_zoo.downloader import ModelDownloader
from espnet_tools import asr_inference, asr_train, cls_inference, cls_train
from star_runs import pairs

import espnet_star.formats.packs.hub
from espnet_star.bin import star_data, star_export, star_import
from espnet_star.evaluate.machine import machine_facts
from espnet_star.students import StarEncoder

DECODE = ["--ctc_weight", "1.0", "--beam_size", "2"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tiny_options, data_directory, tmp_path_factory):
    """ASR on SentencePiece and CLS on a student, decoded, packed; their folders are gone."""
    work = tmp_path_factory.mktemp("packed")
    home, packs = work / "home", work / "packs"
    torch.manual_seed(0)
    StarEncoder(**tiny_options).eval().save_pretrained(home / "student")
    star = ["--frontend", "star", "--frontend_conf", f"upstream={home}/student"]
    tokens = ["--text", f"{data_directory}/text", "--output_dir", f"{home}/tokens"]
    star_data.main(["tokens", *tokens, "--token_type", "bpe", "--vocab_size", "6"])
    bpe = ["--token_type", "bpe", "--bpemodel", f"{home}/tokens/bpe.model"]
    bpe += ["--token_list", f"{home}/tokens/tokens.txt"]
    head = ["--encoder", "rnn", *pairs("--encoder_conf", ["hidden_size=8", "num_layers=1"])]
    # Trained long enough that it writes something.
    longer = ["--max_epoch", "12", "--optim_conf", "lr=0.05"]
    asr_train.main([*asr_options(data_directory, home / "asr"), *bpe, *star, *head, *longer])
    linear = ["--encoder", "linear", "--encoder_conf", "output_size=8"]
    cls_train.main([*cls_options(data_directory, home / "cls"), *star, *linear])
    before = {
        "asr": decode_asr(data_directory, asr_files(home / "asr"), work / "asr_before"),
        "cls": decode_cls(data_directory, cls_files(home / "cls"), work / "cls_before"),
    }
    system = {"key": "student", "system": "student", "params": None, "metrics": {"cer": 0.123}}
    table = work / "results.json"
    table.write_text(json.dumps({"systems": [system], "machine": machine_facts()}))
    for task in ("asr", "cls"):
        options = [task, "--expdir", f"{home}/{task}", "--output", f"{packs}/{task}.zip"]
        options += ["--license", "cc-by-4.0", "--language", "en", "--results", str(table)]
        options += ["--inference_args", " ".join(DECODE)] if task == "asr" else []
        star_export.main(["pack", *options])
    home.rename(work / "gone")
    yield packs, before
    shutil.rmtree(work)


def asr_files(exp):
    model = {"asr_model_file": exp / "valid.acc.ave.pth"}  # what star_export pack takes by itself
    return {"asr_train_config": exp / "config.yaml"} | model


def cls_files(exp):
    model = {"classification_model_file": exp / "valid.acc.best.pth"}
    return {"classification_train_config": exp / "config.yaml"} | model


def options_of(files):
    return [part for key, path in files.items() for part in (f"--{key}", str(path))]


def decode_asr(data, files, out):
    asr_inference.main([*inference(data, out, *DECODE), *options_of(files)])
    return read(out / "1best_recog")


def decode_cls(data, files, out):
    every = ["--output_all_probabilities", "true"]
    cls_inference.main([*inference(data, out, *every), *options_of(files)])
    return read(out / "prediction")


def read(folder):
    return {name: (folder / name).read_text() for name in ("text", "score")}


def readme(pack, tmp_path):
    """Blocks of Python in a pack's README, by the language of the block."""
    star_import.main(["pack", "--pack", str(pack), "--output_dir", str(tmp_path / "readme")])
    return (tmp_path / "readme" / "README.md").read_text()


def python_block(text):
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


def unpacked_by_the_zoo(pack, folder):
    with pytest.warns(UserWarning, match="local model"):
        return ModelDownloader(folder).download_and_unpack(str(pack))


def test_asr_runs_from_the_zoo_without_its_folders(trained, data_directory, tmp_path):
    """Fails if the pack needs student, tokens or experiment, or decodes otherwise."""
    packs, before = trained
    assert len(before["asr"]["text"].split()) > 8  # says something, not only names
    files = unpacked_by_the_zoo(packs / "asr.zip", tmp_path / "zoo")
    assert files.keys() == {"asr_train_config", "asr_model_file"}
    config = yaml.safe_load(Path(files["asr_train_config"]).read_text())
    assert Path(config["bpemodel"]).is_file()
    assert tmp_path in Path(config["bpemodel"]).parents
    # In a process of its own, where nothing has registered the student yet.
    command = [*inference(data_directory, tmp_path / "out", *DECODE), *options_of(files)]
    tool = [sys.executable, "-m", "espnet_star", "asr_inference", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        tool, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert read(tmp_path / "out" / "1best_recog") == before["asr"]


def test_cls_runs_from_the_zoo_without_its_folders(trained, data_directory, tmp_path):
    """Fails if the scores of any class change."""
    packs, before = trained
    files = unpacked_by_the_zoo(packs / "cls.zip", tmp_path / "zoo")
    assert decode_cls(data_directory, files, tmp_path / "out") == before["cls"]


def test_our_own_unpacking_gives_the_same(trained, data_directory, tmp_path, capsys):
    """Fails if star_import pack points the configuration elsewhere than to the folder it made."""
    packs, before = trained
    star_import.main(
        ["pack", "--pack", str(packs / "asr.zip"), "--output_dir", str(tmp_path / "model")]
    )
    files = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert decode_asr(data_directory, files, tmp_path / "out") == before["asr"]


@pytest.mark.parametrize("task", ["asr", "cls"])
def test_the_readme_tells_lines_that_run(trained, data_directory, tmp_path, monkeypatch, task):
    """Fails if a line of Python in the README is wrong, or license and table are lost."""
    packs, before = trained
    text = readme(packs / f"{task}.zip", tmp_path)
    assert "license: cc-by-4.0" in text
    assert "| student | - | 12.3 |" in text
    key, path = (data_directory / "wav.scp").read_text().splitlines()[0].split()
    shutil.copy(path, tmp_path / "speech.wav")
    shutil.copy(packs / f"{task}.zip", tmp_path)
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as printed, pytest.warns(UserWarning, match="local"):
        exec(python_block(text), {})
    expected = dict(line.split(" ", 1) for line in before[task]["text"].splitlines())[key]
    assert printed.getvalue().splitlines()[-1].strip() == expected.strip()


class Hub:
    """The hub as a folder: what is sent there can be had from there."""

    def __init__(self, folder):
        self.folder, self.private = folder, {}

    def create_repo(self, repo_id, private=None, exist_ok=False):
        assert exist_ok
        self.private[repo_id] = private

    def upload_folder(self, repo_id, folder_path, commit_message):
        assert repo_id in self.private
        shutil.copytree(folder_path, self.folder / repo_id)
        return type("Commit", (), {"commit_url": f"hub/{repo_id}/commit/1"})

    def snapshot_download(self, repo_id, **options):
        return str(shutil.copytree(self.folder / repo_id, self.folder / "cache" / repo_id))


def test_uploaded_and_had_back_from_the_hub(trained, data_directory, tmp_path, monkeypatch, capsys):
    """Fails if what is sent does not run for who downloads it by name."""
    packs, before = trained
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(espnet_star.formats.packs.hub, "HfApi", lambda token: hub)
    monkeypatch.setattr(espnet_model_zoo.downloader, "snapshot_download", hub.snapshot_download)
    options = ["--pack", str(packs / "asr.zip"), "--hf_repo", "user/model", "--private", "true"]
    star_export.main(["upload", *options])
    assert "hub/user/model/commit/1" in capsys.readouterr().out
    assert hub.private == {"user/model": True}
    files = ModelDownloader(tmp_path / "zoo").download_and_unpack("user/model")
    assert decode_asr(data_directory, files, tmp_path / "out") == before["asr"]


def test_unpacked_from_the_hub_by_name(trained, data_directory, tmp_path, monkeypatch, capsys):
    """Fails if our own way from the hub, which checks what it gets, makes no running model."""
    packs, before = trained
    hub = Hub(tmp_path / "hub")
    shutil.unpack_archive(packs / "cls.zip", hub.folder / "user" / "model")
    monkeypatch.setattr(espnet_star.formats.packs.hub, "snapshot_download", hub.snapshot_download)
    star_import.main(["pack", "--pack", "user/model", "--output_dir", str(tmp_path / "model")])
    files = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert decode_cls(data_directory, files, tmp_path / "out") == before["cls"]


def test_a_model_on_a_teacher_is_refused(data_directory, teacher_directory, tmp_path, capsys):
    """Fails if a model is packed whose frontend stays behind."""
    exp = tmp_path / "cls"
    frontend = ["--frontend", "star", "--frontend_conf", f"upstream={teacher_directory}"]
    linear = ["--encoder", "linear", "--encoder_conf", "output_size=8"]
    cls_train.main([*cls_options(data_directory, exp), *frontend, *linear])
    with pytest.raises(SystemExit) as stop:
        star_export.main(
            ["pack", "cls", "--expdir", str(exp), "--output", str(tmp_path / "cls.zip")]
        )
    assert stop.value.code == 2
    assert "the frontend is the teacher" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [exp]
