"""Models of ESPnet's zoo: on Zenodo by name, on the Hugging Face hub as unpacked packs."""

from __future__ import annotations

import csv
from pathlib import Path

from huggingface_hub import hf_hub_download

from espnet_star.errors import StarError, first_line
from espnet_star.formats.packs.hub import download
from espnet_star.formats.packs.unpack import META


def local_copy(name: str) -> Path:
    """Where a model lies on this machine, after downloading it if need be.

    Args:
        name: A path, or a name of the zoo or the hub.

    Raises:
        StarError: If it is none of these, or there is no network.
    """
    if Path(name).exists() or looks_like_path(name):
        return Path(name)
    return _from_zenodo(name) if _is_on_zenodo(name) else download(name)


def is_in_zoo(name: str) -> bool:
    """Whether a name that is no path stands for a pack of ESPnet.

    False as well where that cannot be found out, without a network.
    """
    if _is_on_zenodo(name):
        return True
    try:
        hf_hub_download(name, META)
    except Exception:  # of the HTTP library, whichever the hub's client uses
        return False
    return True


def looks_like_path(name: str) -> bool:
    """Whether a name can be no repository's, so that only a path is meant."""
    return Path(name).is_absolute() or name.startswith(("./", "../")) or name.count("/") > 1


def _is_on_zenodo(name: str) -> bool:
    return _urls().get(name, "huggingface.co").find("huggingface.co") < 0


def _urls() -> dict[str, str]:
    """Address of each model in the zoo's table, which comes with its package."""
    try:
        import espnet_model_zoo
    except ImportError:
        return {}
    table = Path(espnet_model_zoo.__file__).parent / "table.csv"
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["url"] for row in csv.DictReader(file)}


def _from_zenodo(name: str) -> Path:
    from espnet_model_zoo.downloader import ModelDownloader

    try:
        return Path(ModelDownloader().download(name, quiet=True))
    except Exception as error:  # of requests, pandas or the disk
        raise StarError(
            f"teacher {name!r} of ESPnet's zoo cannot be downloaded ({first_line(error)}); "
            "check the network, or give the pack as a file"
        ) from error
