"""Seconds of one training step of the LayerNorm ResNet-18, batch 128, against the plain float32 loop of every tutorial.

The two are run in turn in one process, after a warm-up of each; medians. The ceiling is what a large product of bfloat16 matrices reaches
on the same threads; the arithmetic of a step is counted by PyTorch's own FLOP counter.
"""
import statistics
import time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cifar_cam.augment import batch_pipeline, step_generator
from cifar_cam.core import pick_device, run_card, seed_everything
from cifar_cam.data import load_sample, normalise
from cifar_cam.resnet import resnet18
from cifar_cam.optimizer import make_optimizer, pick_precision
from cifar_cam.train import train_step

torch.set_flush_denormal(True)
device, batch, rounds = pick_device(), 128, 5
images, labels = (torch.tensor(a[:batch], device=device) for a in load_sample('train'))
precision, pipeline = pick_precision(device), batch_pipeline('crop-flip')


def wait():
    if device.type == 'cuda': torch.cuda.synchronize()


def make(channels_last):
    seed_everything(42)
    model = resnet18().to(device)
    if channels_last: model = model.to(memory_format=torch.channels_last)
    return model, make_optimizer(model, 'adam', 1e-3)


plain_model, plain_optimizer = make(False)
fast_model, fast_optimizer = make(True)
scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)


def plain():
    plain_optimizer.zero_grad()
    F.cross_entropy(plain_model(normalise(images)), labels).backward()
    plain_optimizer.step()


def fast():
    x = pipeline(images, step_generator(42, 0, 0)).contiguous(memory_format=torch.channels_last)
    train_step(fast_model, x, labels, fast_optimizer, scaler, precision)


def timed(function):
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def matmul(n):
    "FLOP/s of the fastest of 8 products of two n x n matrices."
    a, b = (torch.randn(n, n, device=device, dtype=precision) for _ in range(2))
    return 2*n**3/min(timed(lambda: a @ b) for _ in range(8))


seconds = {plain: [], fast: []}
for turn in range(rounds + 1):
    for function in seconds:
        took = timed(function)
        if turn: seconds[function].append(took)
with FlopCounterMode(display=False) as counter: plain()
slow, quick = (statistics.median(seconds[function]) for function in (plain, fast))
ceiling, reached = max(matmul(n) for n in (512, 1024, 2048, 4096)), counter.get_total_flops()/quick
card = run_card(device)
print(f"{card['hardware']}, {card['threads']} threads, torch {card['torch']}, batch {batch}, {rounds} rounds, medians\n")
print('| step | seconds | images/s | ratio |\n|---|---|---|---|')
print(f'| plain float32 loop, no augmentation | {slow:.3f} | {batch/slow:.0f} | 1.00 |')
print(f"| ours: {str(precision).removeprefix('torch.')}, channels_last, crop and flip | {quick:.3f} | {batch/quick:.0f} | {slow/quick:.2f} |")
print(f'\nceiling (best matrix product, 512 to 4096): {ceiling/1e9:.0f} GFLOP/s; a step has {counter.get_total_flops()/1e9:.0f} GFLOP '
      f'and reaches {reached/1e9:.0f} GFLOP/s, {reached/ceiling:.0%} of it')
