"""Archives that mean harm, or are broken.

A bug here writes outside the folder, runs code of a stranger, or leaves half a model behind.
"""

import io
import pickle
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from espnet_star.bin.star_import.pack import main
from espnet_star.errors import StarError
from espnet_star.formats.packs import archive
from espnet_star.formats.packs import unpack as unpacking
from espnet_star.formats.packs.unpack import unpack

CONFIG, MODEL = "exp/asr/config.yaml", "exp/asr/model.pth"


def saved(value):
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def members(**changes):
    """Contents of a sound pack, by name; None leaves one out."""
    meta = {"yaml_files": {"asr_train_config": CONFIG}, "files": {"asr_model_file": MODEL}}
    config = {"bpemodel": "data/bpe.model", "token_list": ["exp", "data"], "ctc": True}
    contents = {
        "meta.yaml": yaml.safe_dump(meta).encode(),
        CONFIG: yaml.safe_dump(config).encode(),
        MODEL: saved({"weight": torch.ones(3)}),
        "data/bpe.model": b"pieces",
    }
    contents |= changes
    return {name: content for name, content in contents.items() if content is not None}


def as_zip(path, contents):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def as_tar(path, contents, *infos):
    with tarfile.open(path, "w") as file:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in infos:
            file.addfile(info)
    return path


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def refused(tmp_path):
    """Expect a refusal that leaves nothing behind."""

    def check(source, message):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(StarError, match=message) as stop:
            unpack(source, tmp_path / "below" / "model")
        assert len(str(stop.value).splitlines()) == 1
        after = [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "below"]
        assert after == before

    return check


@pytest.mark.parametrize("write", [as_zip, as_tar])
def test_paths_of_the_configuration_point_into_the_new_folder(tmp_path, write):
    """Fails if packed files are not found, or a token is taken for one."""
    pack = write(tmp_path / "pack", members())
    files = unpack(pack, tmp_path / "model")
    assert files == {
        "asr_train_config": str(tmp_path / "model" / CONFIG),
        "asr_model_file": str(tmp_path / "model" / MODEL),
    }
    config = yaml.safe_load(Path(files["asr_train_config"]).read_text())
    assert config["bpemodel"] == str(tmp_path / "model" / "data" / "bpe.model")
    assert config["token_list"] == ["exp", "data"]
    assert torch.load(files["asr_model_file"], weights_only=True)["weight"].sum() == 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("write", [as_zip, as_tar])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside", "climbs out"),
        ("exp/../../outside", "climbs out"),
        ("/outside", "no relative name"),
        ("C:/outside", "no relative name"),
        ("..\\outside", "no relative name"),
        ("exp/a\nb", "printable"),
        ("./exp/asr/config.yaml", "there twice"),
        ("exp/asr/model.pth/more", "both a file and a folder"),
    ],
)
def test_names_that_leave_the_folder(tmp_path, refused, write, name, message):
    refused(write(tmp_path / "pack", members(**{name: b"x"})), message)


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (tarfile.SYMTYPE, "/etc/passwd", "a symbolic link"),
        (tarfile.SYMTYPE, "../..", "a symbolic link"),
        (tarfile.LNKTYPE, "../../secret", "a hard link"),
        (tarfile.CHRTYPE, "", "a device"),
        (tarfile.FIFOTYPE, "", "a device"),
    ],
)
def test_links_and_devices_in_a_tar(tmp_path, refused, kind, target, message):
    info = tarfile.TarInfo("exp/link")
    info.type, info.linkname = kind, target
    refused(as_tar(tmp_path / "pack", members(), info), message)


@pytest.mark.parametrize("name", ["exp/link", "exp/link/"])
def test_symbolic_links_in_a_zip(tmp_path, refused, name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    pack = as_zip(tmp_path / "pack", members())
    with zipfile.ZipFile(pack, "a") as file:
        file.writestr(info, "/etc")
    refused(pack, "a symbolic link")


@pytest.mark.parametrize(
    "name", [MODEL, "exp/lm/other.pth", "exp/lm.ckpt", "data/list.pkl", "data/innocent.txt"]
)
def test_pickles_that_run_code(tmp_path, refused, name):
    """Fails if a pickle gets through under any name that something may load."""
    mark = tmp_path / "ran"
    harm = saved({"weight": Touch(mark)}) if name != "data/list.pkl" else pickle.dumps(Touch(mark))
    refused(as_zip(tmp_path / "pack.zip", members(**{name: harm})), "refused")
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_bare_pickles_as_a_model(tmp_path, refused, protocol):
    harm = pickle.dumps(Touch(tmp_path / "ran"), protocol=protocol)
    refused(as_zip(tmp_path / "pack.zip", members(**{MODEL: harm})), "plain tensors")
    assert not (tmp_path / "ran").exists()


def test_a_model_called_safetensors_is_still_a_model(tmp_path, refused):
    """Fails if a suffix hides a pickle that ESPnet would give to torch.load."""
    name = "exp/asr/model.safetensors"
    meta = {"yaml_files": {}, "files": {"asr_model_file": name}}
    harm = saved({"weight": Touch(tmp_path / "ran")})
    contents = members(**{"meta.yaml": yaml.safe_dump(meta).encode(), name: harm})
    refused(as_zip(tmp_path / "pack.zip", contents), "plain tensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta.yaml": None}, "has no meta.yaml"),
        ({"meta.yaml": b"- 1"}, "expected keys and values"),
        ({"meta.yaml": b"yaml_files: {}"}, "must map files to names"),
        ({"meta.yaml": b"{yaml_files: {}, files: {m: /etc/passwd}}"}, "not in the pack"),
        ({"meta.yaml": b"{yaml_files: {}, files: {m: ../x}}"}, "not in the pack"),
        ({MODEL: None}, "not in the pack"),
        ({CONFIG: b"!!python/object/apply:os.system [touch ran]"}, "not plain YAML"),
    ],
)
def test_meta_and_configuration(tmp_path, refused, changes, message):
    refused(as_zip(tmp_path / "pack.zip", members(**changes)), message)


@pytest.mark.parametrize("write", [as_zip, as_tar])
def test_a_download_that_was_cut_short(tmp_path, refused, write):
    pack = write(tmp_path / "pack", members(**{"data/long": bytes(100_000)}))
    pack.write_bytes(pack.read_bytes()[:50_000])
    refused(pack, "cut short")


def test_a_member_whose_checksum_is_wrong(tmp_path, refused):
    pack = as_zip(tmp_path / "pack.zip", members())
    pack.write_bytes(pack.read_bytes().replace(b"pieces", b"peices"))
    refused(pack, "damaged")


def test_nothing_is_replaced_unasked(tmp_path, capsys):
    pack, model = as_zip(tmp_path / "pack.zip", members()), tmp_path / "model"
    main(["--pack", str(pack), "--output_dir", str(model)])
    (model / "mine").touch()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["--pack", str(pack), "--output_dir", str(model)])
    assert stop.value.code == 2
    assert "--force true" in capsys.readouterr().err
    main(["--pack", str(pack), "--output_dir", str(model), "--force", "true"])
    assert not (model / "mine").exists()
    assert (model / MODEL).is_file()


def test_force_does_not_delete_what_is_no_model(tmp_path):
    pack = as_zip(tmp_path / "pack.zip", members())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").touch()
    with pytest.raises(StarError, match="is no unpacked model"):
        unpack(pack, tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis").exists()


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_unpacking_leaves_no_half_model(tmp_path, monkeypatch, there):
    """Fails if Ctrl-C in the middle leaves files, or takes the model that was there."""
    pack, model = as_zip(tmp_path / "pack.zip", members()), tmp_path / "model"
    if there:
        unpack(pack, model)
    before = sorted(tmp_path.rglob("*"))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(unpacking, "check_harmless", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack(pack, model, force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_room_is_asked_for_before_the_first_byte(tmp_path, refused, monkeypatch):
    """Fails if a small archive that unpacks to more than there is fills the disk."""
    small = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: small)
    refused(as_zip(tmp_path / "pack.zip", members(**{"data/zeros": bytes(60_000)})), "needs .* GB")


def test_a_tar_whose_sizes_lie(tmp_path, refused):
    info = tarfile.TarInfo("data/huge")
    info.size = 2**60
    pack = as_tar(tmp_path / "pack.tar", members())
    raw = pack.read_bytes().rstrip(b"\0")
    pack.write_bytes(raw + bytes(-len(raw) % 512) + info.tobuf(tarfile.GNU_FORMAT))
    refused(pack, "cut short")


def test_a_class_that_a_pack_names_is_not_imported_unasked(tmp_path):
    """Fails if a stranger's pack chose what is imported here."""
    conf = {"frontend": "star", "frontend_conf": {"student": "somebody.code:Student"}}
    pack = as_zip(tmp_path / "pack.zip", members(**{CONFIG: yaml.safe_dump(conf).encode()}))
    with pytest.raises(StarError, match=r"names the class 'somebody.code:Student'.*--allow"):
        unpack(pack, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    unpack(pack, tmp_path / "out", allow=["somebody.code:Student"])
    assert (tmp_path / "out" / CONFIG).is_file()
