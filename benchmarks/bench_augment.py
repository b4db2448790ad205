"The full layernorm-plateau pipeline on one core: batched, Albumentations, torchvision v2. Run: python benchmarks/bench_augment.py"
import os
import platform
import statistics
import time

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from cifar_cam.albumentations_twin import import_albumentations
from cifar_cam.augment import albumentations_pipeline, batch_pipeline, step_generator
from cifar_cam.core import run_card
from cifar_cam.data import MEAN, STD, load_sample
from cifar_cam.pixels import FILL

BATCH, ROUNDS, IN_A_ROW = 128, 15, 4


def torchvision_pipeline(images):
    "The same four changes; `images` says what comes in: 'PIL' or 'tensor'."
    fill, side = tuple(FILL), 5*5/1024
    start = [v2.PILToTensor()] if images == 'PIL' else []
    return v2.Compose([
        v2.RandomCrop(32, padding=4), *start, v2.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=fill),
        v2.RandomRotation(5, interpolation=InterpolationMode.BILINEAR),
        v2.RandomErasing(p=0.5, scale=(side/2, side), ratio=(0.5, 2.0), value=fill),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def seconds(work):
    "Of one batch, the mean of a few in a row, as in training."
    start = time.perf_counter()
    for _ in range(IN_A_ROW): work()
    return (time.perf_counter() - start)/IN_A_ROW


def main():
    torch.set_num_threads(1)
    albumentations, cv2 = import_albumentations()
    cv2.setNumThreads(0)
    torch.set_flush_denormal(True)
    arrays = np.array(load_sample('train')[0][:BATCH])
    tensors = torch.from_numpy(arrays)
    planes = list(tensors.permute(0, 3, 1, 2).contiguous())
    pictures = [Image.fromarray(a) for a in arrays]
    compose, pil, tensor = albumentations_pipeline('layernorm-plateau', seed=0), torchvision_pipeline('PIL'), torchvision_pipeline('tensor')
    batched, step = batch_pipeline('layernorm-plateau'), iter(range(10**9))
    ways = {
        f'Albumentations {albumentations.__version__}': lambda: torch.stack([compose(image=a)['image'] for a in arrays]),
        f'torchvision {torchvision.__version__} v2, PIL': lambda: torch.stack([pil(p) for p in pictures]),
        f'torchvision {torchvision.__version__} v2, tensors': lambda: torch.stack([tensor(t) for t in planes]),
        'cifar_cam, batched': lambda: batched(tensors, step_generator(0, 0, next(step))),
    }
    for work in ways.values():
        for _ in range(3): work()
    times = {name: [] for name in ways}
    for _ in range(ROUNDS): # interleaved, so that a slow moment of the machine meets all of them
        for name, work in ways.items(): times[name].append(seconds(work))
    median = {name: statistics.median(t) for name, t in times.items()}
    ours = median['cifar_cam, batched']
    print(f'\nAugmentation, full layernorm-plateau pipeline, one core of {run_card()["hardware"]}, batch {BATCH}, median of {ROUNDS} rounds, '
          f'torch {torch.__version__}, OpenCV {cv2.__version__}, Python {platform.python_version()}\n')
    print('| way | ms a batch | images/s | times slower than batched |\n|---|---|---|---|')
    for name, t in median.items(): print(f'| {name} | {1000*t:.2f} | {BATCH/t:,.0f} | {t/ours:.1f} |')


if __name__ == '__main__': main()
