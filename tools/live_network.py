"""The embedded network as an ONNX graph for the browser, with weights of few bits.

Only the 20 convolutions are rounded: the weights of each output channel are whole numbers times
one step. The normalizations and the linear layer stay float32, and so is all that is computed:
whole numbers are turned back into weights once, by `expand` here and by worker.js in the browser.

Ten of the 3x3 convolutions are computed tile by tile with fewer multiplications (Lavin and Gray,
*Fast Algorithms for Convolutional Neural Networks*, 2015): the same sums, up to float32's rounding.
"""
import gzip
import hashlib
from copy import deepcopy

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cifar_cam.resnet import load_pretrained

VARIANTS = ('float16', 8, 6, 5)  # float16 is how the package keeps its weights

# Lavin and Gray's matrices for one row of a tile of 2 or 4 outputs: what is multiplied with its
# inputs, with the three weights, and with the products of both
TILES = {2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
             [[1, 0, 0], [1/2, 1/2, 1/2], [1/2, -1/2, 1/2], [0, 0, 1]],
             [[1, 1, 1, 0], [0, 1, -1, -1]]),
         4: ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
              [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
             [[1/4, 0, 0], [-1/6, -1/6, -1/6], [-1/6, 1/6, -1/6],
              [1/24, 1/12, 1/6], [1/24, -1/12, 1/6], [0, 0, 1]],
             [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0],
              [0, 1, -1, 8, -8, 1]])}
WEIGHTS = 'weights.bin'  # the name under which the runtime finds the weights in the browser
TILE_OF = {32: 4, 16: 4, 8: 2}  # width of a map -> width of its tiles; 4x4 maps are too few of them


def round_channels(weight, bits):
    "Whole numbers int8, and one float32 step per output channel: steps * numbers is near `weight`."
    top = 2**(bits - 1) - 1  # 6 bits: -31 to 31
    rows = weight.detach().float().flatten(1)  # (outputs, inputs * height * width)
    steps = (rows.abs().amax(1, keepdim=True) / top).clamp_min(torch.finfo(torch.float32).tiny)
    numbers = (rows / steps).round().clamp(-top, top)
    return numbers.reshape(weight.shape).to(torch.int8), steps.reshape(-1, 1, 1, 1)


def rounded_model(variant, model=None):
    "The PyTorch twin of the graph: `model` (the embedded one if None) with the rounded weights."
    model = deepcopy(model or load_pretrained())
    for module in model.modules():
        if not isinstance(module, nn.Conv2d): continue
        if variant == 'float16': new = module.weight.detach().half().float()
        else:
            numbers, steps = round_channels(module.weight, variant)
            new = numbers.float() * steps
        module.weight = nn.Parameter(new)
    return model.eval()


def tile_matrices(tile):
    "Lavin and Gray's three matrices for tiles of `tile` x `tile` outputs, for rows and columns."
    return [np.kron(m, m).astype(np.float32) for m in map(np.array, TILES[tile])]


def expand(numbers, steps, tile=None):
    "The float32 weights of a convolution; with `tile` (n, outputs, inputs), as tiles need them."
    weight = numbers.astype(np.float32) * steps
    if tile is None: return weight
    kernel = tile_matrices(tile)[1]
    return (kernel @ weight.reshape(-1, 9).T).reshape(len(kernel), *weight.shape[:2])


class Graph:
    "Nodes and constants of an ONNX graph, in the order in which they are added."
    def __init__(self, variant, apart=False):
        self.variant, self.apart, self.nodes, self.constants = variant, apart, [], []
        self.rounded, self.length = [], 0  # what lies in `WEIGHTS` if `apart`: (numbers, steps, tile)

    def constant(self, value, name):
        "Keep an array in the graph; returns its name."
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind, inputs, name=None, **options):
        "Add one operation; returns the name of its output."
        name = name or f'{kind}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def reshape(self, x, *shape):
        "The same numbers as an array of another shape."
        return self.add('Reshape', [x, self.constant(np.array(shape), f'shape_{len(self.nodes)}')])

    def weights(self, layer, name, tile=None):
        "The weights of a convolution, rounded as `variant` says: in the graph, or in `WEIGHTS`."
        if self.variant == 'float16':
            numbers, steps = layer.weight.detach().half().numpy(), np.ones(1, np.float32)
        else: numbers, steps = (t.numpy() for t in round_channels(layer.weight, self.variant))
        value = expand(numbers, steps, tile)
        if not self.apart: return self.constant(value, name)
        self.rounded.append((numbers, steps, tile))
        outside = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape,
                              data_location=TensorProto.EXTERNAL)
        for key, entry in dict(location=WEIGHTS, offset=self.length, length=value.nbytes).items():
            outside.external_data.add(key=key, value=str(entry))
        self.constants.append(outside)
        self.length += value.nbytes
        return name

    def convolve(self, layer, x, name, size):
        "A convolution whose output is `size` pixels wide."
        small = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.in_channels > 3
        if small and size in TILE_OF: return self.convolve_tiles(layer, x, name, size)
        return self.add('Conv', [x, self.weights(layer, f'{name}.weight')],
                        strides=[*layer.stride], pads=[*layer.padding, *layer.padding])

    def convolve_tiles(self, layer, x, name, size):
        "The same in tiles, which overlap by 2 pixels: 36 products make 16 outputs instead of 144."
        tile, inputs, outputs = TILE_OF[size], layer.in_channels, layer.out_channels
        wide, tiles = tile + 2, size//tile  # a tile's input, and how many lie side by side
        before, _, after = tile_matrices(tile)
        before = self.constant(before.reshape(-1, 1, wide, wide), f'{name}.before')
        x = self.add('Conv', [self.reshape(x, -1, 1, size, size), before],
                     strides=[tile, tile], pads=[1, 1, 1, 1])  # every channel is cut into tiles
        x = self.reshape(x, -1, inputs, wide**2, tiles**2)
        x = self.reshape(self.add('Transpose', [x], perm=[2, 1, 0, 3]), wide**2, inputs, -1)
        x = self.add('MatMul', [self.weights(layer, f'{name}.weight', tile), x])
        after = self.constant(after, f'{name}.after')
        x = self.add('MatMul', [after, self.reshape(x, wide**2, -1)])
        x = self.reshape(x, tile, tile, outputs, -1, tiles, tiles)
        x = self.add('Transpose', [x], perm=[3, 2, 4, 0, 5, 1])  # back to rows and columns
        return self.reshape(x, -1, outputs, size, size)

    def normalise(self, layer, x, name, size):
        "LayerNorm over channels, rows and columns; scale and shift are one number per channel."
        shape = layer.num_channels, size, size
        scale, shift = (self.constant(np.broadcast_to(p.detach().numpy().reshape(-1, 1, 1), shape),
                                      f'{name}.{which}')
                        for which, p in (('scale', layer.weight), ('shift', layer.bias)))
        return self.add('LayerNormalization', [x, scale, shift], axis=1, epsilon=layer.eps)

    def block(self, block, x, name, size, out=None):
        "Two convolutions and a skip connection, as `cifar_cam.resnet.Block` has them."
        y = self.convolve(block.conv1, x, f'{name}.conv1', size)
        y = self.add('Relu', [self.normalise(block.norm1, y, f'{name}.norm1', size)])
        y = self.convolve(block.conv2, y, f'{name}.conv2', size)
        y = self.normalise(block.norm2, y, f'{name}.norm2', size)
        if not isinstance(block.shortcut, nn.Identity):
            x = self.convolve(block.shortcut[0], x, f'{name}.shortcut', size)
            x = self.normalise(block.shortcut[1], x, f'{name}.shortcut', size)
        return self.add('Relu', [self.add('Add', [y, x])], out)


def build_graph(variant, model=None, apart=False):
    "image (B,3,32,32) -> logits (B,10) and features (B,512,4,4) of layer4."
    model, graph, size = model or load_pretrained(), Graph(variant, apart), 32
    x = graph.convolve(model.conv1, 'image', 'conv1', size)
    x = graph.add('Relu', [graph.normalise(model.norm1, x, 'norm1', size)])
    for stage in ('layer1', 'layer2', 'layer3', 'layer4'):
        blocks = getattr(model, stage)
        for i, block in enumerate(blocks):
            size //= block.conv1.stride[0]
            last = stage == 'layer4' and block is blocks[-1]
            x = graph.block(block, x, f'{stage}.{i}', size, 'features' if last else None)
    pooled = graph.add('Flatten', [graph.add('GlobalAveragePool', [x])])  # (B, 512)
    weight, bias = (graph.constant(p.detach().numpy(), name) for name, p in
                    (('fc.weight', model.fc.weight), ('fc.bias', model.fc.bias)))
    graph.add('Gemm', [pooled, weight, bias], 'logits', transB=1)
    return graph


def export_network(variant, model=None):
    "The network as one ONNX file, its weights in float32: what is measured."
    return serialise(build_graph(variant, model))


def export_parts(variant):
    """What the page downloads: the ONNX file without its weights, these as whole numbers, and what
    worker.js must know in order to expand them."""
    graph = build_graph(variant, apart=True)
    data = b''.join(steps.tobytes() + numbers.tobytes() for numbers, steps, _ in graph.rounded)
    kernels = {tile: tile_matrices(tile)[1].tolist() for tile in TILES}
    layers = [dict(outputs=len(n), inputs=n.shape[1], area=n[0, 0].size, tile=tile)
              for n, _, tile in graph.rounded]
    return serialise(graph), data, dict(floats=graph.length//4, layers=layers, kernels=kernels)


def serialise(graph):
    "The bytes of a checked ONNX file."
    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ['B', *shape])
    inputs = [tensor('image', 3, 32, 32)]
    outputs = [tensor('logits', 10), tensor('features', 512, 4, 4)]
    whole = helper.make_graph(graph.nodes, 'cifar_cam', inputs, outputs, graph.constants)
    made = helper.make_model(whole, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    if not graph.apart: onnx.checker.check_model(made)
    return made.SerializeToString()


def packed(data): return gzip.compress(data, 9, mtime=0)


def fingerprint(model=None):
    "A hash of the embedded weights, the same on every machine."
    state = (model or load_pretrained()).state_dict()
    parts = [name.encode() + state[name].half().numpy().tobytes() for name in sorted(state)]
    return hashlib.sha256(b''.join(parts)).hexdigest()[:16]
