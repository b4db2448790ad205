"""Runs that are killed, stopped and run on several processes: with real processes and real signals.

What small_run.py does is done once for all these tests, so they stay in one process (see conftest.py).
"""
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_run
import torch
from small_run import same_run

from cifar_cam import recipes
from cifar_cam.core import read_run
from cifar_cam.optimizer import OPTIMIZERS, SCHEDULES

script = str(Path(__file__).parent/'small_run.py')


# Killed, and started again

@pytest.fixture(scope='module')
def stories(tmp_path_factory):
    "What small_run.py did and said, name -> (folder, lines), and its errors: run once."
    folder = tmp_path_factory.mktemp('small_run')
    done = subprocess.run([sys.executable, script, 'all', str(folder)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = dict(part.split('\n', 1) for part in done.stdout.split('== ')[1:])
    return {name: (folder/name, lines.splitlines()) for name, lines in parts.items()}, done.stderr


def told_lives(lines):
    "What the lives of all cases ended with: name -> life -> (status, names of the files left)."
    found = {}
    for line in lines:
        name, life, status, left = line.split('|')
        found.setdefault(name, {})[life] = (int(status), left.split())
    return found


@pytest.fixture(scope='module')
def lives(stories):
    folder, lines = stories[0]['lives']
    return folder, told_lives(lines), stories[1]


@pytest.mark.parametrize('name', small_run.cases())
def test_a_killed_run_ends_in_the_same_weights_bit_for_bit(name, lives):
    folder, found, log = lives
    statuses = {life: status for life, (status, _) in found[name].items()}
    last = f'life {len(small_run.lives_of(name)) - 1}'
    killed = {life: -signal.SIGKILL for life in statuses if life not in ('whole', last)}
    assert killed and statuses == {'whole': 0, **killed, last: 0}, log[-3000:]
    run = same_run(folder/name/'killed', folder/name/'whole')
    assert len(run.history) == small_run.cases()[name].epochs


def test_the_cases_hold_every_optimizer_schedule_and_option():
    cases = small_run.cases().values()
    assert {case.optimizer for case in cases} == set(OPTIMIZERS)
    assert {case.schedule for case in cases} >= set(SCHEDULES)
    assert all(any(small_run.alike(recipe, case) for case in cases) for recipe in recipes.RECIPES.values())
    assert {case.loader for case in cases} == set(recipes.LOADERS)
    for option in ('ema', 'sizes', 'decay_norms', 'label_smoothing', 'weight_decay'):
        assert {bool(getattr(case, option)) for case in cases} == {True, False}, option


def test_the_plateau_of_the_cases_lowers_the_learning_rate(lives):
    rates = read_run(lives[0]/'adamw plateau'/'killed').history.lr.tolist()
    assert rates[0] > rates[1] > rates[2]


def test_files_were_half_written_when_the_run_was_killed(lives):
    found = lives[1]['half-written files']
    written = {n: place for n, place in enumerate(small_run.WRITES) if place['die_writing'][0] not in small_run.ROTATED}
    assert len(written) == 5 and all('.part' in found[f'life {n}'][1] for n in written)


@pytest.fixture(scope='module')
def stops(stories):
    folder, lines = stories[0]['stops']
    return folder, {line.split('|')[0]: line.split('|')[1:] for line in lines}


@pytest.mark.parametrize('name, status', [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_run_that_is_stopped_says_what_is_kept_in_one_line_and_goes_on(name, status, stops):
    folder, lines = stops
    for place in small_run.PLACES:
        code, left, told = lines[f'{place} {name}']
        assert int(code) == status and '.part' not in left and 'NEWLINE' not in told
        assert told.startswith('stopped; ') and told.endswith('start the same command again to go on') and 'checkpoint.safetensors keeps' in told
    same_run(folder/f'stopped {name}', folder/'whole')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='the gradient scaler of float16 works on a GPU only')
def test_the_gradient_scaler_survives_a_kill(tmp_path):
    done = subprocess.run([sys.executable, script, 'lives', tmp_path, 'layernorm-fast', 'adam constant', '--scaler'], capture_output=True, text=True)
    found, log = told_lives(done.stdout.splitlines()), done.stderr
    assert len(found) == 2, log
    for name in found:
        assert found[name]['life 0'][0] == -signal.SIGKILL and found[name]['life 2'][0] == 0, log[-3000:]
        same_run(tmp_path/name/'killed', tmp_path/name/'whole')


# Several processes

@pytest.fixture(scope='module')
def many(stories): return *stories[0]['many'], stories[1]


def test_two_processes_train_as_one_also_when_they_were_stopped(many):
    folder, lines, log = many
    assert '[0, 143, 143, 2, 2, 0, 0, 2]' in lines[-1], log[-3000:]
    one, two = read_run(folder/'one'), read_run(folder/'two')
    assert (one.card['processes'], two.card['processes']) == (1, 2)
    assert one.card['steps'] == two.card['steps'] == 20
    torch.testing.assert_close(two.weights, one.weights, rtol=0, atol=1e-5)


def test_what_several_processes_and_a_second_training_are_told(many):
    folder, (both, second, last), _ = many
    assert both.count('stopped; ') == 1 and 'checkpoint.safetensors keeps 1 epochs and 4 steps' in both and 'Traceback' not in both
    assert 'belongs to a run with other options: lr 0.05, now 0.01. Give' in both
    assert f'is in use by process {last.split()[0]} on ' in second and ' since 20' in second and 'another name with --run' in second
    assert sorted(p.name for p in folder.iterdir()) == ['one', 'two']


def test_torchrun_restarts_a_killed_worker_and_the_run_goes_on(tmp_path, many):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--max-restarts=2',
               '--monitor-interval=0.2', script, 'one', str(tmp_path/'healed'), '--die-at', '13']
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'exitcode: -9' in done.stderr  # the worker was killed, not merely stopped
    assert 'error: another process of this run has ended' in done.stderr or 'stopped; ' in done.stderr
    torch.testing.assert_close(read_run(tmp_path/'healed').weights, read_run(many[0]/'one').weights, rtol=0, atol=1e-5)
