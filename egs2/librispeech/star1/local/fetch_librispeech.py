"""Fetch parts of LibriSpeech and its language model from OpenSLR, checksums verified.

lhotse downloads (and resumes) and unpacks; it does not look at what it got, so that is
done here between the two.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
from collections.abc import Sequence
from pathlib import Path

from espnet_star.data.errors import DataError
from espnet_star.errors import first_line

OPENSLR = "https://www.openslr.org/resources"
# https://www.openslr.org/resources/12/md5sum.txt
PART_MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
# Size of the archives in GB, https://www.openslr.org/12; unpacked they are as large again.
PART_GB = {
    "dev-clean": 0.34,
    "dev-other": 0.31,
    "test-clean": 0.35,
    "test-other": 0.33,
    "train-clean-100": 6.3,
    "train-clean-360": 23.0,
    "train-other-500": 30.0,
}
# Official 4-gram and its words, https://www.openslr.org/11. Sums as recorded by
# sdrobert/pytorch-database, whose sums of the parts above are OpenSLR's own.
LM_MD5 = {
    "4-gram.arpa.gz": "6abdcd5b055bd482e4f9defe91d40408",
    "librispeech-vocab.txt": "bf3cc7a50112831ed8b0afa40cae96a5",
}
ATTEMPTS = 3
COMPLETED = ".completed"  # lhotse's own mark of a part that was unpacked to its end


def fetch_parts(
    parts: Sequence[str], folder: Path, base_url: str = OPENSLR, keep_archives: bool = False
) -> Path:
    """Make ``folder/LibriSpeech/PART`` exist for each part; what is there is not fetched again.

    Args:
        parts: Names as in `PART_MD5`.
        folder: Gets the archives and ``LibriSpeech/``.
        base_url: OpenSLR, or a mirror of it with the same layout.
        keep_archives: Keep the archives once they are unpacked.

    Returns:
        ``folder/LibriSpeech``.

    Raises:
        DataError: If there is no room, no network, or an archive is damaged.
    """
    corpus = folder / "LibriSpeech"
    missing = [part for part in parts if not (corpus / part / COMPLETED).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(missing, folder, keep_archives)
    for part in missing:
        archive = folder / f"{part}.tar.gz"
        download(f"{base_url}/12/{archive.name}", archive, PART_MD5[part])
        _unpack(archive, folder, corpus / part)
        if not keep_archives:
            archive.unlink()
    return corpus


def _check_room(parts: Sequence[str], folder: Path, keep_archives: bool) -> None:
    sizes = [PART_GB[part] for part in parts]
    there = sum(p.stat().st_size for part in parts if (p := folder / f"{part}.tar.gz").is_file())
    archives = sum(sizes) if keep_archives else max(sizes, default=0.0)
    needed = sum(sizes) + archives - there / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if needed > free:
        raise DataError(
            f"{folder}: {', '.join(parts)} need about {needed:.0f} GB of disk, {free:.0f} GB are "
            "free; choose another --download_dir or fewer --sets"
        )


def download(url: str, path: Path, md5: str) -> None:
    """Download a file, going on where an earlier attempt stopped.

    Raises:
        DataError: If it cannot be had or is not what it should be.
    """
    from lhotse.utils import resumable_download

    for _ in range(ATTEMPTS):
        before = path.stat().st_size if path.is_file() else -1
        try:
            resumable_download(url, filename=path)
        except (OSError, urllib.error.URLError) as error:
            _remove_empty(path)
            raise DataError(
                f"{url}: cannot be fetched ({first_line(error)}); run the same command again to go "
                f"on where it stopped, or fetch it elsewhere and put it to {path}"
            ) from error
        found = file_md5(path)
        if found == md5:
            return
        if path.stat().st_size <= before:
            # The server has nothing to add: not cut short, but damaged.
            break
    raise DataError(
        f"{path}: md5 {found}, expected {md5}: damaged or cut short; delete it and run the same "
        "command again"
    )


def _remove_empty(path: Path) -> None:
    if path.is_file() and path.stat().st_size == 0:
        path.unlink()


def file_md5(path: Path) -> str:
    """Hexadecimal MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path, target: Path) -> None:
    from lhotse.utils import safe_extract

    # What an interrupted run has unpacked: nobody can tell how far it came.
    shutil.rmtree(target, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            safe_extract(tar, path=folder)
        (target / COMPLETED).touch()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({first_line(error)})") from error


def fetch_lm(folder: Path, base_url: str = OPENSLR) -> None:
    """Fetch the official 4-gram (1.3 GB) and its list of words.

    Raises:
        DataError: As `download`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, md5 in LM_MD5.items():
        path = folder / name
        if not path.is_file() or file_md5(path) != md5:
            download(f"{base_url}/11/{name}", path, md5)
