"""The learning-rate finder for the two recipes whose authors used one: results/lr_recipes.csv.

    python tools/find_rates.py            # on a processor about 20 minutes; a finished recipe keeps its rows
    python tools/find_rates.py cuda

One author reads validation accuracy off 5,859 steps of 128 images, the other training loss. Here 60 steps of 128 augmented images each; for
the first one, after each step, the accuracy on 500 images held back.
"""
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from cifar_cam.core import atomic_path, pick_device, row_facts, seed_everything
from cifar_cam.lr_finder import lr_range_test
from cifar_cam.optimizer import make_optimizer
from cifar_cam.recipes import find_recipe, make_model, recipe_data
from cifar_cam.train import Batches, plain_pipeline

table = Path(__file__).resolve().parent.parent/'results'/'lr_recipes.csv'
# recipe -> first rate, last rate, images held back for the accuracy
RANGES = {'davidnet-triangular': (1e-4, 1.0, 500), 'batchnorm-onecycle': (1e-6, 1e-1, 0)}
STEPS, BATCH, SEED = 60, 128, 42


def find_rates(name, device):
    "The range test of the recipe `name`, with its circumstances."
    recipe, (start, end, held) = find_recipe(name), RANGES[name]
    seed_everything(SEED)
    data, model = recipe_data(valid=recipe.valid), make_model(recipe.model).to(device)
    optimizer = make_optimizer(model, recipe.optimizer, start, recipe.weight_decay, recipe.decay_norms, recipe.momentum)
    augmented = Batches(*data['train'], BATCH, recipe.pipeline, SEED, device).epoch(0)
    batches = [(x, y) for (x, y, _), _ in zip(augmented, range(STEPS), strict=False)]
    x, y = (torch.tensor(part[:held], device=device) for part in data['valid'])
    valid = [(plain_pipeline(recipe.pipeline)(x), y)] if held else None
    begin = time.perf_counter()
    found = lr_range_test(model, optimizer, nn.CrossEntropyLoss(), batches, valid, start, end, STEPS)
    return found.round({'loss': 5, 'accuracy': 4}).assign(recipe=name, seconds=round(time.perf_counter() - begin), valid_images=held,
                                                          seed=SEED, **row_facts(device))


def main():
    torch.set_flush_denormal(True)
    device, known = pick_device(*sys.argv[1:2]), [pd.read_csv(table)] if table.exists() else []
    for name in RANGES:
        if known and name in set(known[0].recipe): continue
        known = [pd.concat([*known, find_rates(name, device)])]
        with atomic_path(table) as part: known[0].to_csv(part, index=False)
        print(f'{name}: {len(known[0])} rows in {table.name}', flush=True)


if __name__ == '__main__': main()
