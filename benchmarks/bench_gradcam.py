"""Grad-CAM against a forward pass, pytorch-grad-cam and captum: seconds and peak memory, ResNet-18 with LayerNorm, batch of 128 images.

    python benchmarks/bench_gradcam.py [--runs 7] [--images 10000]

All are measured in one process, one after the other in every round, and the median of the rounds is taken. Peak memory is what a process of its own
needs above the model and its images. The last lines explain many images in one call: the memory must not grow with their number.
"""
import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings

import torch

from cifar_cam.core import processor_facts
from cifar_cam.gradcam import grad_cam
from cifar_cam.resnet import resnet18

CALLS = ('forward', 'cifar_cam', 'captum', 'pytorch-grad-cam')


def make(name, model, layer, x):
    "A function without arguments that does the work once."
    ids, module = torch.zeros(len(x), dtype=torch.long), model.get_submodule(layer)
    if name == 'forward':
        def call():
            with torch.no_grad(): return model(x)
    elif name == 'cifar_cam': call = lambda: grad_cam(model, layer, x, ids)
    elif name == 'captum':
        from captum.attr import LayerGradCam
        explain = LayerGradCam(model, module)
        call = lambda: explain.attribute(x, ids, relu_attributions=True)
    else:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
        explain, targets = GradCAM(model=model, target_layers=[module]), [ClassifierOutputTarget(0)] * len(x)
        call = lambda: explain(input_tensor=x, targets=targets)
    return call


def interleaved(layer, runs):
    "Median seconds of each call."
    torch.manual_seed(0)
    x, seconds = torch.randn(128, 3, 32, 32), {name: [] for name in CALLS}
    calls = {name: make(name, resnet18().eval(), layer, x) for name in CALLS}  # a model each: the rivals leave hooks and gradients behind
    for name in CALLS: calls[name]()
    for round_ in range(runs):
        for name in CALLS if round_ % 2 else CALLS[::-1]:
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def highest():
    "The most memory that this process ever held, in MiB. (getrusage would count what the parent held before the start.)"
    try: status = open('/proc/self/status').read()
    except OSError: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def peak(name, layer, images):
    "MiB that the call needs above what the process held before it; run in a process of its own."
    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(images, 3, 32, 32)
    call = make(name, model, layer, x)
    with torch.no_grad(): model(x[:1])
    before, start = highest(), time.perf_counter()
    call()
    return highest() - before, time.perf_counter() - start


def peak_elsewhere(name, layer, images):
    "`peak` in a fresh process."
    out = subprocess.run([sys.executable, __file__, '--peak', name, layer, str(images)], capture_output=True, text=True, check=True)
    return [float(v) for v in out.stdout.split()[-2:]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=7)
    parser.add_argument('--images', type=int, default=10_000, help='for the one long call; 0 leaves it out')
    parser.add_argument('--peak', nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter('ignore')
    if options.peak: return print(*peak(options.peak[0], options.peak[1], int(options.peak[2])))
    print(f'{processor_facts("model name") or platform.processor()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, '
          f'torch {torch.__version__}, float32, batch 128, median of {options.runs}\n')
    print('| layer | call | seconds | x forward | x cifar_cam | peak MiB |\n|---|---|---|---|---|---|')
    for layer in ('layer4', 'layer3'):
        seconds = interleaved(layer, options.runs)
        for name in CALLS:
            print(f'| {layer} | {name} | {seconds[name]:.3f} | {seconds[name] / seconds["forward"]:.2f} | '
                  f'{seconds[name] / seconds["cifar_cam"]:.2f} | {peak_elsewhere(name, layer, 128)[0]:.0f} |', flush=True)
    if options.images:
        print('\n| images in one call | layer | seconds | images/s | peak MiB |\n|---|---|---|---|---|')
        for images in (512, options.images):
            memory, seconds = peak_elsewhere('cifar_cam', 'layer3', images)
            print(f'| {images:,} | layer3 | {seconds:.1f} | {images / seconds:.0f} | {memory:.0f} |', flush=True)


if __name__ == '__main__': main()
