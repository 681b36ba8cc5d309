"""The exported student that SUPERB is run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from espnet_star.data.errors import DataError
from espnet_star.evaluate.cost.subjects import find_subject
from espnet_star.students.directory import KEY, is_own
from espnet_star.students.hugging_face import find_file, read_json
from espnet_star.teachers.loading import WEIGHT_FILES

PREPARATION = "preprocessor_config.json"


@dataclass(frozen=True)
class Upstream:
    """A Hugging Face directory of a HuBERT.

    Attributes:
        directory: Where it is, absolute.
        name: Its label in tables.
        digest: SHA-256 of its configuration and weights, the first 16 digits.
        params: Number of parameters.
        layers: Number of hidden states, the first layer's input included.
    """

    directory: Path
    name: str
    digest: str
    params: int
    layers: int


def read_upstream(directory: str | Path, name: str | None = None) -> Upstream:
    """Check that s3prl's ``hf_hubert_custom`` reads a directory, without its weights.

    Args:
        directory: Written by ``star_export transformers``, ``StarEncoder.save_pretrained`` or
            transformers.
        name: Label in tables, by default the directory's name.

    Raises:
        StarError: If it is no directory of a HuBERT, or lacks a file.
    """
    path = Path(directory).expanduser().absolute()
    if not path.is_dir():
        raise DataError(
            f"--upstream {directory}: no such directory; write one with "
            "python -m espnet_star star_export transformers"
        )
    config = read_json(find_file(path, "config.json"))
    if is_own(config):
        raise DataError(
            f"--upstream {path}: holds a student {config[KEY]!r}, which s3prl's hf_hubert_custom "
            "cannot read, since no HubertModel of transformers can hold it; train heads on it in "
            "ESPnet (--frontend star)"
        )
    if config.get("model_type") != "hubert":
        raise DataError(
            f"--upstream {path}/config.json: model_type must be hubert, which s3prl's "
            f"hf_hubert_custom reads; found {config.get('model_type')!r}"
        )
    weights = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
    if not weights:
        raise DataError(f"--upstream {path}: holds no weights ({', '.join(WEIGHT_FILES[::2])})")
    if not (path / PREPARATION).is_file():
        # s3prl would fetch HuBERT Base's, which normalizes what a student has never seen so.
        raise DataError(
            f"--upstream {path}: has no {PREPARATION}; export the student again, or save its "
            "Wav2Vec2FeatureExtractor there"
        )
    subject = find_subject(str(path))
    with torch.device("meta"):
        params = sum(parameter.numel() for parameter in subject.build().parameters())
    return Upstream(
        directory=path,
        name=name or path.name,
        digest=_digest([path / "config.json", path / PREPARATION, *_weight_files(weights[0])]),
        params=params,
        layers=int(config.get("num_hidden_layers", 12)) + 1,
    )


def _weight_files(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix == ".json":
        shards = read_json(path).get("weight_map", {})
        for name in sorted(set(shards.values())):
            shard = path.parent / name
            if not shard.is_file():
                raise DataError(f"--upstream {path.parent}: lacks {name}, which {path.name} names")
            yield shard


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        own = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                own.update(block)
        total.update(f"{path.name} {own.hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def digest_of(content: object) -> str:
    """Digest of a JSON-like value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
