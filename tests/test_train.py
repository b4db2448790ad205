"Runs that are killed, refused, locked out, and run on several processes: with real processes and real signals."
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import small_run
import torch

from cifar_cam import recipes
from cifar_cam.core import load_tensors, new_run, read_run
from cifar_cam.train import OPTIMIZERS, SCHEDULES, hold_run

script = str(Path(__file__).parent/'small_run.py')
unlike = ['seconds', 'step_seconds']  # columns that no two runs share
finished = ['history.csv', 'run.json', 'weights.safetensors']


def content(folder): return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def same_run(folder, other):
    "Raise unless both run folders hold the same weights, history and accuracy, bit for bit."
    one, two = read_run(folder), read_run(other)
    torch.testing.assert_close(one.weights, two.weights, rtol=0, atol=0)
    assert one.history.drop(columns=unlike).equals(two.history.drop(columns=unlike))
    assert all(one.card[key] == two.card[key] for key in ('test_accuracy', 'test_loss', 'recipe', 'seed', 'precision', 'steps'))
    assert sorted(content(folder)) == sorted(content(other)) == finished
    return one


# Killed, and started again

def run_lives(folder, *options):
    "What the lives of all cases ended with: name -> life -> (status, names of the files left)."
    done = subprocess.run([sys.executable, script, 'lives', str(folder), *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for line in done.stdout.splitlines():
        name, life, status, left = line.split('|')
        found.setdefault(name, {})[life] = (int(status), left.split())
    return found, done.stderr


@pytest.fixture(scope='module')
def lives(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lives')
    yield folder, *run_lives(folder)
    shutil.rmtree(folder)


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
    for option in ('ema', 'sizes', 'spare_norms', 'label_smoothing', 'weight_decay'):
        assert {bool(getattr(case, option)) for case in cases} == {True, False}, option


def test_the_plateau_of_the_cases_lowers_the_learning_rate(lives):
    rates = read_run(lives[0]/'adamw plateau'/'killed').history.lr.tolist()
    assert rates[0] > rates[1] > rates[2]


def test_files_were_half_written_when_the_run_was_killed(lives):
    found = lives[1]['half-written files']
    assert all('.part' in found[f'life {n}'][1] for n in range(len(small_run.WRITES)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='the gradient scaler of float16 works on a GPU only')
def test_the_gradient_scaler_survives_a_kill(tmp_path):
    found, log = run_lives(tmp_path, 'layernorm-fast', 'adam constant', '--scaler')
    assert len(found) == 2, log
    for name in found:
        assert found[name]['life 0'][0] == -signal.SIGKILL and found[name]['life 2'][0] == 0, log[-3000:]
        same_run(tmp_path/name/'killed', tmp_path/name/'whole')


# Other options than those of the first start

RECIPE = small_run.small(recipes.RECIPES['layernorm-fast'], ema=0.9)


class PowerCut(small_run.SmallNet):
    "Stops at its sixth training step."
    def forward(self, x):
        if self.training and self.steps == 5: raise KeyboardInterrupt
        return super().forward(x)


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    "A run folder with the checkpoint of a run that stopped in its second epoch."
    folder = tmp_path_factory.mktemp('stopped')
    start(folder/'run', net=PowerCut)
    assert list(content(folder/'run')) == ['checkpoint.safetensors']
    return folder/'run'


def start(run, recipe=RECIPE, data=None, net=small_run.SmallNet, **options):
    "Train until the power cut, if there is one."
    run.mkdir(exist_ok=True)
    recipes.MODELS.update(small=net, other=lambda: small_run.SmallNet(plain=True))
    options = dict(device='cpu', precision='float32', minutes=0, progress=False) | options
    try: recipes.run_recipe(recipe, run, data or small_run.small_data(), **options)
    except KeyboardInterrupt: pass


CHANGES = {
    'model': ('small', 'other'), 'pipeline': ('fast', 'none'), 'optimizer': ('muon', 'sgd'), 'lr': (0.02, 0.05),
    'schedule': ('triangular', 'constant'), 'epochs': (3, 5), 'batch_size': (16, 8), 'weight_decay': (0.0, 0.1),
    'spare_norms': (False, True), 'momentum': (0.9, 0.5), 'schedule_options': ({'warmup': 0.15}, {'warmup': 0.3}),
    'label_smoothing': (0.1, 0.2), 'ema': (0.9, 0.5), 'valid': (5000, 10_000), 'watched': (None, 10), 'images': (None, 50),
    'sizes': (RECIPE.sizes, ((1.0, 16),))}  # field -> its value at the first start, another one


@pytest.mark.parametrize('field', [f.name for f in fields(recipes.Recipe) if f.name not in ('published', 'note')])
def test_a_recipe_with_another_field_is_refused_before_anything_is_touched(field, stopped):
    if field == 'name': changed, words = replace(RECIPE, name='other'), "recipe 'layernorm-fast', now 'other'"
    else:
        first, other = CHANGES[field]  # KeyError: say here what a change of the new field is
        assert getattr(RECIPE, field) == first
        changed = replace(RECIPE, **{field: other}, **({'schedule_options': {}} if field == 'schedule' else {}))
        words = f'{field} {plain(first)}, now {plain(other)}' if field != 'schedule_options' else 'schedule_options.warmup 0.15, now 0.3'
    refused(stopped, words, recipe=changed)


def plain(value):
    "A value as it stands in a checkpoint: with lists in place of tuples."
    return repr([list(v) for v in value] if isinstance(value, tuple) else value)


@pytest.mark.parametrize('options, words', [
    (dict(seed=7), 'seed 42, now 7'), (dict(precision='bfloat16'), "precision 'float32', now 'bfloat16'"),
    (dict(data=small_run.small_data(train=50)), "train_data '58 images, "), (dict(data='a pixel'), "train_data '58 images, "),
    (dict(data='a label'), "valid_data '20 images, ")], ids=['seed', 'precision', 'images', 'a pixel', 'a label'])
def test_a_run_with_other_options_or_images_is_refused_before_anything_is_touched(options, words, stopped):
    if isinstance(what := options.get('data'), str):
        options = dict(data=small_run.small_data())
        if what == 'a pixel':
            x, y = options['data']['train']
            options['data']['train'] = (x := x.copy(), y)
            x[3, 5, 7, 1] ^= 1
        else:
            x, y = options['data']['valid']
            options['data']['valid'] = (x, (y + 1) % 10)
    refused(stopped, words, **options)


def refused(run, words, **options):
    "Raise unless the start is refused with `words` and what to do, and the folder is as it was."
    before = content(run)
    with pytest.raises(ValueError, match='belongs to a run with other options') as caught: start(run, **options)
    assert words in str(caught.value), caught.value
    assert str(caught.value).endswith('Give the first ones again to go on, or start a new run: another folder or another name with --run')
    assert content(run) == before


def test_after_all_refusals_the_same_options_go_on(stopped, tmp_path):
    start(stopped)
    start(tmp_path/'whole')
    same_run(stopped, tmp_path/'whole')


def test_a_learning_rate_that_failed_is_given_up_with_another_name(tmp_path):
    "The advice after a loss that is no number leads to a way that works."
    class Fails(small_run.SmallNet):
        def forward(self, x): return super().forward(x)*(float('nan') if self.training and self.steps > 5 else 1.0)
    with pytest.raises(FloatingPointError, match='keeps its learning rate.*another name with --run') as caught:
        start(new_run('first', tmp_path), net=Fails)
    assert 'epoch 2, step 2' in str(caught.value)
    kept = content(tmp_path/'first')
    assert list(kept) == ['checkpoint.safetensors']
    slower = replace(RECIPE, lr=0.001)
    refused(tmp_path/'first', 'lr 0.02, now 0.001', recipe=slower)
    start(new_run('second', tmp_path), slower)
    assert read_run(tmp_path/'second').card['recipe']['lr'] == 0.001


def test_a_finished_run_is_left_alone(tmp_path):
    start(tmp_path/'run')
    before = content(tmp_path/'run')
    with pytest.raises(ValueError, match='is finished already'): start(tmp_path/'run')
    assert content(tmp_path/'run') == before


# Two processes in one folder

def test_a_lock_ends_with_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_run(tmp_path): 1/0  # noqa: B018
    with hold_run(tmp_path): assert sorted(content(tmp_path)) == ['.training.lock', '.training.txt']
    assert content(tmp_path) == {}


# Several processes

@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "A folder with the run of one process and that of two, and what was printed."
    folder = tmp_path_factory.mktemp('many')
    done = subprocess.run([sys.executable, script, 'many', str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout, done.stderr


def test_two_processes_train_as_one(many):
    folder, text, log = many
    assert '[0, 0, 0, 0]' in text, log[-3000:]
    one, two = read_run(folder/'one'), read_run(folder/'two')
    assert (one.card['processes'], two.card['processes']) == (1, 2)
    assert one.card['steps'] == two.card['steps'] == 20
    torch.testing.assert_close(two.weights, one.weights, rtol=0, atol=1e-5)


def test_a_second_training_in_the_same_folder_is_told_who_is_there(many):
    folder, text, _ = many
    told, last = text.splitlines()
    assert f'is in use by process {last.split()[0]} on ' in told and ' since 20' in told and 'another name with --run' in told
    assert sorted(p.name for p in folder.iterdir()) == ['one', 'two']


def test_torchrun_restarts_a_killed_worker_and_the_run_goes_on(tmp_path, many):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--max-restarts=2',
               '--monitor-interval=0.2', script, 'one', str(tmp_path/'healed'), '--die-at', '13']
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'exitcode: -9' in done.stderr  # the worker was killed, not merely stopped
    torch.testing.assert_close(read_run(tmp_path/'healed').weights, read_run(many[0]/'one').weights, rtol=0, atol=1e-5)


def test_the_number_of_processes_is_part_of_a_run_with_batch_statistics_or_dropout(stopped, tmp_path):
    identity = dict(load_tensors(small_checkpoint(tmp_path))[1]['state']['dict'])['identity']
    assert ['processes', 1] in identity['dict']
    identity = dict(load_tensors(small_checkpoint(tmp_path, plain=True))[1]['state']['dict'])['identity']
    assert 'processes' not in dict(identity['dict'])


def small_checkpoint(folder, plain=False):
    class Cut(PowerCut):
        def __init__(self): super().__init__(plain)
    start(folder/str(plain), net=Cut)
    return folder/str(plain)/'checkpoint.safetensors'
