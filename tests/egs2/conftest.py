"""Recipe scripts are no package: put their folders on the path before tests import them."""

import sys
from pathlib import Path

EGS = Path(__file__).parents[2] / "egs2"
for corpus in ("amazon_queen", "librispeech", "voxceleb"):
    sys.path.insert(0, str(EGS / corpus / "star1" / "local"))
sys.path.insert(0, str(EGS.parent / "tests" / "recipes"))
