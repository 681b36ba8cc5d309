"""VoxCeleb1's preparation: a bug here trains on test speakers, or finds out on day three."""

import itertools
import os
import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import fetch_voxceleb
import pytest
import voxceleb_lists
import voxceleb_sets
from prepare_voxceleb import main as prepare
from voxceleb_trees import DEV, TEST, names, trials, write_lists, write_tree

from espnet_star.data.kaldi import read_table
from espnet_star.data.trials import read_trials

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2" / "voxceleb" / "star1"
PARTIAL = ["--allow_partial", "true"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, make_speech):
    return write_tree(tmp_path_factory.mktemp("corpus") / "Vox Celeb1", make_speech)


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    return write_lists(tmp_path_factory.mktemp("lists"))


@pytest.fixture
def stops(capsys):
    """Run a command that stops with one line, and return it."""

    def call(main, *options):
        with pytest.raises(SystemExit) as stop:
            main([str(option) for option in options])
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return call


def options(tree, lists, data, *extra):
    return ["--voxceleb1", str(tree), "--lists", str(lists), "--data_dir", str(data), *extra]


def speakers(folder):
    return set(read_table(folder / "utt2spk").values())


def test_data_sh_writes_every_set(tree, lists, tmp_path):
    """Fails if a set is absent, has another part's utterances, or trains on test speakers."""
    (tmp_path / "local").symlink_to(RECIPE / "local")
    call = ["local/data.sh", *PARTIAL]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    # As run.sh passes them: a path with a space must arrive.
    env |= {"VOXCELEB1": str(tree), "VOXCELEB1_LISTS": str(lists)}
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data"
    for part, code in (("train", 1), ("valid", 2), ("test", 3)):
        wanted = {path[:-4].replace("/", "-") for found, path in names() if found == code}
        assert read_table(data / f"sid_{part}" / "wav.scp").keys() == wanted
        assert speakers(data / f"sid_{part}") == {f"id{number}" for number in (*DEV, *TEST)}
    dev = {f"id{number}" for number in DEV}
    assert speakers(data / "sv_train") == dev
    assert len(read_table(data / "sv_train" / "wav.scp")) == 8 * len(DEV)
    assert speakers(data / "distill_train") == speakers(data / "distill_valid") == dev
    assert speakers(data / "sv_test") == {f"id{number}" for number in TEST}
    found = [f"{t.label} {t.first} {t.second}" for t in read_trials(data / "sv_test" / "vox1_o")]
    assert found == [line.replace(".wav", "").replace("/", "-") for line in trials()]
    assert len(read_trials(data / "sv_test" / "vox1_o_cleaned")) == len(trials()) - 1
    valid = {name for trial in read_trials(data / "sv_valid" / "trials") for name in trial[1:]}
    assert read_table(data / "sv_valid" / "wav.scp").keys() == valid
    assert all(Path(path).is_file() for path in read_table(data / "sv_test" / "wav.scp").values())


def test_data_sh_without_a_corpus(tmp_path):
    """Fails if a user is not told what to pass."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("VOXCELEB1")}
    for call, message in (
        ([], "--voxceleb1 DIR is required"),
        (["--voxceleb"], "unknown option --voxceleb"),
        (["--voxceleb1"], "--voxceleb1 needs a value"),
    ):
        command = [RECIPE / "local" / "data.sh", *call]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr


def test_a_merged_tree_is_the_same_corpus(tree, lists, tmp_path, make_speech):
    """Fails if one of the two layouts that people have is read otherwise."""
    merged = write_tree(tmp_path / "merged", make_speech, merged=True)
    for name, root in (("a", tree), ("b", merged)):
        prepare(options(root, lists, tmp_path / name, *PARTIAL))
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file() and path.name != "wav.scp":
            other = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_text() == other.read_text()


def test_held_out_speakers(tree, lists, tmp_path):
    """Fails if a speaker that validation hears is trained on, or the test chooses the model."""
    prepare(options(tree, lists, tmp_path, *PARTIAL, "--valid_speakers", "2"))
    train, valid = speakers(tmp_path / "sv_train"), speakers(tmp_path / "sv_valid")
    assert len(train) == len(valid) == 2
    assert train | valid == {f"id{number}" for number in DEV}
    pairs = read_trials(tmp_path / "sv_valid" / "trials")
    assert len(set(pairs)) == len(pairs) > 20
    for pair in pairs:
        assert pair.first != pair.second
        assert pair.label == (pair.first[:7] == pair.second[:7])


@pytest.mark.parametrize(
    ("count", "message"), [("-1", "must be 0 or more"), ("3", "leave fewer than two to train on")]
)
def test_speakers_that_cannot_be_held_out(tree, lists, tmp_path, stops, count, message):
    call = options(tree, lists, tmp_path, *PARTIAL, "--valid_speakers", count)
    assert message in stops(prepare, *call)


def test_counts_must_be_the_official_ones(tree, lists, tmp_path, stops):
    """Fails if a shortened list passes for the benchmark."""
    message = stops(prepare, *options(tree, lists, tmp_path))
    assert "expected train 138361, valid 6904, test 8251 utterances of 1251 speakers" in message
    assert "found train 24, valid 12, test 12 of 6" in message
    assert "--allow_partial true" in message


def official_lists(folder):
    """Lists with the official numbers of utterances, speakers and trials."""
    tested = range(10270, 10310)
    dev = [number for number in range(10001, 11252) if number not in tested]
    files, lines = [], []
    # Shares of utterances, and of the parts 2 and 3, as even as they can be.
    shares = [*spread(4874, tested), *spread(148642, dev)]
    parts = zip(spread(6904, shares), spread(8251, shares), strict=True)
    for (number, count), ((_, valid), (_, test)) in zip(shares, parts, strict=True):
        codes = [2] * valid + [3] * test + [1] * (count - valid - test)
        for position, code in enumerate(codes):
            files.append(f"id{number}/v/{position:05d}.wav")
            lines.append(f"{code} {files[-1]}")
    folder.mkdir()
    (folder / "iden_split.txt").write_text("\n".join(lines) + "\n")
    few = [[f"id{number}/v/{k:05d}.wav" for k in range(40)] for number in tested]
    one = [f"1 {a} {b}" for group in few for a, b in itertools.combinations(group, 2)]
    two = [f"0 {a} {b}" for x, y in itertools.pairwise(few) for a in x for b in y]
    for name, targets, others in (("veri_test", 18860, 18860), ("veri_test2", 18802, 18809)):
        text = "\n".join(every(one, targets) + every(two, others))
        (folder / f"{name}.txt").write_text(text + "\n")
    return files


def every(lines, count):
    """So many of the lines, from all over."""
    return [lines[position * len(lines) // count] for position in range(count)]


def spread(total, groups):
    """The groups, each with its share of a total."""
    share, more = divmod(total, len(groups))
    return [(group, share + (position < more)) for position, group in enumerate(groups)]


def test_the_whole_corpus_is_accepted(tmp_path, monkeypatch, capsys):
    """Fails if the real corpus would be refused, or verification trained on fewer."""
    files = official_lists(tmp_path / "lists")
    audio = {voxceleb_lists.utterance(path): f"/corpus/{path}" for path in files}
    corpus = voxceleb_lists.Corpus(Path("/corpus"), ["dev/wav", "test/wav"], audio, [])
    monkeypatch.setattr("prepare_voxceleb.scan", lambda root: corpus)
    prepare(options(tmp_path, tmp_path / "lists", tmp_path / "data"))
    said = capsys.readouterr().out
    assert "sv_train: 148642 utterances of 1211 speakers" in said
    assert "sid_train: 138361 utterances of 1251 speakers" in said
    assert "sv_valid/trials: 2000 trials, 1000 of one speaker" in said
    assert "vox1_o: 37720 trials, 18860 of one speaker" in said


def test_half_a_corpus(tree, lists, tmp_path, monkeypatch, stops):
    """Fails if training starts without the test part."""
    shutil.copytree(tree / "dev", tmp_path / "half" / "dev")
    monkeypatch.setattr(voxceleb_sets, "SPLIT_COUNTS", {"train": 24, "valid": 12, "test": 12})
    monkeypatch.setattr(voxceleb_sets, "SPEAKERS", 6)
    monkeypatch.setattr(
        voxceleb_sets, "TRIAL_COUNTS", {"vox1_o": (14, 8), "vox1_o_cleaned": (14, 7)}
    )
    message = stops(prepare, *options(tmp_path / "half", lists, tmp_path / "data"))
    assert "lacks 16 of the 48 utterances of iden_split.txt" in message
    assert "found dev/wav with 32 utterances" in message
    assert not (tmp_path / "data").exists()
    # With the part that is there, no trial is left.
    message = stops(prepare, *options(tmp_path / "half", lists, tmp_path / "data", *PARTIAL))
    assert "0 trials are left" in message


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("iden_split.txt", "4 id10001/v/1.wav", "iden_split.txt:49: expected '1 id10003/VIDEO"),
        ("iden_split.txt", "1 id10001/vid0_-x5/00001.wav", "iden_split.txt:49: id10001/vid0"),
        ("iden_split.txt", "2 id10999/v/00001.wav", ""),
        ("veri_test.txt", "1 id10270/v/1.wav", "veri_test.txt:23: expected '1 id10270/VIDEO"),
        ("veri_test2.txt", None, "veri_test2.txt: cannot be read"),
    ],
)
def test_broken_lists(tree, lists, tmp_path, stops, name, line, message):
    """Fails if a wrong list is half read."""
    copy = shutil.copytree(lists, tmp_path / "lists")
    path = copy / name
    if line is None:
        path.unlink()
    else:
        path.write_text(path.read_text() + line + "\n")
    if not message:
        # An utterance without audio is left out of a partial corpus.
        prepare(options(tree, copy, tmp_path / "data", *PARTIAL))
        return
    assert message in stops(prepare, *options(tree, copy, tmp_path / "data", *PARTIAL))


def test_test_speakers_without_training(tree, lists, tmp_path, stops):
    """Fails if a classifier is asked for speakers that it never heard."""
    copy = shutil.copytree(lists, tmp_path / "lists")
    path = copy / "iden_split.txt"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("1 id10002")]
    path.write_text("\n".join(kept) + "\n")
    message = stops(prepare, *options(tree, copy, tmp_path / "data", *PARTIAL))
    assert "1 speakers of valid have no training utterance" in message
    assert "id10002" in message


def test_labels_that_contradict_the_names(tree, lists, tmp_path, stops):
    copy = shutil.copytree(lists, tmp_path / "lists")
    path = copy / "veri_test.txt"
    path.write_text(path.read_text().replace("1 id10270", "0 id10270", 1))
    message = stops(prepare, *options(tree, copy, tmp_path / "data", *PARTIAL))
    assert "are labeled 0, but their names say 1" in message


def test_trees_that_are_none(tree, lists, tmp_path, stops):
    """Fails if a wrong folder or a file that was cut off is found hours later."""
    (tmp_path / "empty" / "wav").mkdir(parents=True)
    assert "no audio in wav" in stops(prepare, *options(tmp_path / "empty", lists, tmp_path / "d"))
    message = stops(prepare, *options(tree / "dev" / "wav", lists, tmp_path / "d"))
    assert "holds no VoxCeleb1: expected dev/wav/id10001" in message
    broken = shutil.copytree(tree, tmp_path / "broken")
    next((broken / "dev").rglob("00002.wav")).write_bytes(b"RIFF")
    message = stops(prepare, *options(broken, lists, tmp_path / "d", *PARTIAL))
    assert "1 files hold no audio" in message


def test_lists_come_from_the_corpus_or_the_folder_given(tree, lists, tmp_path, stops):
    """Fails if s3prl's name is not known, or a list that was asked for is replaced."""
    own = shutil.copytree(lists, tmp_path / "own" / "meta").parent
    (own / "meta" / "iden_split.txt").rename(own / "meta" / "veri_test_class.txt")
    fetch_voxceleb.main(["--voxceleb1", str(own), "--output_dir", str(tmp_path / "out")])
    for name in fetch_voxceleb.LISTS:
        assert (tmp_path / "out" / name).read_text() == (lists / name).read_text()
    (own / "meta" / "veri_test.txt").unlink()
    call = ["--voxceleb1", tree, "--lists", own, "--output_dir", tmp_path / "out"]
    assert f"{own} has no veri_test.txt" in stops(fetch_voxceleb.main, *call)


def test_downloads_are_checked(tree, tmp_path, monkeypatch, capsys):
    """Fails if an error page is taken for a list, or no network is not told from a mistake."""
    pytest.importorskip("lhotse")

    def serve(url, filename):
        filename.write_text("<html>")

    def fail(url, filename):
        raise urllib.error.URLError("no route")

    call = ["--voxceleb1", str(tree), "--output_dir", str(tmp_path / "out")]
    for download, message in ((serve, "expected MD5 29fc7cc1"), (fail, "cannot download https://")):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "iden_split.txt").touch()
        monkeypatch.setattr("lhotse.utils.resumable_download", download)
        with pytest.raises(SystemExit) as stop:
            fetch_voxceleb.main(call)
        assert stop.value.code == 3
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out" / "veri_test.txt").exists()


def test_audio_that_the_server_refuses(tmp_path, monkeypatch, capsys):
    """Fails if a user is not told where to ask for access."""
    recipe = pytest.importorskip("lhotse.recipes.voxceleb")

    def refuse(root):
        raise urllib.error.HTTPError("https://thor", 403, "Forbidden", None, None)

    monkeypatch.setattr(recipe, "download_voxceleb1", refuse)
    call = [
        "--voxceleb1",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "out"),
        "--download",
        "true",
    ]
    with pytest.raises(SystemExit) as stop:
        fetch_voxceleb.main(call)
    assert stop.value.code == 3
    assert f"ask for access at {fetch_voxceleb.HOME}" in capsys.readouterr().err
