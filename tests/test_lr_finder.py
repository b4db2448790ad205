"The range test at its edges: loaders of every kind, trouble in the middle, wrong input, and the rules that read its curve."
import math
import random
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch_lr_finder import LRFinder

from cifar_cam import lr_finder
from cifar_cam.core import preserve_random_state
from cifar_cam.lr_finder import find_valley, lr_range_test, plot_range_test, smooth, suggest_rates
from cifar_cam.range_test import is_over, preserve_order, preserve_training

ce = nn.CrossEntropyLoss()


class Noisy(Dataset):
    "Items that depend on the random state of the process that makes them, like augmentations."
    def __len__(self): return 24
    def __getitem__(self, i): return torch.full((4,), float(i)) + torch.rand(4), i % 3


def run(loader, with_test):
    "Two epochs of batches, with or without a range test between them."
    torch.manual_seed(3)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    seen = [x for x, _ in loader]
    if with_test: lr_range_test(model, optimizer, nn.CrossEntropyLoss(), loader, steps=10)
    return torch.cat([*seen, *(x for x, _ in loader)])


@pytest.mark.parametrize('options', [
    dict(num_workers=2),
    dict(num_workers=2, generator=True),
    dict(num_workers=0, generator=True),
], ids=['workers', 'workers and own generator', 'own generator'])
def test_batches_after_a_range_test_are_those_of_a_run_without_one(options):
    def loader():
        own = dict(options)
        if own.pop('generator', False): own['generator'] = torch.Generator().manual_seed(1)
        return DataLoader(Noisy(), 6, shuffle=True, **own)
    torch.testing.assert_close(run(loader(), True), run(loader(), False), rtol=0, atol=0)


def test_an_error_inside_the_data_leaves_weights_and_order_alone():
    class Failing(Noisy):
        def __getitem__(self, i):
            if self.fail: raise OSError('disk gone')
            return super().__getitem__(i)
    data = Failing()
    data.fail = True
    loader, model = DataLoader(data, 6, shuffle=True), nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), .1, momentum=.9)
    before, random = model.weight.detach().clone(), torch.get_rng_state()
    with pytest.raises(OSError, match='disk gone'):
        lr_range_test(model, optimizer, nn.CrossEntropyLoss(), loader, steps=10)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not optimizer.state and optimizer.param_groups[0]['lr'] == .1


def test_a_scheduler_goes_on_after_a_range_test():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), .1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, .5)
    group = optimizer.param_groups[0]
    lr_range_test(model, optimizer, nn.CrossEntropyLoss(), DataLoader(Noisy(), 6), steps=10)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0] is group and group['lr'] == pytest.approx(.05)


def test_it_says_nothing_and_shows_no_bar_where_nobody_looks(capfd):
    model = nn.Linear(4, 3)
    lr_range_test(model, torch.optim.SGD(model.parameters(), .1), nn.CrossEntropyLoss(), DataLoader(Noisy(), 6), steps=10)
    out, err = capfd.readouterr()
    assert out == '' and err == ''


# everything is put back

X, Y = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 10
VALID = [(X[:20], Y[:20])]


def fingerprint(model, optimizer, loader):
    "All that decides how training goes on, as a flat list, with the labels of the next batch."
    with preserve_random_state(), preserve_order(loader): following = next(iter(loader))[1]
    modes, gradients = [m.training for m in model.modules()], [p.grad for p in model.parameters()]
    groups = [id(g) for g in optimizer.param_groups]
    generators = [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()]
    found = tree_leaves([model.state_dict(), gradients, modes, optimizer.state_dict(), sorted(vars(optimizer)), groups, generators, following])
    return [v.clone() if isinstance(v, torch.Tensor) else v for v in found]


def in_the_middle():
    "A model in the middle of training: Adam, a scheduler, BatchNorm, gradients, one frozen layer and mixed modes."
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    loader = DataLoader(TensorDataset(X, Y), 10, shuffle=True)
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _, (xb, yb) in zip(range(3), loader, strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(xb), yb).backward()
        optimizer.step()
        schedule.step()
    model[4].eval()
    return model, optimizer, loader


def failing_loss(calls, error):
    "A loss that fails at one of its calls: raises an error, or is multiplied with a number."
    count = iter(range(1000))
    def loss(out, y):
        if next(count) != calls: return ce(out, y)
        if isinstance(error, (Exception, KeyboardInterrupt)): raise error
        return ce(out, y)*error
    return loss


class Broken(nn.Module):
    "Fails in evaluation mode, that is during validation."
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if not self.training: raise RuntimeError('broken in eval')
        return self.inner(x)


def raising(kind, reason, loss=ce, batches=None, valid=None, wrap=lambda m: m):
    def run(m, o, dl):
        with pytest.raises(kind, match=reason): lr_range_test(wrap(m), o, loss, batches or dl, valid, steps=20)
    return run


def ends_at_a_nan(m, o, dl): assert len(lr_range_test(m, o, failing_loss(7, math.nan), dl, steps=20)) == 7


@pytest.mark.parametrize('run', [
    lambda m, o, dl: lr_range_test(m, o, ce, dl, VALID, steps=10),
    lambda m, o, dl: torch.no_grad()(lr_range_test)(m, o, ce, dl, VALID, steps=10, dtype=torch.bfloat16),
    ends_at_a_nan,
    raising(RuntimeError, 'out of memory', failing_loss(7, RuntimeError('out of memory'))),
    raising(KeyboardInterrupt, '', failing_loss(7, KeyboardInterrupt())),
    raising(ValueError, 'Try start=1e-08', failing_loss(0, math.nan)),
    raising(TypeError, 'must give pairs', batches=[(X[:10], Y[:10]), 'oops']),
    raising(RuntimeError, 'broken in eval', valid=VALID, wrap=Broken),
    raising(ValueError, 'valid must hold', valid=[])],
    ids=['plain', 'under no_grad', 'NaN', 'error', 'stop button', 'NaN at once', 'bad data', 'bad validation', 'no validation images'])
def test_everything_is_as_before(run):
    model, optimizer, loader = in_the_middle()
    before = fingerprint(model, optimizer, loader)
    run(model, optimizer, loader)
    after = fingerprint(model, optimizer, loader)
    assert len(before) == len(after) > 700
    for a, b in zip(before, after, strict=True):
        if isinstance(a, torch.Tensor): assert_close(a, b, rtol=0, atol=0)
        else: assert a == b


class Counting:
    "Batches that depend on how often they were read."
    def __init__(self): self.epoch, self.generator = 0, np.random.default_rng(1)
    def __iter__(self):
        self.epoch += 1
        yield self.epoch, int(self.generator.integers(1000))


def test_the_order_of_batches_is_kept():
    counting, own = Counting(), DataLoader(range(100), 5, shuffle=True, generator=torch.Generator().manual_seed(1))
    firsts = lambda: (next(iter(counting)), next(iter(own)).tolist())
    with preserve_order(counting), preserve_order(own): inside = firsts()
    assert firsts() == inside
    assert firsts() != inside, 'without the frame it goes on'


# what is refused, and when a test ends

@pytest.mark.parametrize('options, reason', [
    (dict(batches=iter([])), 'batches must be readable more than once'), (dict(valid=iter(VALID)), 'valid must be readable more than once'),
    (dict(batches=5), 'batches must be an iterable of'), (dict(batches=[]), 'batches must hold at least one batch'),
    (dict(start=1, end=.1), '0 < start < end; got 1 and 0.1'), (dict(start=0), 'start and end'), (dict(start=-1), 'start and end'),
    (dict(end=math.inf), 'start and end'), (dict(start=1, end=1), 'start and end'),
    *((dict(steps=bad), 'steps must be a whole number, at least 10') for bad in (5, 10.0, True, '20'))])
def test_wrong_input_gets_an_answer(options, reason):
    model = nn.Linear(4, 3)
    given = dict(batches=[(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))]) | options
    with pytest.raises((ValueError, TypeError), match=reason):
        lr_range_test(model, torch.optim.Adam(model.parameters()), ce, given.pop('batches'), **given)


def test_groups_keep_the_ratio_of_their_rates():
    model, seen = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), []
    optimizer = torch.optim.SGD([dict(params=model[0].parameters(), lr=.2), dict(params=model[1].parameters(), lr=.05)], .1)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append([g['lr'] for g in o.param_groups]))
    lr_range_test(model, optimizer, ce, DataLoader(Noisy(), 6), steps=10, end=.1)
    assert_close([a/b for a, b in seen], [4.]*10)


def test_any_model_and_loss_and_the_end_of_a_test():
    line, points = nn.Linear(1, 1), [(torch.arange(8.)[:, None], 3*torch.arange(8.)[:, None])]
    sgd = torch.optim.SGD(line.parameters(), 1.)
    fitted = lr_range_test(line, sgd, nn.MSELoss(), points, steps=50)
    assert fitted['loss'].min() < fitted['loss'][0]/5 and len(fitted) < 50, 'stopped: it diverged'
    assert len(lr_range_test(line, sgd, lambda a, b: (a - b).abs().mean() - 100, points, steps=20)) == 20, 'no reason to stop'
    assert [is_over(v, [2.]*10, 4) for v in (7.9, 8.1, math.nan)] == [False, True, True]
    assert not is_over(99., [2.]*9, 4), 'not before step 11'


# reading the curve

def test_smoothing_keeps_levels_and_peaks():
    assert_close(smooth([5.]*20, 3), np.full(20, 5.))
    assert smooth([0, 0, 0, 1, 0, 0, 0], 2).argmax() == 3
    assert_close(smooth([0., 1, 0], 1)[1], 1/(1 + 2*np.exp(-.5)))
    with pytest.raises(ValueError, match='Drop the steps with NaN'): smooth([1., math.nan], 1)
    with pytest.raises(ValueError, match='width must be above 0'): smooth([1., 2], 0)


def naive_valley(values):
    "Length of the longest way down: try every choice of steps. Only for short lists."
    falls = lambda chosen: all(a > b for a, b in zip(chosen, chosen[1:], strict=False))
    return next(size for size in range(len(values), 0, -1) if any(map(falls, combinations(values, size))))


def test_no_way_down_is_longer_than_the_valley():
    assert find_valley([5, 5, 4, 6, 3, 2, 9]) == (1, 5)  # 5, 4, 3, 2; the 6 is a bump
    for seed in range(20):
        values = np.random.RandomState(seed).permutation(9)
        begin, last = find_valley(values)
        assert naive_valley(values[begin:last + 1]) == naive_valley(values)


def test_steepest_is_that_of_torch_lr_finder():
    import matplotlib.pyplot as plt
    steps = np.linspace(-5, 0, 101)
    loss = 2.3 - 1/(1 + np.exp(-3*(steps + 3))) + 5*(steps + 1).clip(0)  # steepest at 1e-3
    model = nn.Linear(1, 1)
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), .1), ce)
    finder.history, ax = {'lr': (10**steps).tolist(), 'loss': loss.tolist()}, plt.subplots()[1]
    _, theirs = finder.plot(skip_start=0, skip_end=0, ax=ax)
    plt.close()
    assert theirs == pytest.approx(1e-3)
    assert suggest_rates(pd.DataFrame({'rate': 10**steps, 'loss': loss}), .01)['steepest'] == pytest.approx(theirs)


def test_odd_tables():
    rising = pd.DataFrame({'rate': [1e-3, 1e-2, 1e-1], 'loss': [1., 2., 3.]})
    assert sorted(suggest_rates(rising)) == ['halfway', 'minimum', 'minimum / 10', 'steepest', 'valley']
    assert all(np.isfinite(list(suggest_rates(rising).values())))
    with pytest.raises(ValueError, match='rate and loss of at least 3 steps'): suggest_rates(rising[['rate']])
    with pytest.raises(ValueError, match='got 2 rows'): suggest_rates(rising[:2])
    assert '5 rules' in plot_range_test(rising).get_title()


def test_old_names_still_work_with_a_warning():
    for old, new in dict(kept_order=preserve_order, kept_training=preserve_training).items():
        with pytest.warns(DeprecationWarning, match=f'lr_finder.{old} is now'): assert getattr(lr_finder, old) is new
