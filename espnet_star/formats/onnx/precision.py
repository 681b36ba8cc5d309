"""An ONNX model in fewer bits, by onnxruntime's own converters."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# Names of weights of ``PlainStudent``'s front, which the graph keeps.
_FRONT = ("front.",)


def convert(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """A copy of a float32 model in another precision; inputs and outputs stay as they are.

    Args:
        model: Written by ``torch.onnx.export`` from a ``PlainStudent``.
        precision: ``"float32"``, ``"float16"`` or ``"int8"``.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if precision == "int8":
        return _quantized(copy)
    return _halved(copy) if precision == "float16" else copy


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights of the Transformer in int8 by channel, what they multiply quantized as it comes.

    The front stays in float32: one scale for a whole utterance leaves nothing of its quiet
    frames, which the LayerNorm after the front then makes large. So does the positional
    convolution, which int8 makes slower. Weights keep to seven bits (``reduce_range``), since
    processors without VNNI add two products in 16 bits, which eight would overflow; so a file
    gives the same features everywhere.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "float32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[
                node.name
                for node in model.graph.node
                if node.op_type == "MatMul" and node.input[1].startswith(_FRONT)
            ],
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in float16; runtimes without such a kernel cast.

    The first convolution stays in float32: its norm comes from covariances of samples, where
    large terms cancel.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    nodes = list(model.graph.node)
    end = next(index for index, node in enumerate(nodes) if node.op_type == "Gelu")
    return convert_float_to_float16(
        model, keep_io_types=True, node_block_list=[node.name for node in nodes[:end]]
    )
