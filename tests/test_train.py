"Runs that are killed, and runs on several processes: with real processes and real signals."
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cifar_cam.core import read_run

script = str(Path(__file__).parent/'small_run.py')
unlike = ['seconds', 'step_seconds']  # columns that no two runs share


def start(run, *options):
    run.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, script, str(run), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(run, *options):
    process = start(run, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return read_run(run)


def torchrun(run, *options, restarts=0):
    run.mkdir()
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', f'--max-restarts={restarts}',
               '--monitor-interval=0.2', script, str(run), '--no-dropout', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_run(run), done.stderr


def test_a_run_killed_ten_times_ends_in_the_same_weights_bit_for_bit(tmp_path):
    long = ('--epochs', '80')  # 400 steps, a checkpoint after each: several times longer than the ten lives together
    whole = finish(tmp_path/'whole', *long)
    chance = random.Random(0)
    for _ in range(10):
        process = start(tmp_path/'killed', *long)
        assert process.stdout.readline() == 'started\n', process.stderr.read()
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, 'the run ended before it was killed: make it longer'
        assert not (tmp_path/'killed'/'run.json').exists()
    assert (tmp_path/'killed'/'checkpoint.safetensors').exists()
    killed = finish(tmp_path/'killed', *long)
    torch.testing.assert_close(killed.weights, whole.weights, rtol=0, atol=0)
    assert killed.history.drop(columns=unlike).equals(whole.history.drop(columns=unlike))
    assert killed.card['test_accuracy'] == whole.card['test_accuracy']
    assert sorted(p.name for p in (tmp_path/'killed').iterdir()) == ['history.csv', 'run.json', 'weights.safetensors']


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    return finish(tmp_path_factory.mktemp('one')/'run', '--no-dropout')


def test_two_processes_train_as_one(tmp_path, one_process):
    two, _ = torchrun(tmp_path/'two')
    assert two.card['processes'] == 2 and two.card['steps'] == one_process.card['steps'] == 20
    torch.testing.assert_close(two.weights, one_process.weights, rtol=0, atol=1e-5)


def test_torchrun_restarts_a_killed_worker_and_the_run_goes_on(tmp_path, one_process):
    healed, log = torchrun(tmp_path/'healed', '--die-at', '13', restarts=2)
    assert 'exitcode: -9' in log  # the worker was killed, not merely stopped
    torch.testing.assert_close(healed.weights, one_process.weights, rtol=0, atol=1e-5)
