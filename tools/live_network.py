"""The embedded network as an ONNX graph for the browser, with weights of few bits.

Only the 20 convolutions are rounded: the weights of each output channel are whole numbers times
one step. The normalizations and the linear layer stay float32. The graph turns whole numbers back
into weights once, when it is loaded, and computes in float32 from then on.
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


class Graph:
    "Nodes and constants of an ONNX graph, in the order in which they are added."
    def __init__(self, variant): self.variant, self.nodes, self.constants = variant, [], []

    def constant(self, value, name):
        "Keep an array in the graph; returns its name."
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind, inputs, name=None, **options):
        "Add one operation; returns the name of its output."
        name = name or f'{kind}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def convolve(self, layer, x, name):
        "A convolution whose weights are kept as `variant` says."
        if self.variant == 'float16':
            kept = self.constant(layer.weight.detach().half().numpy(), f'{name}.weight')
            weight = self.add('Cast', [kept], to=TensorProto.FLOAT)
        else:
            numbers, steps = (t.numpy() for t in round_channels(layer.weight, self.variant))
            kept = self.constant(numbers, f'{name}.numbers')
            whole = self.add('Cast', [kept], to=TensorProto.FLOAT)
            weight = self.add('Mul', [whole, self.constant(steps, f'{name}.steps')])
        padding = [*layer.padding, *layer.padding]
        return self.add('Conv', [x, weight], strides=[*layer.stride], pads=padding)

    def normalise(self, layer, x, name, size):
        "LayerNorm over channels, rows and columns; scale and shift are one number per channel."
        shape = self.constant(np.array([layer.num_channels, size, size]), f'{name}.shape')
        scale, shift = (self.add('Expand', [
            self.constant(p.detach().numpy().reshape(-1, 1, 1), f'{name}.{which}'), shape])
            for which, p in (('scale', layer.weight), ('shift', layer.bias)))
        return self.add('LayerNormalization', [x, scale, shift], axis=1, epsilon=layer.eps)

    def block(self, block, x, name, size, out=None):
        "Two convolutions and a skip connection, as `cifar_cam.resnet.Block` has them."
        y = self.convolve(block.conv1, x, f'{name}.conv1')
        y = self.add('Relu', [self.normalise(block.norm1, y, f'{name}.norm1', size)])
        y = self.convolve(block.conv2, y, f'{name}.conv2')
        y = self.normalise(block.norm2, y, f'{name}.norm2', size)
        if not isinstance(block.shortcut, nn.Identity):
            x = self.convolve(block.shortcut[0], x, f'{name}.shortcut')
            x = self.normalise(block.shortcut[1], x, f'{name}.shortcut', size)
        return self.add('Relu', [self.add('Add', [y, x])], out)


def export_network(variant, model=None):
    "The graph as bytes: image (B,3,32,32) -> logits (B,10) and features (B,512,4,4) of layer4."
    model, graph, size = model or load_pretrained(), Graph(variant), 32
    x = graph.normalise(model.norm1, graph.convolve(model.conv1, 'image', 'conv1'), 'norm1', size)
    x = graph.add('Relu', [x])
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
    return serialise(graph)


def serialise(graph):
    "The bytes of a checked ONNX file."
    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ['B', *shape])
    inputs = [tensor('image', 3, 32, 32)]
    outputs = [tensor('logits', 10), tensor('features', 512, 4, 4)]
    whole = helper.make_graph(graph.nodes, 'cifar_cam', inputs, outputs, graph.constants)
    made = helper.make_model(whole, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def packed(data): return gzip.compress(data, 9, mtime=0)


def fingerprint(model=None):
    "A hash of the embedded weights, the same on every machine."
    state = (model or load_pretrained()).state_dict()
    parts = [name.encode() + state[name].half().numpy().tobytes() for name in sorted(state)]
    return hashlib.sha256(b''.join(parts)).hexdigest()[:16]
