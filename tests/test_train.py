"Runs that are refused, locked out, damaged and gone on with; batches, schedules and curves. Those that are killed: test_killed.py."
import math
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import small_run
import torch
from small_run import ROTATED, content, same_run

from cifar_cam import checkpoints, epochs, optimizer, recipes, train
from cifar_cam.checkpoints import hold_run, read_checkpoint
from cifar_cam.core import new_run, read_run
from cifar_cam.data import load_sample, normalise
from cifar_cam.epochs import tensorboard_log
from cifar_cam.optimizer import make_optimizer
from cifar_cam.pixels import resize
from cifar_cam.train import Batches, evaluate, fit, live_curve, make_schedule, minutes_to, plain_pipeline, predict_images, schedule_rates

script = str(Path(__file__).parent/'small_run.py')


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
    assert sorted(content(folder/'run')) == ['checkpoint.previous.safetensors', 'checkpoint.safetensors']
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
    'decay_norms': (True, False), 'momentum': (0.9, 0.5), 'schedule_options': ({'warmup': 0.15}, {'warmup': 0.3}),
    'label_smoothing': (0.1, 0.2), 'ema': (0.9, 0.5), 'valid': (5000, 10_000), 'watched': (None, 10), 'images': (None, 50),
    'sizes': (RECIPE.sizes, ((1.0, 16),)), 'loader': ('batched', 'albumentations')}  # field -> its value at the first start, another one


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
    assert 'epoch 2, step 2, learning rate' in str(caught.value)
    kept = read_checkpoint(tmp_path/'first'/'checkpoint.safetensors')
    assert (kept['epoch'], kept['step']) == (1, 1)
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

def test_the_number_of_processes_is_part_of_a_run_with_batch_statistics_or_dropout(tmp_path):
    assert small_checkpoint(tmp_path)['identity']['processes'] == 1
    assert 'processes' not in small_checkpoint(tmp_path, plain=True)['identity']


def small_checkpoint(folder, plain=False):
    class Cut(PowerCut):
        def __init__(self): super().__init__(plain)
    start(folder/str(plain), net=Cut)
    return read_checkpoint(folder/str(plain)/'checkpoint.safetensors')


# Damage

def test_a_flipped_bit_in_the_newest_checkpoint_is_noticed_and_the_previous_one_taken(tmp_path):
    start(tmp_path/'run', net=PowerCut)
    start(tmp_path/'whole')
    newest, previous = (tmp_path/'run'/name for name in ROTATED)
    flip(newest)
    with pytest.warns(UserWarning, match='has changed since.*checkpoint.previous.safetensors, written before it, is taken'): start(tmp_path/'run')
    same_run(tmp_path/'run', tmp_path/'whole')
    start(tmp_path/'two', net=PowerCut)
    for path in (tmp_path/'two'/name for name in ROTATED): flip(path)
    with pytest.raises(ValueError, match='checkpoint.previous.safetensors is none') as caught, pytest.warns(UserWarning): start(tmp_path/'two')
    assert '\n' not in str(caught.value)


def test_a_damaged_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path):
    class NextCut(small_run.SmallNet):
        "Stops at its second training step: one more checkpoint is written."
        def forward(self, x):
            if self.training and self.steps == 1: raise KeyboardInterrupt
            return super().forward(x)
    start(tmp_path/'run', net=PowerCut)
    for net in (NextCut, NextCut, small_run.SmallNet):
        flip(tmp_path/'run'/ROTATED[0])
        with pytest.warns(UserWarning, match='is taken'): start(tmp_path/'run', net=net)
    start(tmp_path/'whole')
    same_run(tmp_path/'run', tmp_path/'whole')


def flip(path):
    "Change one bit of the last tensor in a file."
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)


def test_another_version_of_torch_is_told_and_stands_on_the_card(tmp_path, monkeypatch):
    start(tmp_path/'run', net=PowerCut)
    run_card = checkpoints.run_card
    monkeypatch.setattr(checkpoints, 'run_card', lambda *args, **facts: run_card(*args, **facts) | {'torch': '99.1'})
    with pytest.warns(UserWarning, match='goes on with torch 99.1'): start(tmp_path/'run')
    assert [facts['torch'] for facts in read_run(tmp_path/'run').card['earlier']] == [torch.__version__]


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    "The step that spoils the weights has a finite loss itself."
    class Spoils(small_run.SmallNet):
        def forward(self, x):
            out = super().forward(x)
            if self.training and self.steps == 4:
                self[4].weight.data[0] = math.inf  # behind autograd's back
            return out
    with pytest.raises(FloatingPointError, match='weight has numbers that are not finite at epoch 1, step 4.*smaller lr'):
        start(tmp_path/'run', net=Spoils)
    assert read_checkpoint(tmp_path/'run'/'checkpoint.safetensors')['step'] == 3


# Options that cannot be

images, labels = (part[:24] for part in load_sample('train'))
net = small_run.SmallNet(plain=True)


def tiny(valid=(images[:4], labels[:4]), batch_size=12, epochs=1, lr=0.01, name='adam', schedule='constant', frozen=False, plan=None, **options):
    "One short call of everything."
    model = small_run.SmallNet(plain=True).requires_grad_(not frozen)
    batches = Batches(images, labels, batch_size)
    opt = make_optimizer(model, name, lr, **{k: options.pop(k) for k in ('momentum', 'weight_decay') if k in options})
    return fit(model, batches, valid, opt, epochs, make_schedule(schedule, opt, epochs, len(batches), **plan or {}), progress=False,
               **dict(precision='float32') | options)


@pytest.mark.parametrize('options, words', [
    (dict(lr=math.inf), 'lr must be a finite number, above 0; got inf'), (dict(lr=-1), 'got -1'), (dict(lr=math.nan), 'got nan'),
    (dict(name='sgd', momentum=2), 'momentum must be a finite number, at least 0 and below 1; got 2'), (dict(weight_decay=-1), 'weight_decay must'),
    (dict(frozen=True), 'got none that is not frozen'), (dict(name='lion'), "optimizer must be one of .*got 'lion'"),
    (dict(batch_size=0), 'batch_size must be a whole number, at least 1; got 0'), (dict(batch_size=2.5), 'got 2.5'),
    (dict(epochs=0), 'epochs must be a whole number'), (dict(epochs='3'), "got '3'"), (dict(precision='int8'), "precision must .*got 'int8'"),
    (dict(schedule='step'), "schedule must be one of .*got 'step'"), (dict(schedule='triangular', plan=dict(warmup=2)), 'warmup must .*below 1; got 2'),
    (dict(schedule='triangular', plan=dict(warm_up=0.1)), "must be one of warmup; got 'warm_up'"),
    (dict(plan=dict(warmup=0.1)), r'of constant must be one of \(none\)'), (dict(schedule='plateau', plan=dict(factor=2)), 'factor must'),
    (dict(schedule='plateau', plan=dict(patience=-1)), 'patience must'), (dict(schedule='onecycle', plan=dict(pct_start=1.5)), 'pct_start must'),
    (dict(schedule='onecycle', plan=dict(div_factor=0)), 'div_factor must'), (dict(schedule='onecycle', plan=dict(anneal_strategy='x')), "got 'x'"),
    (dict(schedule='cosine', plan=dict(span=0)), 'span must be a finite number'), (dict(schedule='piecewise'), 'points must be two or more'),
    (dict(ema=1.0), 'ema must be a finite number, at least 0 and below 1'), (dict(label_smoothing=-0.1), 'label_smoothing must'),
    (dict(sizes=[16, 16]), r'one width per epoch, 1; got \[16, 16\]'), (dict(sizes=[0]), 'sizes must be a whole number, at least 1; got 0'),
    (dict(sizes=16), 'one width per epoch, 1; got 16'), (dict(minutes=math.nan), 'minutes must'), (dict(valid=images[:4]), 'valid must be a pair'),
    (dict(valid=(images[:0], labels[:0])), 'valid must hold images to look at'), (dict(valid=(images[:2], labels[:3])), r'shape \(2,\)'),
    (dict(valid=(images[:2], np.array([3, 10]))), 'from 0 to 9; got 3 to 10')])
def test_an_option_that_cannot_be_is_refused_with_the_next_step(options, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught: tiny(**options)
    assert caught.traceback[-1].path.is_relative_to(Path(train.__file__).parent), 'the error is our own'


@pytest.mark.parametrize('call, words', [
    (lambda: Batches(images, labels[:5], 8), r'shape \(24,\); got int64 \(5,\)'), (lambda: Batches(images, labels + 1, 8), 'from 0 to 9; got . to 10'),
    (lambda: Batches(images[:0], labels[:0], 8), 'with N > 0'), (lambda: Batches(images, labels, 1, world=2), 'at least 2; got 1. Try 128'),
    (lambda: Batches(images, labels, 8, seed=-1), 'seed must'), (lambda: Batches(images, labels, 8, 'crop'), "got 'crop'"),
    (lambda: evaluate(net, images, labels[:3]), r'shape \(24,\); got int64 \(3,\)'), (lambda: evaluate(net, images, labels + 5), 'from 0 to 9; got'),
    (lambda: evaluate(net, images[:0], labels[:0]), 'images must have shape'),
    (lambda: evaluate(net, images, labels, batch_size=0), 'batch_size must be a whole number'), (lambda: predict_images(net, images[:0]), 'N > 0'),
    *[(partial(schedule_rates, 'piecewise', points=points), 'points must be two or more pairs') for points in (
        None, [], [(0, 1)], [(1, 0), (2, 1)], [(0, 1), (0, 0)], [(0, -1), (2, 1)], [(0, 1), (2, math.nan)], [(0, 1), 2], 'ab')]])
def test_odd_images_labels_and_points_are_refused(call, words):
    with pytest.raises(ValueError, match=words): call()


# The parts of the loop

def test_schedules_have_the_rates_of_their_formulas():
    triangle = schedule_rates('triangular', lr=0.4, epochs=10, steps=10, warmup=0.2)
    assert np.argmax(triangle) in (19, 20)
    np.testing.assert_allclose([triangle[0], triangle[-1]], [0.4*0.5/20, 0.4*0.5/80])
    np.testing.assert_allclose(schedule_rates('piecewise', 0.4, 10, 10, points=[(0, 0), (2, 1), (10, 0)]), triangle)
    falling = [2.0, 1.6, 1.3, 1.2] + [1.2]*8
    np.testing.assert_allclose(sorted(set(np.round(schedule_rates('plateau', losses=falling), 6))), [0.01, 0.1])
    half = 2**-0.5
    np.testing.assert_allclose(schedule_rates('cosine', epochs=4, steps=1), [0.1, 0.1*(1 + half)/2, 0.05, 0.1*(1 - half)/2])
    bend = schedule_rates('piecewise', lr=1.0, epochs=4, steps=1, points=[(0, 0.2), (2, 1), (6, 0.5), (8, 0)])
    np.testing.assert_allclose(bend, [0.6, 1 - 0.5/4, 1 - 3*0.5/4, 0.25])  # at epochs 1, 3, 5, 7 of 8
    assert set(schedule_rates('constant', lr=0.3)) == {0.3}


def test_prediction_is_that_of_the_network_by_hand_and_leaves_it_as_found():
    dropping = small_run.SmallNet().train()
    expected = dropping.eval()(normalise(images))
    dropping.train()[3].eval()
    torch.testing.assert_close(predict_images(dropping, images, batch_size=7, precision='float32'), expected, rtol=1e-5, atol=1e-5)
    assert dropping.training and not dropping[3].training
    both = partial(predict_images, net, precision='float32', flip=True)
    torch.testing.assert_close(both(images[:, :, ::-1].copy()), both(images))
    even = torch.full((1, 3, 32, 32), 2.)
    torch.testing.assert_close(resize(even, 20), even[..., :20, :20])
    assert resize(even, None) is even
    torch.testing.assert_close(plain_pipeline('crop-flip')(torch.tensor(images)), normalise(images))


def test_the_average_of_the_weights_is_what_is_evaluated_and_returned():
    model = small_run.SmallNet(plain=True)
    rows = fit(model, Batches(images, labels, 12), (images, labels), make_optimizer(model, 'adam', 0.01), 2, ema=0.9, sizes=[16, 32],
               precision='float32', progress=False)
    assert rows['size'].tolist() == [16, 32]
    np.testing.assert_allclose(evaluate(model, images, labels, precision='float32')['loss'], rows.valid_loss.iloc[-1], rtol=1e-6)


history = pd.DataFrame(dict(epoch=[1, 2, 3], train_loss=[2., 1, 1], valid_loss=[2., 1, 1], train_accuracy=[.1, .5, .6],
                            valid_accuracy=[0.5, 0.8, 0.7], lr=0.1, size=32, seconds=1.0, step_seconds=[0.6, 1.2, 1.2]))


def test_minutes_to_an_accuracy():
    assert minutes_to(history, 0.6, 100) == 3.0 and math.isnan(minutes_to(history, 0.9, 100))


def test_the_live_curve_is_one_figure_that_changes(monkeypatch):
    shown, open_before = [], plt.get_fignums()
    class Handle:
        def update(self, figure): shown.append(('again', figure))
    monkeypatch.setattr(IPython.display, 'display', lambda figure, display_id: shown.append(('first', figure)) or Handle())
    follow = live_curve()
    for rows in (1, 2, 3): follow(history.iloc[:rows])
    assert [how for how, _ in shown] == ['first', 'again', 'again'] and plt.get_fignums() == open_before
    assert [len(figure.axes[0].lines[0].get_xdata()) for _, figure in shown] == [1, 2, 3]


@pytest.mark.skipif(find_spec('tensorboard') is None, reason='TensorBoard is not installed')
def test_tensorboard_finds_the_last_loss(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    log = tensorboard_log(tmp_path/'board')
    assert not (tmp_path/'board').exists()
    log(history)
    event = EventAccumulator(str(tmp_path/'board')).Reload().Scalars('valid_loss')[-1]
    assert event.step == 3 and event.value == pytest.approx(1.0)


@pytest.mark.parametrize('name', ['POLAR_ROUNDS', 'OPTIMIZERS', 'SCHEDULES', 'orthogonalise', 'Muon', 'make_optimizer', 'make_average', 'tensorboard_log',
                                  'take_tensors', 'put_tensors', 'join_processes', 'load_checkpoint', 'predict'])
def test_old_names_are_found_with_a_warning(name):
    home, new = train.MOVED[name].split(':')
    with pytest.warns(DeprecationWarning, match=f'cifar_cam.train.{name} is now cifar_cam.{home}.{new}'): found = getattr(train, name)
    assert found is getattr(dict(optimizer=optimizer, checkpoints=checkpoints, train=train, epochs=epochs)[home], new)


def test_names_of_version_0_1_that_stayed():
    for name in ('pick_precision', 'resize', 'State', 'save_checkpoint', 'train_epoch', 'finish_epoch'):
        assert name in vars(train)
