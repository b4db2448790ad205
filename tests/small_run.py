"""Recipes small enough for tests, in processes of their own.

    python small_run.py all FOLDER                      the three stories below
    python small_run.py lives FOLDER [CASE ...]         every case whole, and again in lives that end by SIGKILL
    python small_run.py stops FOLDER                    one case stopped politely by Ctrl-C and SIGTERM, at four places each
    python small_run.py many FOLDER                     one recipe on one process and on two, a second training in one folder
    python small_run.py one FOLDER [--die-at STEP]      the same recipe, for torchrun

A life ends where its progress says, never by the clock: at a training step, in an evaluation, or while a certain file is written.
Each life is a process of its own, a fork of this one, so that Python and PyTorch are loaded once.
"""
import os
import random
import signal
import socket
import sys
import traceback
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')  # a look at the GPU that leaves a fork able to use it
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

import torch
from torch import nn

from cifar_cam import recipes
from cifar_cam.checkpoints import hold_run, what_is_kept
from cifar_cam.core import plain_errors, read_run
from cifar_cam.optimizer import OPTIMIZERS, SCHEDULES
from cifar_cam.resnet import LayerNorm

STEPS = 4  # per epoch, in every case
LIVES = ({'die_at': STEPS + 2}, {'die_at': STEPS}, {})  # in epoch 2; at the first step of epoch 3; to the end
WRITES = tuple({'die_writing': place} for place in (
    ('checkpoint.new.safetensors', 2), ('checkpoint.new.safetensors', STEPS), ('checkpoint.previous.safetensors', 1),
    ('checkpoint.safetensors', 3), ('weights.safetensors', 1), ('history.csv', 1), ('run.json', 1)))


UNLIKE = ['seconds', 'step_seconds']  # columns that no two runs share
ROTATED = ('checkpoint.safetensors', 'checkpoint.previous.safetensors')
FINISHED = ['history.csv', 'run.json', 'weights.safetensors']


def content(folder): return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def same_run(folder, other):
    "Raise unless both run folders hold the same weights, history and accuracy, bit for bit."
    one, two = read_run(folder), read_run(other)
    torch.testing.assert_close(one.weights, two.weights, rtol=0, atol=0)
    assert one.history.drop(columns=UNLIKE).equals(two.history.drop(columns=UNLIKE))
    assert all(one.card[key] == two.card[key] for key in ('test_accuracy', 'test_loss', 'recipe', 'seed', 'precision', 'steps'))
    assert sorted(content(folder)) == sorted(content(other)) == FINISHED
    return one


class SmallNet(nn.Sequential):
    "Two convolutions; whatever keeps a state of its own is in it: batch statistics, dropout, a frozen parameter."
    def __init__(self, plain=False):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), LayerNorm(8) if plain else nn.BatchNorm2d(8), nn.ReLU(),
            nn.Identity() if plain else nn.Dropout(0.2), nn.Conv2d(8, 16, 3, 2, 1), LayerNorm(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        self[0].bias.requires_grad_(False)
        self.die_at, self.die_looking, self.number, self.steps, self.looks = None, None, signal.SIGKILL, 0, 0

    def forward(self, x):
        self.steps, self.looks = self.steps + self.training, self.looks + (not self.training)
        if (self.steps == self.die_at) if self.training else (self.looks == self.die_looking): os.kill(os.getpid(), self.number)
        return super().forward(x)


def small(recipe, **changes):
    "`recipe` on the small network: optimizer, schedule, options and pipeline are its own."
    changes = dict(model='small', epochs=3, batch_size=16, lr=min(recipe.lr, 0.05)) | changes
    if recipe.pipeline == 'mini-dropout': changes['pipeline'] = 'mini'  # the same without 224 pixels
    return replace(recipe, **changes)


def cases():
    "name -> recipe: those of the registry that differ when small, and others with each optimizer, schedule and option."
    options = {'plateau': {'patience': 0, 'threshold': 9.0}, 'piecewise': {'points': [[0, 0.1], [1, 1], [3, 0]]}}
    found, base = {}, recipes.RECIPES['layernorm-plateau']
    for name, recipe in recipes.RECIPES.items():
        if not any(alike(recipe, other) for other in found.values()): found[name] = small(recipe)
    for n, (schedule, optimizer) in enumerate(zip(SCHEDULES, cycle(OPTIMIZERS), strict=False)):
        found[f'{optimizer} {schedule}'] = small(
            base, name=f'{optimizer} {schedule}', pipeline='crop-flip', optimizer=optimizer, lr=0.01, schedule=schedule,
            schedule_options=options.get(schedule, {}), ema=0.9*(n % 2), weight_decay=0.01, decay_norms=n % 2 == 1,
            label_smoothing=0.1*(n % 2), sizes=((0.5, 16), (0.5, 32)) if n % 2 else ())
    found['one by one'] = small(base, name='one by one', loader='albumentations')
    found['ten lives'] = small(recipes.RECIPES['layernorm-fast'], name='ten lives', epochs=8, ema=0.9)
    found['half-written files'] = small(recipes.RECIPES['layernorm-fast'], name='half-written files')
    return found


def alike(recipe, other):
    "Whether two recipes differ in their words, network or learning rate alone when they are small."
    words = dict(name='', published='', note='', lr=1.0)
    return replace(small(recipe), **words) == replace(small(other), **words)


def lives_of(name):
    "Where each life of a case ends."
    chance = random.Random(0)
    if name == 'ten lives': return [{'die_at': chance.randint(2, 4)} for _ in range(10)] + [{}]
    return [*WRITES, {}] if name == 'half-written files' else LIVES


def small_data(train=STEPS*16 - 6, others=20):
    "A few images of the embedded sample; the last batch of an epoch is smaller than the others."
    data = recipes.recipe_data(images=train, sample=True)
    return {part: tuple(a[:train if part == 'train' else others] for a in data[part]) for part in data}


def die_while_writing(name, count, number=signal.SIGKILL):
    "Make this process die when it has written half of the file `name`, or is about to rename another into it, for the `count`-th time."
    replace, seen = os.replace, []
    def killing(source, target):
        if Path(target).name == name: seen.append(target)
        if len(seen) == count:
            if number == signal.SIGKILL and Path(source).suffix == '.part': os.truncate(source, os.path.getsize(source)//2)
            seen.append(target)
            os.kill(os.getpid(), number)
        replace(source, target)
    os.replace = killing


def train(recipe, run, data, die_at=None, die_looking=None, die_writing=None, number=signal.SIGKILL, plain=False, device='cpu', precision='float32'):
    "One life of a run: to its end, or to the place where it dies."
    def make():
        net = SmallNet(plain)
        net.die_at, net.die_looking, net.number = die_at, die_looking, number
        return net
    recipes.MODELS['small'] = make
    if die_writing: die_while_writing(*die_writing, number)
    run.mkdir(parents=True, exist_ok=True)
    with plain_errors(lambda: what_is_kept(run)):
        return recipes.run_recipe(recipe, run, data, device=device, precision=precision, minutes=0, progress=False)


def begin(work, *args, log=None, **options):
    "The id of a new process that does `work`; what it complains about goes into the file `log`."
    sys.stdout.flush()
    child = os.fork()
    if child: return child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that it can be stopped where these tests run in the background
    status = 1
    if log:
        sys.stderr.flush()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    try:
        work(*args, **options)
        sys.stdout.flush()
        status = 0
    except SystemExit as stop: status = stop.code
    except BaseException: traceback.print_exc()
    finally: os._exit(status)


def end(child): return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def all_lives(folder, names, **options):
    "Train every case whole and in its lives; a line for each life says how it ended and what it left."
    data, found = small_data(), cases()
    for name in names or found:
        print(f'{name}|whole|{end(begin(train, found[name], folder/name/"whole", data, **options))}|', flush=True)
        for n, life in enumerate(lives_of(name)):
            status = end(begin(train, found[name], folder/name/'killed', data, **life, **options))
            left = sorted(p.suffix for p in (folder/name/'killed').iterdir())
            print(f'{name}|life {n}|{status}|{" ".join(left)}', flush=True)


PLACES = {'step': dict(die_at=STEPS + 2), 'evaluation': dict(die_looking=2), 'finishing': dict(die_writing=('weights.safetensors', 1)),
          'last file': dict(die_writing=('run.json', 1))}


def all_stops(folder):
    "A run that is stopped politely, four times by each signal, and goes on each time; a line for each says what it told."
    data, recipe, run = small_data(), cases()['layernorm-fast'], folder/'stops'
    for number in (signal.SIGINT, signal.SIGTERM):
        for place, where in PLACES.items():
            log = folder/f'{place} {number.name}.log'
            status = end(begin(train, recipe, run, data, log=log, number=number, **where))
            left = ' '.join(sorted(p.name for p in run.iterdir()))
            print(f'{place} {number.name}|{status}|{left}|{log.read_text().strip()}'.replace('\n', ' NEWLINE '), flush=True)
        status = end(begin(train, recipe, run, data))
        print(f'end {number.name}|{status}||', flush=True)
        run.rename(folder/f'stopped {number.name}')
    end(begin(train, recipe, folder/'whole', data))


def one(folder, die_at=None, lr=0.05, **options):
    "One run of a network without batch statistics and dropout: any number of processes trains the same."
    if os.environ.get('RANK') != '1' or os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') != '0':
        die_at = None  # one worker fails, once; the other does not
    recipe = small(recipes.RECIPES['layernorm-plateau'], pipeline='crop-flip', optimizer='sgd', lr=lr, schedule='onecycle',
                   schedule_options={}, epochs=4, batch_size=50, ema=0.9)
    train(recipe, folder, recipes.recipe_data(images=250, sample=True), die_at=die_at, plain=True, **options)


def ranked(folder, rank, port, **options):
    "One of two processes, as torchrun would start it."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    one(folder, **options)


def free_port():
    with socket.socket() as place:
        place.bind(('127.0.0.1', 0))
        return place.getsockname()[1]


def many(folder):
    "One process; two processes, stopped and refused once; and a second training in a folder that this process holds."
    log = folder/'log'
    statuses = [end(begin(one, folder/'one'))]
    for options in (dict(die_looking=2, number=signal.SIGTERM), dict(lr=0.01), {}):
        port = free_port()
        children = [begin(ranked, folder/'two', rank, port, log=log, **options) for rank in (0, 1)]
        statuses += [end(child) for child in children]
    print(log.read_text().strip().replace('\n', ' NEWLINE '))
    log.unlink()
    with hold_run(folder): statuses.append(end(begin(one, folder, log=log)))
    print(log.read_text().strip().replace('\n', ' NEWLINE '))
    log.unlink()
    print(f'{os.getpid()} {statuses}')


if __name__ == '__main__':
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    mode, folder, rest = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    if mode == 'lives':
        gpu = dict(device='cuda', precision='float16') if '--scaler' in rest else {}
        all_lives(folder, [name for name in rest if name != '--scaler'], **gpu)
    elif mode == 'all':
        for name, story in dict(lives=partial(all_lives, names=[]), stops=all_stops, many=many).items():
            (folder/name).mkdir()
            print(f'== {name}')
            story(folder/name)
    elif mode == 'stops': all_stops(folder)
    elif mode == 'many': many(folder)
    else: one(folder, int(rest[1]) if rest else None)
