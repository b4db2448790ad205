"""Hours of bad luck, in minutes: runs that are killed, stopped, changed and damaged at random, and must lose nothing.

    python tools/soak.py --minutes 60 [--seed 1] [--first 0]

Each round draws a recipe (optimizer, schedule, average, sizes, dropout or not) at tiny size and trains it twice: once whole, and once in
lives that end by SIGKILL, SIGTERM or SIGINT at a random step, in an evaluation, or while a file is written. Between two lives an option may
be changed (the start must be refused and touch nothing) or the newest checkpoint damaged (it must be noticed, and the one before it
taken). Some rounds run two processes (the whole run, too), of which one is killed. In the end weights, history and accuracy must equal those of the
whole run bit for bit, and the card must say what ran; then one file of the finished run is damaged, which must be noticed when it is read.

The number of a round decides everything in it: `--seed S --first R --rounds 1` repeats round R. Status 1 if anything was lost.
"""
import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root), str(root/'tests')]
os.environ.setdefault('OMP_NUM_THREADS', '1')

import small_run  # noqa: E402
import torch  # noqa: E402

from cifar_cam.core import read_run  # noqa: E402
from cifar_cam.optimizer import OPTIMIZERS, SCHEDULES  # noqa: E402
from cifar_cam.recipes import RECIPES  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FILES = ('checkpoint.new.safetensors', 'checkpoint.previous.safetensors', 'checkpoint.safetensors', 'weights.safetensors', 'history.csv', 'run.json')


def draw_recipe(chance):
    "A recipe of random parts, at tiny size."
    schedule = chance.choice(list(SCHEDULES))
    options = {'plateau': {'patience': chance.randint(0, 1), 'threshold': 9.0}, 'piecewise': {'points': [[0, 0.1], [1, 1], [3, 0]]},
               'triangular': {'warmup': chance.choice((0.2, 0.5))}}
    return small_run.small(
        RECIPES['layernorm-plateau'], name='soak', pipeline=chance.choice(('crop-flip', 'layernorm-plateau', 'fast', 'davidnet')), epochs=chance.randint(2, 4),
        optimizer=chance.choice(OPTIMIZERS), lr=chance.choice((0.01, 0.003)), schedule=schedule, schedule_options=options.get(schedule, {}),
        ema=chance.choice((0, 0.9)), weight_decay=chance.choice((0.0, 0.01)), decay_norms=chance.random() < 0.5,
        label_smoothing=chance.choice((0, 0.1)), sizes=chance.choice(((), ((0.5, 16), (0.5, 32)))))


def draw_end(chance, epochs):
    "Where a life ends: at a step, in an evaluation, while a file is written."
    kind = chance.choice(('step', 'step', 'evaluation', 'file'))
    if kind == 'step': return dict(die_at=chance.randint(1, small_run.STEPS*epochs))
    if kind == 'evaluation': return dict(die_looking=chance.randint(1, epochs))
    name = chance.choice(FILES)
    return dict(die_writing=(name, chance.randint(1, 3*small_run.STEPS) if name.startswith('checkpoint') else 1))


def draw_change(chance, recipe):
    "Another recipe: one option is another one."
    other = lambda name, values: {name: chance.choice([v for v in values if v != getattr(recipe, name)])}
    changes = [other('lr', (0.01, 0.02)), other('epochs', (2, 3, 5)), other('batch_size', (8, 32)), other('weight_decay', (0.0, 0.1)),
               other('ema', (0, 0.5)), other('label_smoothing', (0, 0.2)), other('pipeline', ('none', 'crop-flip')), other('valid', (10_000,)),
               other('optimizer', OPTIMIZERS), other('momentum', (0.5,)), other('sizes', (((1.0, 24),),)), dict(images=9)]
    return replace(recipe, **chance.choice(changes))


def damage(chance, path):
    "Flip a bit of `path`, or cut it."
    content = bytearray(path.read_bytes())
    if chance.random() < 0.3: content = content[:chance.randrange(len(content))]
    else: content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def content(folder): return {p.name: p.read_bytes() for p in Path(folder).iterdir() if not p.name.startswith('.')}


def rank_of_two(recipe, run, data, rank, port, **options):
    "One of two processes, as torchrun would start it."
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    small_run.train(recipe, run, data, **options)


class Round:
    "One round: its folder, its chances, what it counted and what it lost."
    def __init__(self, seed, number, folder):
        self.chance, self.folder, self.name = random.Random(f'{seed} {number}'), folder, f'--seed {seed} --first {number} --rounds 1'
        self.counts, self.lost, self.recipe, self.data = Counter(rounds=1), [], None, small_run.small_data()
        self.log, self.run = folder/'log', folder/'killed'

    def lose(self, what): self.lost.append(f'{what} ({self.name})')

    def start(self, recipe, run, world=1, **options):
        "The statuses of one life; what it said is in `self.log`."
        self.log.unlink(missing_ok=True)
        options['plain'] = self.plain
        if world == 1: return [small_run.end(small_run.begin(small_run.train, recipe, run, self.data, log=self.log, **options))]
        port, calm = small_run.free_port(), dict(plain=self.plain)
        children = [small_run.begin(rank_of_two, recipe, run, self.data, rank, port, log=self.log, **(options if rank else calm)) for rank in (0, 1)]
        return [small_run.end(child) for child in children]

    def play(self):
        "The whole run, the lives, the comparison."
        chance = self.chance
        self.recipe, world = draw_recipe(chance), 2 if chance.random() < 0.15 else 1
        self.plain = world == 2 or chance.random() < 0.5  # each process draws dropout and keeps batch statistics for itself
        if self.start(self.recipe, self.folder/'whole', world) != [0]*world: return self.lose(f'the whole run failed: {self.log.read_text()[-300:]}')
        for _ in range(chance.randint(1, 5)):
            if (self.run/'run.json').exists(): break
            self.live(world)
            if self.run.is_dir(): self.tempt(world)
        if not (self.run/'run.json').exists():
            if self.life(world) != [0]*world: return self.lose(f'the last life failed: {self.log.read_text()[-500:]}')
        self.compare()
        self.damage_finished()

    def life(self, world, **options):
        "The statuses of one life of the run; a resume is counted, and what a killed one left half-written."
        self.counts['resumes'] += any(self.run.glob('checkpoint.*'))
        self.counts['half-written files'] += sum(1 for _ in self.run.glob('.*.part'))
        return self.start(self.recipe, self.run, world, **options)

    def live(self, world):
        "One life, to its end or to a signal."
        number = self.chance.choice(SIGNALS)
        statuses = self.life(world, number=number, **draw_end(self.chance, self.recipe.epochs))
        if world == 2:  # the other one fails when its neighbour is gone
            self.counts['killed workers'] += any(statuses)
        elif statuses[0] == (-number if number == signal.SIGKILL else 128 + number):
            self.counts[f'{number.name}'] += 1
            said = self.log.read_text()
            calm = [line for line in said.splitlines() if not re.search(r'UserWarning|load_checkpoint\(', line)]
            if number != signal.SIGKILL and (len(calm) != 1 or not calm[0].startswith('stopped; ')): self.lose(f'stopped with {said[-300:]!r}')
        elif statuses[0] != 0: self.lose(f'status {statuses}: {self.log.read_text()[-500:]}')

    def tempt(self, world):
        "Between two lives: another option, or a damaged checkpoint."
        newest, previous = self.run/'checkpoint.safetensors', self.run/'checkpoint.previous.safetensors'
        if (self.run/'run.json').exists() or not (newest.exists() or previous.exists()): return
        if self.chance.random() < 0.4:
            before, other = content(self.run), draw_change(self.chance, self.recipe)
            status, said = self.start(other, self.run), self.log.read_text()
            if status == [2] and 'belongs to a run with other options' in said and content(self.run) == before: self.counts['refusals'] += 1
            else: self.lose(f'a changed option was not refused, status {status}: {other}; {said[-300:]}')
        if newest.exists() and previous.exists() and self.chance.random() < 0.4:
            damage(self.chance, newest)
            status, said = self.life(world, die_at=1), self.log.read_text()
            if 'is taken' in said: self.counts['damaged checkpoints noticed'] += 1
            else: self.lose(f'a damaged checkpoint was not noticed, status {status}: {said[-300:]}')

    def compare(self):
        "Nothing may differ from the run that was never killed, nor from its card."
        one, two = read_run(self.run), read_run(self.folder/'whole')
        try: torch.testing.assert_close(one.weights, two.weights, rtol=0, atol=0)
        except AssertionError as error: self.lose(f'other weights: {error}')
        if not one.history.drop(columns=small_run.UNLIKE).equals(two.history.drop(columns=small_run.UNLIKE)): self.lose('another history')
        keys = ('recipe', 'seed', 'steps', 'precision', 'train_images', 'test_accuracy', 'test_loss')
        if any(one.card[key] != two.card[key] for key in keys): self.lose('another card')
        if sorted(p.name for p in self.run.iterdir()) != sorted(p.name for p in (self.folder/'whole').iterdir()): self.lose('files were left')

    def damage_finished(self):
        "One damaged file of the finished run."
        path = self.run/self.chance.choice(('weights.safetensors', 'history.csv', 'run.json'))
        before = path.read_bytes()
        damage(self.chance, path)
        try: found = read_run(self.run)
        except (ValueError, OSError): self.counts['damaged runs noticed'] += 1
        else:
            path.write_bytes(before)
            same = found.card == read_run(self.run).card  # a space in a JSON file says nothing else
            if path.name == 'run.json' and same: self.counts['harmless'] += 1
            else: self.lose(f'a damaged {path.name} was not noticed')


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name, kind, default in (('minutes', float, 60), ('seed', int, random.SystemRandom().randrange(10**6)), ('first', int, 0), ('rounds', int, 10**9)):
        options.add_argument(f'--{name}', type=kind, default=default)
    asked = options.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    total, lost, start = Counter(), [], time.monotonic()
    print(f'seed {asked.seed}', flush=True)
    for number in range(asked.first, asked.first + asked.rounds):
        if time.monotonic() - start > 60*asked.minutes: break
        folder = Path(tempfile.mkdtemp(prefix='soak'))
        one = Round(asked.seed, number, folder)
        one.play()
        total += one.counts
        lost += one.lost
        for what in one.lost: print(f'LOST: {what}\n  {one.recipe}', flush=True)
        shutil.rmtree(folder)
        if number % 20 == 19: print(f'{time.monotonic() - start:,.0f} s: {dict(total)}, lost {len(lost)}', flush=True)
    kills = sum(total[n] for n in ('SIGKILL', 'SIGTERM', 'SIGINT', 'killed workers'))
    print(f'{kills} kills in {time.monotonic() - start:,.0f} s: {dict(total)}; lost {len(lost)}')
    raise SystemExit(bool(lost))


if __name__ == '__main__': main()
