"""Members of a pack, from a .zip, a .tar or a folder, checked before one is written."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from espnet_star.errors import StarError, first_line

# What the libraries raise on an archive that is cut short or not one.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,  # a compression that this Python lacks
)


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        name: As the archive gives it.
        size: Bytes once unpacked.
        open: Its content.
        strange: What it is if not a plain file, e.g. ``"a symbolic link"``.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    strange: str | None = None

    @property
    def path(self) -> PurePosixPath:
        """Its name without ``./`` and doubled slashes."""
        return PurePosixPath(self.name)


@contextmanager
def open_members(source: str | Path) -> Iterator[list[Member]]:
    """Files of an archive or a folder, directories left out, all of them checked.

    Args:
        source: A .zip, a .tar (also gz, bz2, xz), told by content, or a folder.

    Raises:
        StarError: If the source is none of these, is damaged, or one of its members could
            be written outside the folder it is unpacked into.
    """
    source = Path(source)
    if not source.exists():
        raise StarError(f"{source} does not exist; expected a pack (.zip, .tar) or its folder")
    try:
        with _open(source) as members:
            check_members(members, str(source))
            yield members
    except _DAMAGE as error:
        raise StarError(
            f"{source} is damaged or cut short ({first_line(error)}); download or pack it again"
        ) from error


def check_members(members: Sequence[Member], source: str) -> None:
    """Refuse members that could leave the folder or hide one another.

    Raises:
        StarError: On absolute names, names with ``..``, links, devices, encrypted members,
            and two members of the same name.
    """
    seen: set[PurePosixPath] = set()
    for member in members:
        problem = member.strange or _bad_name(member.name)
        if problem is None and member.path in seen:
            problem = "there twice"
        if problem is not None:
            raise StarError(
                f"{source}: refused, nothing was written: member {member.name!r} is {problem}; a "
                "pack holds plain files with names below its own folder"
            )
        seen.add(member.path)
    for path in seen:
        above = seen.intersection(path.parents)
        if above:
            raise StarError(f"{source}: {above.pop()} is both a file and a folder")


def extract(members: Sequence[Member], folder: str | Path) -> list[Path]:
    """Write members into a folder, as new plain files with this process's own permissions.

    Raises:
        StarError: If the disk has no room for them.
    """
    folder = Path(folder)
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise StarError(
            f"{folder}: unpacking needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free"
        )
    written = []
    for member in members:
        target = folder / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as content, target.open("xb") as file:
            shutil.copyfileobj(content, file)
        written.append(target)
    return written


def _bad_name(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or "\\" in name:
        return "no relative name"
    if ".." in path.parts:
        return "a name that climbs out of the folder"
    if not path.parts or not name.isprintable():
        return "a name without printable characters"
    return None


@contextmanager
def _open(source: Path) -> Iterator[list[Member]]:
    if source.is_dir():
        yield [_of_folder(path, source) for path in _files(source)]
    elif _starts_as_zip(source):
        with zipfile.ZipFile(source) as archive:
            infos = archive.infolist()
            if infos and min(info.header_offset for info in infos) > 0:
                # Cut short in such a place that the end is that of a zip inside it.
                raise zipfile.BadZipFile("its list of files belongs to another zip")
            yield [_of_zip(archive, info) for info in infos if not _is_folder(info)]
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as tar:
            yield [_of_tar(tar, info) for info in _listed(tar) if not info.isdir()]
    else:
        raise StarError(f"{source} is neither a .zip nor a .tar; it may have been cut short")


def _starts_as_zip(source: Path) -> bool:
    # zipfile.is_zipfile looks at the end, where a tar of torch's files has a zip as well.
    with source.open("rb") as file:
        return file.read(2) == b"PK"


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    strange = None
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        strange = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
    elif info.flag_bits & 1:
        strange = "encrypted"
    return Member(info.filename, info.file_size, lambda: archive.open(info), strange)


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)


def _listed(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    try:
        return tar.getmembers()
    except OSError as error:  # a size that no file can have
        raise tarfile.ReadError(str(error)) from error


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    strange = None
    if info.issym():
        strange = "a symbolic link"
    elif info.islnk():
        strange = "a hard link"
    elif not info.isreg():
        strange = "a device or another special file"
    return Member(info.name, info.size, lambda: tar.extractfile(info) or io.BytesIO(), strange)


def _files(folder: Path) -> Iterator[Path]:
    # The hub's cache keeps files as links to its blobs; a linked folder is not followed.
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _of_folder(path: Path, folder: Path) -> Member:
    name = path.relative_to(folder).as_posix()
    strange = None if path.is_file() else "a broken link or a special file"
    return Member(name, 0 if strange else path.stat().st_size, lambda: path.open("rb"), strange)
