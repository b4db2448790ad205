"""The same recipe through whole batches and through Albumentations in a DataLoader: accuracy and seconds, three seeds each.

A small budget, so that it ends in minutes on a CPU: 4,000 training images, two epochs at 16 pixels, 1,000 test images.
"""
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cifar_cam.core import new_run, run_card
from cifar_cam.recipes import LOADERS, find_recipe, recipe_data, run_recipe

SEEDS = (42, 43, 44)


def main():
    torch.set_flush_denormal(True)
    rows, folder = [], Path(tempfile.mkdtemp())
    for seed in SEEDS:
        data = recipe_data(4000, seed=seed)
        data |= {part: tuple(each[:1000] for each in data[part]) for part in ('valid', 'test')}
        for loader in LOADERS:
            recipe = replace(find_recipe('layernorm-fast', pipeline='layernorm-plateau', epochs=2, loader=loader), sizes=((1, 16),))
            card = run_recipe(recipe, new_run(f'{loader}-{seed}', folder), data, seed, 'cpu', 'float32', progress=False)
            rows.append(dict(loader=loader, accuracy=100*card['test_accuracy'], seconds=card['seconds']))
    found = pd.DataFrame(rows).groupby('loader', sort=False)
    table = found.accuracy.agg(['mean', 'min', 'max']).round(1).add_suffix(' accuracy, %')
    table['seconds of training'] = found.seconds.mean().round(1)
    print(f'{len(SEEDS)} seeds, 4,000 images, 2 epochs at 16 pixels, 1,000 test images, {torch.get_num_threads()} threads of '
          f'{run_card()["hardware"]}, torch {torch.__version__}; Albumentations in two worker processes\n')
    print(table.to_markdown())
    differences = found.accuracy.apply(np.array)
    print(f'\nalbumentations less batched, seed by seed, in points: {np.round(differences["albumentations"] - differences["batched"], 1).tolist()}')


if __name__ == '__main__': main()
