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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_star.outputs import LayerOutputs

Encode = Callable[[torch.Tensor, torch.Tensor], LayerOutputs]


def weights_fingerprint(module: torch.nn.Module, extra: str = "") -> str:
    """Short name for an encoder's exact weights, so that a cache never outlives them."""
    digest = hashlib.blake2b(extra.encode(), digest_size=8)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class StateCache:
    """Hidden states by the content of the waveform, in float16.

    Rounding to float16 is below 0.1 % of each value. A disk that is full or read-only
    costs speed, not the run: states are then computed anew.

    Args:
        directory: Where to keep the files, about ``2 * (L + 1) * D`` bytes a frame.
        fingerprint: See :func:`weights_fingerprint`; names the subfolder.
    """

    def __init__(self, directory: str | Path, fingerprint: str):
        self.directory = Path(directory) / fingerprint
        self.writable = True

    def __call__(self, encode: Encode, speech: torch.Tensor, lengths: torch.Tensor) -> LayerOutputs:
        """States of a batch, computed for those utterances only that are not kept yet.

        Args:
            encode: The encoder, without attention maps.
            speech: Waveforms ``(B, T)``.
            lengths: Samples of each, ``(B,)``.
        """
        keys = [self._key(row, int(n)) for row, n in zip(speech, lengths, strict=True)]
        found = [self._load(key) for key in keys]
        missing = [index for index, states in enumerate(found) if states is None]
        if missing:
            rows = torch.tensor(missing, device=speech.device)
            part = lengths[rows]
            fresh = encode(speech[rows, : int(part.max())], part)
            for place, index in enumerate(missing):
                frames = int(fresh.lengths[place])
                states = torch.stack([state[place, :frames] for state in fresh.hidden_states])
                limit = torch.finfo(torch.float16).max
                found[index] = states.clamp(-limit, limit).to("cpu", torch.float16)
                self._save(keys[index], found[index])
        return self._collate([states for states in found if states is not None], speech.device)

    @staticmethod
    def _key(row: torch.Tensor, samples: int) -> str:
        wave = row[:samples].detach().cpu().float().contiguous().numpy()
        return hashlib.blake2b(wave, digest_size=16).hexdigest()

    @staticmethod
    def _collate(states: list[torch.Tensor], device: torch.device) -> LayerOutputs:
        lengths = torch.tensor([state.shape[1] for state in states])
        # (B, N, L + 1, D): pad_sequence pads the leading dimension.
        padded = pad_sequence([state.transpose(0, 1) for state in states], batch_first=True)
        padded = padded.to(device).float()
        return LayerOutputs(padded.unbind(dim=2), lengths.to(device))

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.npy"

    def _load(self, key: str) -> torch.Tensor | None:
        try:
            return torch.from_numpy(np.load(self._path(key), allow_pickle=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError, EOFError) as error:
            logging.warning("state cache: computing %s anew (%s)", self._path(key), error)
            return None

    def _save(self, key: str, states: torch.Tensor) -> None:
        if not self.writable:
            return
        path = self._path(key)
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
