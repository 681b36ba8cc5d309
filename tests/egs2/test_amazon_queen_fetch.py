import io
import tarfile
import zipfile

import fetch_corpus
import pytest
from amazon_queen_builders import ar_bytes, archive_bytes

QUEEN = archive_bytes({"A.SB": b"voice"})
TERMS = b"preamble\nLicense: Some-License\n free to share\n"


def deb_bytes(files, compression="xz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/share/readme.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    return ar_bytes({"debian-binary": b"2.0\n", f"data.tar.{compression}": out.getvalue()})


def zip_bytes(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def given(tmp_path, content):
    path = tmp_path / "given"
    path.write_bytes(content)
    return path


FILES = {"./usr/share/scummvm/queen.1c": QUEEN, "./usr/share/doc/copyright": TERMS, "./evil": b"x"}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (deb_bytes(FILES), ["copyright", "queen.1c"]),
        (deb_bytes(FILES, "gz"), ["copyright", "queen.1c"]),
        (zip_bytes({"talkie/QUEEN.1C": QUEEN, "readme.txt": b"r"}), ["queen.1c", "readme.txt"]),
        (QUEEN, ["queen.1c"]),
    ],
    ids=["deb-xz", "deb-gz", "zip", "queen.1c"],
)
def test_users_file_is_unpacked(tmp_path, capsys, content, kept):
    outdir = tmp_path / "out"
    arguments = ["--queen", str(given(tmp_path, content)), "--output_dir", str(outdir)]
    assert fetch_corpus.main(arguments) == 0
    assert sorted(path.name for path in outdir.iterdir()) == kept
    assert (outdir / "queen.1c").read_bytes() == QUEEN
    printed = capsys.readouterr().out
    assert "not the release" in printed
    assert ("Some-License, to be read in" in printed) == ("copyright" in kept)


@pytest.mark.parametrize("name", ["../../queen.1c", "/queen.1c", "..\\..\\queen.1c"])
@pytest.mark.parametrize("pack", [deb_bytes, zip_bytes])
def test_no_name_leads_out_of_the_folder(tmp_path, name, pack):
    outdir = tmp_path / "deep" / "out"
    fetch_corpus.fetch(given(tmp_path, pack({name: QUEEN})), outdir)
    assert sorted(path.name for path in tmp_path.rglob("queen.1c")) == ["queen.1c"]
    assert (outdir / "queen.1c").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "expected a .deb, a .zip or queen.1c"),
        (deb_bytes({"./other": b"x"}), "holds no queen.1c"),
        (deb_bytes(FILES)[:-20], "damaged or cut short"),
        (ar_bytes({"data.tar.xz": b"no tar"}), "cannot be read"),
        (ar_bytes({"debian-binary": b"2.0\n"}), "no member data.tar"),
        (ar_bytes({"data.tar.xz": b""})[:-4] + b"bad\n", "damaged or cut short"),
    ],
)
def test_damaged_file_is_an_error_and_leaves_nothing(tmp_path, capsys, content, message):
    outdir = tmp_path / "out"
    path = given(tmp_path, content)
    assert fetch_corpus.main(["--queen", str(path), "--output_dir", str(outdir)]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert str(path) in printed
    assert list(outdir.iterdir()) == []


def test_damaged_compressed_data_is_an_error(tmp_path):
    content = bytearray(deb_bytes(FILES))
    content[-60:-20] = b"\xff" * 40
    with pytest.raises(ValueError, match=r"cannot be read|cut short"):
        fetch_corpus.fetch(given(tmp_path, bytes(content)), tmp_path / "out")


def test_oversized_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_corpus, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 expected"):
        fetch_corpus.fetch(given(tmp_path, deb_bytes(FILES)), tmp_path / "out")


def test_unpacked_corpus_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_corpus, "apt_download", lambda folder: pytest.fail("fetched"))
    (tmp_path / "queen.1c").write_bytes(QUEEN)
    assert fetch_corpus.fetch(None, tmp_path) == tmp_path / "queen.1c"


def test_package_with_another_checksum_is_refused(tmp_path, monkeypatch):
    package = given(tmp_path, deb_bytes(FILES))
    monkeypatch.setattr(fetch_corpus, "apt_download", lambda folder: package)
    with pytest.raises(ValueError, match=f"expected {fetch_corpus.DEB_SHA256}"):
        fetch_corpus.fetch(None, tmp_path / "out")
    assert not (tmp_path / "out" / "queen.1c").exists()


def test_rebuilt_package_with_the_same_voices_is_taken(tmp_path, monkeypatch):
    package = given(tmp_path, deb_bytes(FILES))
    monkeypatch.setattr(fetch_corpus, "apt_download", lambda folder: package)
    voices = tmp_path / "voices"
    voices.write_bytes(QUEEN)
    monkeypatch.setattr(fetch_corpus, "QUEEN_SHA256", fetch_corpus.sha256(voices))
    assert fetch_corpus.fetch(None, tmp_path / "out").read_bytes() == QUEEN


def test_without_apt_get_the_exit_code_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fetch_corpus.main(["--output_dir", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr().err
    assert "no apt-get" in printed
    assert "--queen" in printed
    assert printed.count("\n") == 1


def test_failing_apt_get_is_reported_by_its_last_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_corpus.shutil, "which", lambda name: name)
    monkeypatch.setattr(fetch_corpus, "_run", lambda command, folder: "E: no such package")
    assert fetch_corpus.main(["--output_dir", str(tmp_path / "out")]) == 3
    assert "E: no such package" in capsys.readouterr().err
