"""The same numbers as plain torch, faster: one function a form, and one predicate.

Whoever calls one asks first, and has the plain form in the next lines::

    if kernels.pays("front", speech):
        return kernels.row_front(blocks, speech, lengths)

:data:`~espnet_star.kernels.predicate.FORMS` says where each form is right and faster. Without
this folder and those calls the package gives the same features, losses and gradients.
"""

from espnet_star.kernels.attention import attend, attend_from
from espnet_star.kernels.dropout import drop
from espnet_star.kernels.gram import gram_objective
from espnet_star.kernels.gram_forms import in_pieces
from espnet_star.kernels.gram_gpu import gram_on_gpu, products_type
from espnet_star.kernels.norms import folded_norm, norm_on_gpu, norm_utterances, triton_runs
from espnet_star.kernels.predicate import pays
from espnet_star.kernels.prepared import discard, embed_positions, linear, linear_gelu, prepare
from espnet_star.kernels.rows import row_front
from espnet_star.kernels.soft_dtw import soft_dtw
from espnet_star.kernels.spectral import convolve_positions

__all__ = [
    "attend",
    "attend_from",
    "convolve_positions",
    "discard",
    "drop",
    "embed_positions",
    "folded_norm",
    "gram_objective",
    "gram_on_gpu",
    "in_pieces",
    "linear",
    "linear_gelu",
    "norm_on_gpu",
    "norm_utterances",
    "pays",
    "prepare",
    "products_type",
    "row_front",
    "soft_dtw",
    "triton_runs",
]
