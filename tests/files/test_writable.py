"""Folders that cannot be written are told before the work, in one line."""

import pytest

from espnet_star.bin import star_data, star_export, star_extract
from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable


def test_nothing_is_made_and_links_are_followed(tmp_path):
    """Fails if a look leaves folders, or refuses one that is there by a link."""
    check_writable(tmp_path / "a" / "b", "--output_dir")
    assert not list(tmp_path.iterdir())
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    check_writable(tmp_path / "link" / "new", "--output_dir")
    (tmp_path / "lost").symlink_to("nowhere")
    with pytest.raises(StarError, match=r"--output_dir \S+ \S+lost is a broken link"):
        check_writable(tmp_path / "lost", "--output_dir")


@pytest.mark.parametrize("below", ["", "/exp"])
def test_a_file_where_the_folder_should_be(tmp_path, capsys, below):
    """Fails if a tool computes first and then ends in a traceback, or as if nothing was wrong."""
    text, wav = tmp_path / "text", tmp_path / "wav.scp"
    text.write_text("a AB\n")
    wav.write_text("a a.wav\n")
    outdir = ["--output_dir", f"{text}{below}"]
    for tool, options in (
        (star_export, ["onnx", "--upstream", str(tmp_path)]),
        (star_extract, ["--upstream", str(tmp_path), "--wav_scp", str(wav)]),
        (star_data, ["tokens", "--text", str(text)]),
    ):
        with pytest.raises(SystemExit) as stop:
            tool.main([*options, *outdir])
        told = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and len(told) == 1 and str(text) in told[0], told
    assert text.read_text() == "a AB\n"
