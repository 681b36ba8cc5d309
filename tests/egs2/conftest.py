"""Recipe scripts are no package: put their folder on the path before tests import them."""

import sys
from pathlib import Path

LOCAL = Path(__file__).parents[2] / "egs2" / "amazon_queen" / "star1" / "local"
sys.path.insert(0, str(LOCAL))
