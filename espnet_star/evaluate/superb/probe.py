"""What s3prl can do in the environment that it is to run in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_star.data.errors import DataError
from espnet_star.evaluate.superb.tasks import FIRST, INFO, PANDAS, S3PRL, SOX, UPSTREAM

SCRIPT = Path(__file__).with_name("probe_script.py")
SECONDS = 600
# What to do about it.
REMEDIES = {
    S3PRL: "install what it lacks: pip install 'espnet_star[s3prl]'",
    UPSTREAM: "install espnet-s3prl",
    FIRST: "needs huggingface_hub before 1.0, hence transformers before 5, and dtw-python, "
    "lxml, tensorboardX",
    SOX: "needs torchaudio before 2.9 and libsox",
    INFO: "needs torchaudio before 2.9 and FFmpeg's libraries",
    PANDAS: "needs pandas before 2",
}


@dataclass(frozen=True)
class Environment:
    """An interpreter with s3prl.

    Attributes:
        python: Path of the interpreter.
        versions: Versions of Python and of the packages that matter.
        missing: Why something that was asked for does not work, by its name.
    """

    python: str
    versions: Mapping[str, str]
    missing: Mapping[str, str]

    def problem(self, needs: Iterable[str]) -> str | None:
        """Why a task cannot run here, None if it can."""
        reasons = [
            f"{name} does not work ({self.missing[name]}); {REMEDIES[name]}"
            for name in needs
            if name in self.missing
        ]
        return "; ".join(reasons) or None


def probe(python: str, needs: Iterable[str]) -> Environment:
    """Try what tasks need, each thing once, in the environment's own interpreter.

    Args:
        python: Path of the interpreter.
        needs: Names, as in :mod:`espnet_star.evaluate.superb.tasks`.

    Raises:
        DataError: If it is no Python, or has no s3prl.
    """
    command = [python, str(SCRIPT), *sorted(set(needs))]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
        content = json.loads(done.stdout.strip().splitlines()[-1])
    except OSError as error:
        raise DataError(f"{python}: cannot be started ({error.strerror}); {_ADVICE}") from error
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{python}: no answer within {SECONDS} s; {_ADVICE}") from error
    except (ValueError, IndexError) as error:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise DataError(f"{python}: is no working Python 3 ({last[0]}); {_ADVICE}") from error
    versions, missing = content["versions"], content["missing"]
    if not {"espnet-s3prl", "s3prl"} & set(versions) and missing:
        raise DataError(
            f"{python}: s3prl is not installed; pip install 'espnet_star[s3prl]', or {_ADVICE}"
        )
    return Environment(python, versions, missing)


_ADVICE = "name the interpreter of an environment that has s3prl, s3prl_python: PATH"
