"""A recipe small enough for tests, in a process of its own: `python small_run.py RUN_FOLDER [--die-at STEP] [--epochs N] [--no-dropout]`.

With --die-at the process kills itself (SIGKILL) at that training step of its first life, as a failing machine would.
"""
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from cifar_cam import recipes
from cifar_cam.resnet import LayerNorm


class SmallNet(nn.Sequential):
    "Two convolutions with LayerNorm; dies at training step `die_at`."
    def __init__(self, die_at=None):
        super().__init__(nn.Conv2d(3, 16, 3, 2, 1), LayerNorm(16), nn.ReLU(), nn.Dropout(0.0 if torch.distributed.is_initialized() else 0.2),
                         nn.Conv2d(16, 16, 3, 2, 1), LayerNorm(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        self.die_at, self.steps = die_at, 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == self.die_at and os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0': os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def main(run, die_at=None, epochs=4, dropout=True):
    torch.set_num_threads(1)
    if die_at and int(os.environ.get('RANK', 0)) != 1: die_at = None  # one worker fails, the other does not
    def make():
        net = SmallNet(die_at)
        if not dropout: net[3] = nn.Identity()
        return net
    recipes.MODELS['small'] = make
    recipe = recipes.find_recipe('layernorm-plateau', name='small', model='small', pipeline='crop-flip', optimizer='sgd', lr=0.05,
                                 schedule='onecycle', epochs=epochs, batch_size=50, ema=0.9)
    data = recipes.recipe_data(images=250, sample=True)
    print('started', flush=True)
    recipes.run_recipe(recipe, Path(run), data, device='cpu', precision='float32', minutes=0, progress=False)


def number(option, default=None): return int(sys.argv[sys.argv.index(option) + 1]) if option in sys.argv else default


if __name__ == '__main__': main(sys.argv[1], number('--die-at'), number('--epochs', 4), '--no-dropout' not in sys.argv)
