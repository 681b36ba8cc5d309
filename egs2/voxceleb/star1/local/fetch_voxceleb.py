"""Gather VoxCeleb1's official lists in one folder and, if asked, download its audio.

Exit code 3: something cannot be downloaded; the message says what to pass instead.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import urllib.error
import zipfile
from collections.abc import Sequence
from pathlib import Path

from voxceleb_lists import find_parts

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.errors import DataError

EXIT_CANNOT_FETCH = 3
HOME = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
# MD5 of the trial lists and archives as that page gives them (PaddleSpeech's and many other
# recipes print the same). The identification split has none; its counts are checked instead.
LISTS = {
    "iden_split.txt": None,
    "veri_test.txt": "29fc7cc1c5d59f0816dc15d6e8be60f7",
    "veri_test2.txt": "b73110731c9223c1461fe49cb48dddfc",
}
META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
# The same list under the name that s3prl gives it; it stands in for iden_split.txt.
S3PRL_SPLIT = "veri_test_class.txt"
ARCHIVES = {
    "vox1_dev_wav.zip": "ae63e55b951748cc486645f532ba230b",
    "vox1_test_wav.zip": "185fdc63c3c739954633d50379a3d102",
}


class CannotFetchError(Exception):
    """A download failed; the message says what to pass instead."""


def md5(path: Path) -> str:
    """Hexadecimal MD5 of a file, which is what the corpus publishes."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_list(name: str, folders: Sequence[Path]) -> Path | None:
    """A list in the first folder that has it.

    Args:
        name: Official name; s3prl's is accepted for the identification split.
        folders: Where to look; the corpus keeps its lists at the top or under ``meta``.
    """
    names = [name, S3PRL_SPLIT] if name == "iden_split.txt" else [name]
    for folder in folders:
        for candidate in (path / each for path in (folder, folder / "meta") for each in names):
            if candidate.is_file():
                return candidate
    return None


def download_list(name: str, target: Path) -> None:
    """Download one list and compare its checksum.

    Raises:
        CannotFetchError: If the server does not answer, or with another file.
    """
    from lhotse.utils import resumable_download

    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        resumable_download(META + name, filename=partial)
    except (OSError, urllib.error.URLError) as error:
        raise CannotFetchError(
            f"cannot download {META + name} ({error}); fetch it by hand and pass its folder as "
            "--lists"
        ) from error
    wanted = LISTS[name]
    found = md5(partial)
    if wanted is not None and found != wanted:
        raise CannotFetchError(
            f"{META + name}: expected MD5 {wanted}, got {found}; {partial} is no {name}, pass the "
            "folder of a good copy as --lists"
        )
    partial.replace(target)


def gather_lists(root: Path, lists: Path | None, outdir: Path) -> None:
    """Copy or download every list into ``outdir``.

    Args:
        root: The corpus, whose folder may hold lists.
        lists: Folder given by the user; all lists must be there.
        outdir: Where they go, under their official names.

    Raises:
        DataError: If ``lists`` lacks one.
        CannotFetchError: If a download fails.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    for name in LISTS:
        target = outdir / name
        found = find_list(name, [root] if lists is None else [lists])
        if found is not None:
            shutil.copyfile(found, target)
        elif lists is not None:
            raise DataError(
                f"{lists} has no {name}; put it there ({META + name}), or leave --lists empty to "
                "have it downloaded"
            )
        elif not target.is_file():
            print(f"downloading {META + name}")
            download_list(name, target)


def download_audio(root: Path) -> None:
    """Download and unpack the audio with lhotse, then compare the archives' checksums.

    Raises:
        CannotFetchError: If the server refuses, as it does without registration.
        DataError: If an archive is not the published one.
    """
    from lhotse.recipes.voxceleb import download_voxceleb1

    if find_parts(root):
        print(f"{root} holds audio already; nothing to download")
        return
    try:
        download_voxceleb1(root)
    except (OSError, urllib.error.URLError, zipfile.BadZipFile) as error:
        raise CannotFetchError(
            f"cannot download VoxCeleb1 into {root} ({error}); ask for access at {HOME}, unpack "
            "vox1_dev_wav.zip and vox1_test_wav.zip by hand and pass the folder as --voxceleb1"
        ) from error
    for name, wanted in ARCHIVES.items():
        found = md5(root / name)
        if found != wanted:
            raise DataError(
                f"{root / name}: expected MD5 {wanted}, got {found}; delete it and the folder wav, "
                "then run the same command again"
            )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="fetch_voxceleb", description=__doc__)
    parser.add_argument("--voxceleb1", type=Path, required=True, help="Folder of the corpus")
    parser.add_argument("--lists", type=Path, help="Folder with the official lists")
    parser.add_argument("--output_dir", type=Path, required=True, help="Folder for the lists")
    parser.add_argument("--download", type=str2bool, default=False, help="Fetch the audio")
    args = parser.parse_args(cmd)

    def work() -> int:
        try:
            if args.download:
                download_audio(args.voxceleb1)
            gather_lists(args.voxceleb1, args.lists, args.output_dir)
        except CannotFetchError as error:
            print(f"fetch_voxceleb: {error}", file=sys.stderr)
            return EXIT_CANNOT_FETCH
        return 0

    run_tool("fetch_voxceleb", work)


if __name__ == "__main__":
    main()
