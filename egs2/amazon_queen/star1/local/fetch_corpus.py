"""Put ``queen.1c``, the resource file with the voices, and its license into a folder.

Source, first that applies: what is there already; the file given by the user; the
Debian package, through apt-get without installing it and without root.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PACKAGE = "flight-of-the-amazon-queen"
VERSION = "1.0.0-9"
DEB_SHA256 = "40c08fd258d6fe95c46c1eaf5e9137f84ba330657995a281bd887c94a560a0f1"
QUEEN_SHA256 = "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"
# What is kept of a package, and the only names that are ever written.
WANTED = ("queen.1c", "copyright", "readme.txt", "readme.txt.gz")
MAX_BYTES = 512 * 1024**2
APT_TIMEOUT = 300
EXIT_CANNOT_FETCH = 3


class CannotFetchError(RuntimeError):
    """The corpus cannot be had from here; the message says what to pass instead."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        digest = hashlib.sha256()
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Members of an ``ar`` archive, the outer format of a Debian package.

    Args:
        path: The archive.

    Yields:
        Name and content of each member.

    Raises:
        ValueError: If the file is no ``ar`` archive or is cut short.
    """
    data = path.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise ValueError(f"{path}: expected a .deb (ar archive), found {data[:8]!r}")
    position = 8
    while position + 60 <= len(data):
        header = data[position : position + 60]
        name, digits = header[:16].decode("latin-1").rstrip(" /"), header[48:58].strip()
        size = int(digits) if digits.isdigit() else -1
        position += 60
        if header[58:60] != b"`\n" or size < 0 or position + size > len(data):
            raise ValueError(f"{path}: member {name!r} is damaged or cut short; fetch it again")
        yield name, data[position : position + size]
        position += size + size % 2


def unpack_deb(path: Path, outdir: Path) -> None:
    """Write the wanted files of a Debian package to ``outdir``, under their bare names."""
    for name, content in ar_members(path):
        if not name.startswith("data.tar"):
            continue
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.isfile() else None
                    if stream is not None:
                        _keep(member.name, member.size, stream, outdir, path)
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
            raise ValueError(
                f"{path}: member {name} cannot be read ({error}); unpack the package with "
                "dpkg-deb -x and pass its queen.1c"
            ) from error
        return
    raise ValueError(f"{path}: no member data.tar.*; is it a Debian package?")


def unpack_zip(path: Path, outdir: Path) -> None:
    """Write the wanted files of a .zip to ``outdir``, under their bare names."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as stream:
                    _keep(info.filename, info.file_size, stream, outdir, path)


def _keep(name: str, size: int, stream: IO[bytes], outdir: Path, source: Path) -> None:
    """Write one member if it is wanted."""
    # Only the last component is used, so no name can lead out of the folder.
    bare = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    if bare not in WANTED:
        return
    if size > MAX_BYTES:
        raise ValueError(f"{source}: {name} would have {size} bytes, at most {MAX_BYTES} expected")
    with (outdir / bare).open("wb") as handle:
        shutil.copyfileobj(stream, handle)


def unpack(path: Path, outdir: Path) -> None:
    """Copy or unpack a .deb, a .zip or a ``queen.1c`` into ``outdir``."""
    with path.open("rb") as handle:
        magic = handle.read(8)
    if magic == b"!<arch>\n":
        unpack_deb(path, outdir)
    elif zipfile.is_zipfile(path) and magic.startswith(b"PK"):
        unpack_zip(path, outdir)
    elif magic.startswith(b"QTBL"):
        shutil.copyfile(path, outdir / "queen.1c")
    else:
        raise ValueError(f"{path}: expected a .deb, a .zip or queen.1c, found {magic!r}")
    if not (outdir / "queen.1c").is_file():
        raise ValueError(f"{path}: holds no queen.1c; pass the talkie version of the game")


def apt_download(folder: Path) -> Path:
    """Download the Debian package with apt-get, as any user.

    Args:
        folder: Private folder for the package and, where the system has no package
            lists, for lists of our own.

    Returns:
        Path of the package.

    Raises:
        CannotFetchError: If there is no apt-get or it does not get the package.
    """
    if shutil.which("apt-get") is None:
        raise CannotFetchError("this system has no apt-get")
    wanted = f"{PACKAGE}={VERSION}"
    lists, cache = folder / "lists", folder / "cache"
    for private in (lists / "partial", cache / "archives" / "partial"):
        private.mkdir(parents=True)
    options = [
        f"-oDir::State::Lists={lists}",
        f"-oDir::Cache={cache}",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Retries=1",
        "-oAcquire::http::Timeout=20",
    ]
    attempts = (
        [["apt-get", "-q", "download", wanted]],
        # A hook of the system may fail for want of root after the lists have come, so
        # the outcome is judged by the download alone.
        [["apt-get", "-q", *options, "update"], ["apt-get", "-q", *options, "download", wanted]],
    )
    message = ""
    for commands in attempts:
        for command in commands:
            message = _run(command, folder)
        packages = sorted(folder.glob(f"{PACKAGE}_*.deb"))
        if packages:
            return packages[0]
    raise CannotFetchError(f"apt-get download {wanted} failed: {message}")


def _run(command: list[str], folder: Path) -> str:
    """Run a command and return the last line it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {APT_TIMEOUT} s"
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def fetch(queen: Path | None, outdir: Path) -> Path:
    """Make ``outdir/queen.1c`` exist.

    Args:
        queen: A .deb, .zip or queen.1c of the user, or None to use apt-get.
        outdir: Folder for ``queen.1c`` and its license.

    Returns:
        Path of ``queen.1c``.
    """
    target = outdir / "queen.1c"
    if queen is None and target.is_file():
        return target
    outdir.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the renames below stay on one file system.
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".fetch-") as name:
        work = Path(name)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        package = queen or apt_download(work)
        unpack(package, unpacked)
        known = sha256(unpacked / "queen.1c") == QUEEN_SHA256
        if queen is None and not known and sha256(package) != DEB_SHA256:
            raise ValueError(
                f"{package.name}: sha256 {sha256(package)}, expected {DEB_SHA256}; the package "
                "has changed, pass a queen.1c that you trust with --queen"
            )
        if not known:
            print(f"note: {package} is not the release this recipe was made with")
        for path in unpacked.iterdir():
            path.replace(outdir / path.name)
    return target


def print_license(outdir: Path) -> None:
    """Name the terms the corpus comes under, and where they are."""
    copyright_file = outdir / "copyright"
    if not copyright_file.is_file():
        print(f"License: see the readme of your copy of the game (none found in {outdir})")
        return
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    name = text.rpartition("License: ")[2].split("\n")[0].strip()
    print(f"License of the voices: {name}, to be read in {copyright_file}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queen", type=Path, help="your own .deb, talkie .zip or queen.1c")
    parser.add_argument("--output_dir", type=Path, default=Path("downloads/queen"))
    args = parser.parse_args(argv)
    if args.queen is not None and not args.queen.is_file():
        parser.error(f"--queen {args.queen}: no such file")
    try:
        target = fetch(args.queen, args.output_dir)
    except CannotFetchError as error:
        print(
            f"error: cannot fetch the corpus: {error}; get the Debian package {PACKAGE} or the "
            "freeware talkie elsewhere and pass its path with --queen",
            file=sys.stderr,
        )
        return EXIT_CANNOT_FETCH
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_license(args.output_dir)
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
