"""Recipe scripts are no package: put their folders on the path before tests import them."""

import sys
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "egs2"
for _corpus in ("amazon_queen", "voxceleb"):
    sys.path.insert(0, str(RECIPES / _corpus / "star1" / "local"))
