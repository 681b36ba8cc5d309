"""Hidden states of a frozen encoder, kept on disk from one epoch to the next.

A frozen encoder gives the same states for the same waveform, since padding does not
change them. Small corpora are read many times, so the second epoch need not compute
what the first one did.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_star.encoders.base import Encoder, Want
from espnet_star.encoders.frozen import Wrapper
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs


class Cached(Wrapper):
    """Hidden states by the content of the waveform, in float16.

    Rounding to float16 is below 0.1 % of each value. A disk that is full or read-only
    costs speed, not the run: states are then computed anew. States of masked frames, which
    are drawn anew each time, are computed and not kept.

    Args:
        encoder: A frozen one; whoever holds the cache holds the encoder as well.
        directory: Where to keep the files, about ``2 * (L + 1) * D`` bytes a frame, in a
            subfolder named after the encoder's weights.
    """

    def __init__(self, encoder: Encoder, directory: str | Path):
        super().__init__(encoder, heads=None)
        self.root = Path(directory)
        self.folder: Path | None = None
        self.writable = True

    def check(self, want: Want) -> None:
        """See :meth:`Encoder.check`."""
        if want.attentions:
            raise StarError(
                "cache_dir keeps hidden states of whole utterances only, but the loss "
                "needs attention maps; remove cache_dir, or choose another"
            )
        super().check(want)

    def extract_all(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], wants: Sequence[Want]
    ) -> list[LayerOutputs]:
        """Kept states where nothing is masked, all others computed together."""
        masked = [want for want in wants if want.mask is not None]
        fresh = iter(self.encoder.encode_all(speech, lengths, masked) if masked else ())
        return [
            self.extract(speech, lengths, sizes, want) if want.mask is None else next(fresh)
            for want in wants
        ]

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """States of a batch, computed for those utterances only that are not kept yet."""
        layers = sorted(want.states) if want.states is not None else None
        inner = sorted(want.inner)
        folder = self._open(layers, inner)
        paths = [self._path(folder, row, n) for row, n in zip(speech, sizes, strict=True)]
        found = [self._load(path) for path in paths]
        missing = [index for index, states in enumerate(found) if states is None]
        if missing:
            rows = torch.tensor(missing, device=speech.device)
            part = lengths[rows]
            fresh = self.encoder.encode(speech[rows, : int(part.max())], part, want)
            wanted = (*fresh.hidden_states, *map(fresh.state, inner))
            for place, index in enumerate(missing):
                frames = int(fresh.lengths[place])
                states = torch.stack([state[place, :frames] for state in wanted])
                limit = torch.finfo(torch.float16).max
                kept = states.clamp(-limit, limit).to("cpu", torch.float16)
                found[index] = kept
                self._save(paths[index], kept)
        complete = [states for states in found if states is not None]
        return _collate(complete, speech.device, layers, inner)

    def _open(self, layers: list[int] | None, inner: list[str]) -> Path:
        """Folder of these states, named once the encoder has settled how it works."""
        if self.folder is None:
            self.folder = self.root / self.encoder.fingerprint()
            logging.info("States of the %s are kept in %s", self.label, self.folder)
        folder = self.folder
        if layers is not None and len(layers) < self.shape.layers + 1:
            folder = folder / f"layers_{'_'.join(map(str, layers))}"
        if inner:  # a digest: the names of a deep teacher's are too long for a folder
            names = hashlib.blake2b(" ".join(inner).encode(), digest_size=8).hexdigest()
            folder = folder / f"with_{names}"
        return folder

    @staticmethod
    def _path(folder: Path, row: torch.Tensor, samples: int) -> Path:
        wave = row[:samples].detach().cpu().float().contiguous().numpy()
        key = hashlib.blake2b(wave, digest_size=16).hexdigest()
        return folder / key[:2] / f"{key}.npy"

    def _load(self, path: Path) -> torch.Tensor | None:
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError, EOFError) as error:
            logging.warning("state cache: computing %s anew (%s)", path, error)
            return None

    def _save(self, path: Path, states: torch.Tensor) -> None:
        if not self.writable:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, states.numpy())
                # Several processes may write the same utterance: the last one wins.
                Path(scratch).replace(path)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
        except OSError as error:
            logging.warning("state cache: %s (%s); going on without writing", path, error)
            self.writable = False


def _collate(
    states: list[torch.Tensor],
    device: torch.device,
    layers: list[int] | None,
    inner: list[str],
) -> LayerOutputs:
    lengths = torch.tensor([state.shape[1] for state in states])
    # (B, N, L + 1, D): pad_sequence pads the leading dimension.
    padded = pad_sequence([state.transpose(0, 1) for state in states], batch_first=True)
    padded = padded.to(device).float()
    kept = None if layers is None else tuple(layers)
    unbound = padded.unbind(dim=2)
    numbered = len(unbound) - len(inner)
    return LayerOutputs(
        unbound[:numbered],
        lengths.to(device),
        layers=kept,
        inner=dict(zip(inner, unbound[numbered:], strict=True)),
    )
