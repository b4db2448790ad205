"The range test with loaders that use processes, and in a program that is killed by an error."
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cifar_cam.lr_finder import lr_range_test


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
