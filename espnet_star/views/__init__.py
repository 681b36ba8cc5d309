"""What is fed to whom, one view a file; a new one needs a line in ``VIEWS``."""

from espnet_star.registry import Registry
from espnet_star.views.base import Pass, View
from espnet_star.views.masked import MaskedView
from espnet_star.views.plain import PlainView

VIEWS: Registry[View] = Registry(
    "view",
    View,  # type: ignore[type-abstract]
    {"plain": PlainView, "masked": MaskedView},
)

__all__ = ["VIEWS", "MaskedView", "Pass", "PlainView", "View"]
