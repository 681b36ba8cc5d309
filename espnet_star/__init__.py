"""STaR distillation of speech self-supervised models as an ESPnet plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espnet_star.terminal.quiet import quieten_imports

if TYPE_CHECKING:
    from espnet_star.inference import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

quieten_imports()


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: the package itself stays quick to import."""
    if name == "load":
        from espnet_star.inference import load

        return load
    raise AttributeError(f"module 'espnet_star' has no attribute {name!r}")
