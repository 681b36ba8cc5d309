"""Unpack a model of ESPnet's pack format, trusting nothing in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from espnet2.main_funcs.pack_funcs import find_path_and_change_it_recursive

from espnet_star.errors import StarError, first_line
from espnet_star.files.model_file import refusal
from espnet_star.files.yaml_files import read_yaml
from espnet_star.formats.packs.archive import extract, open_members
from espnet_star.registry import outside_names

META = "meta.yaml"
# Read by torch.load, which runs what a pickle asks for unless weights_only holds it back.
_TORCH_SUFFIXES = {".pth", ".pt", ".ckpt"}
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill"}
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(1, 6))
_ZIP_START = b"PK\x03\x04"
_PLAIN_SUFFIXES = {".npz", ".npy", ".safetensors"}


def unpack(
    source: str | Path, outdir: str | Path, force: bool = False, allow: Sequence[str] = ()
) -> dict[str, str]:
    """Unpack a model so that it runs where it lies.

    Everything is written beside ``outdir`` and checked there; ``outdir`` comes into being
    at once, by a rename, or not at all.

    Args:
        source: Archive, or folder of an unpacked one (as the hub's cache keeps it).
        outdir: Folder to make. Paths in the configurations are rewritten to point here.
        force: Replace an unpacked model that is already there.
        allow: Classes outside this package, ``package.module:Class``, that its configurations
            may name.

    Returns:
        Absolute paths by the names of ESPnet's inference options, e.g. ``asr_model_file``.

    Raises:
        StarError: If ``outdir`` exists, or the pack is damaged, climbs out of its folder,
            or holds pickles that are more than tensors.
    """
    outdir = Path(outdir).absolute()
    check_target(outdir, force)
    outdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{outdir.name}.", dir=outdir.parent) as scratch:
        folder = Path(scratch) / "pack"
        meta = extract_checked(source, folder)
        for name in meta["yaml_files"].values():
            check_classes(folder / name, f"{source}: {name}", allow)
            _point_paths(folder, name, outdir)
        if outdir.exists():
            outdir.rename(Path(scratch) / "old")
        folder.rename(outdir)
    named = meta["yaml_files"] | meta["files"]
    return {key: str(outdir / name) for key, name in named.items()}


def extract_checked(source: str | Path, folder: str | Path) -> dict[str, dict[str, str]]:
    """Write the files of a pack as they are into a new folder, then check them.

    Returns:
        ``yaml_files`` and ``files`` of its ``meta.yaml``: names by option.

    Raises:
        StarError: As :func:`unpack`; the folder is then to be thrown away.
    """
    folder = Path(folder)
    folder.mkdir()
    with open_members(source) as members:
        if META not in {str(member.path) for member in members}:
            raise StarError(
                f"{source} has no {META}, so it is not a pack (espnet2.bin.pack or star_export "
                "pack makes one)"
            )
        paths = extract(members, folder)
    names = {path.relative_to(folder).as_posix() for path in paths}
    meta = _read_meta(folder / META, names, str(source))
    for path in paths:
        name = path.relative_to(folder).as_posix()
        check_harmless(path, f"{source}: {name}", name in meta["files"].values())
    return meta


def check_target(outdir: Path, force: bool) -> None:
    """Refuse to unpack over something.

    Raises:
        StarError: If the folder exists and is not to be replaced, or is not a pack's.
    """
    if not outdir.exists() or (outdir.is_dir() and not any(outdir.iterdir())):
        return
    if not force:
        raise StarError(f"{outdir} exists already; give --force true to replace it")
    if not (outdir / META).is_file():
        raise StarError(
            f"{outdir} is no unpacked model (it has no {META}), so it is not replaced; choose "
            "another folder"
        )


def check_classes(path: Path, shown: str, allow: Sequence[str]) -> None:
    """Refuse a configuration that would have a class imported which nobody here has named.

    Args:
        path: The configuration.
        shown: Its name for messages.
        allow: Names that the user has given.

    Raises:
        StarError: Naming the class.
    """
    for name in sorted(outside_names(read_yaml(path, shown)) - set(allow)):
        raise StarError(
            f"{shown} names the class {name!r}, which is no part of espnet_star; what a pack says "
            f"is not imported. If you trust it, give --allow {name}"
        )


def check_harmless(path: Path, shown: str, is_model: bool = False) -> None:
    """Refuse a file that runs code when it is loaded.

    Args:
        path: The file.
        shown: Its name for messages.
        is_model: Whether ESPnet will give it to ``torch.load`` whatever it is called.

    Raises:
        StarError: If it is a pickle of more than tensors and plain containers.
    """
    with path.open("rb") as file:
        start = file.read(4)
    suffix = path.suffix.lower()
    is_pickle = start.startswith(_PICKLE_STARTS)
    if suffix in _PICKLE_SUFFIXES:
        raise StarError(f"{shown} is a pickle, which can run code when it is loaded; refused")
    # numpy reads no pickles unless asked to, safetensors none at all.
    plain = suffix in _PLAIN_SUFFIXES or not (
        suffix in _TORCH_SUFFIXES or is_pickle or start == _ZIP_START
    )
    if plain and not is_model:
        return
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own reasons depend on what it meets
        reason = refusal(error) or first_line(error)
        raise StarError(
            f"{shown} is not a file of plain tensors ({reason}); loading it could run code, so "
            "it is refused"
        ) from error


def _read_meta(path: Path, names: set[str], source: str) -> dict[str, dict[str, str]]:
    values = read_yaml(path, f"{source}: {META}")
    meta: dict[str, dict[str, str]] = {}
    for part in ("yaml_files", "files"):
        entries = values.get(part)
        if not isinstance(entries, dict):
            raise StarError(f"{source}: {META} must map {part} to names, got {entries!r}")
        for key, name in entries.items():
            if str(name) not in names:
                raise StarError(
                    f"{source}: {META} names {name!r} as {key}, which is not in the pack"
                )
        meta[part] = {str(key): str(name) for key, name in entries.items()}
    return meta


def _point_paths(folder: Path, name: str, outdir: Path) -> None:
    """Rewrite a configuration's paths to packed files, as ESPnet's own unpacking does."""
    path = folder / name
    values = read_yaml(path, name)
    for file in packed_names(folder):
        values = find_path_and_change_it_recursive(values, file, str(outdir / file))
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def packed_names(folder: Path) -> Sequence[str]:
    """Names of the files of a pack that a configuration may point to.

    A bare word could as well be a token or an option.
    """
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [name.as_posix() for name in names if len(name.parts) > 1 or name.suffix]
