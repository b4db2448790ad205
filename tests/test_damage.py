"""Damaged files, a dozen of each kind: noticed in one line that names the file, or harmless by construction.

Each damage is drawn from a seed, which is printed: a flipped bit, a lost end, a block of zeros, a changed digit, or another file
of the same kind in its place. Noticed means an error of the reader; harmless means that what is read is what was written.
"""
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifar_cam import core, download, train
from cifar_cam.core import finish_run, load_tensors, new_run, package_file, read_run, save_tensors
from cifar_cam.metrics import table_from_logits
from cifar_cam.report import keep_predictions, kept_predictions

root = Path(__file__).resolve().parent.parent
SEEDS = range(12)
history = pd.DataFrame({'epoch': [1, 2], 'train_loss': [2.125, 1.75], 'valid_loss': [2.0, 1.875], 'lr': [0.1, 0.05], 'seconds': [31.2, 30.9]})


def flip(content, chance, other):
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1:]


def cut(content, chance, other): return content[:chance.randrange(len(content))]


def blank(content, chance, other):
    place, size = chance.randrange(len(content)), chance.randrange(1, 64)
    return content[:place] + bytes(len(content[place:place + size])) + content[place + size:]


def digit(content, chance, other):
    places = [i for i, byte in enumerate(content[-4096:], max(0, len(content) - 4096)) if 48 <= byte < 58]
    place = chance.choice(places) if places else chance.randrange(len(content))
    return content[:place] + bytes([48 + (content[place] - 47) % 10]) + content[place + 1:]


def swap(content, chance, other): return other


DAMAGES = (flip, flip, flip, cut, blank, digit, swap)


def tensors(seed): return {'w': torch.randn(40, 5, generator=torch.Generator().manual_seed(seed)), 'n': torch.tensor(seed)}


def some_run(folder, name):
    run = finish_run(new_run(name, folder), tensors(len(name)), history*len(name), {'seed': 42, 'test_accuracy': len(name)/16, 'note': 'ten words'})
    return run, lambda: read_run(run)


def run_file(name):
    def make(folder):
        (run, read), (other, _) = some_run(folder, 'one'), some_run(folder, 'another')
        return run/name, other/name, lambda: (read().weights, read().history.values.tolist(), read().card)
    return make


def tensor_file(folder):
    for name in 'ab': save_tensors(folder/f'{name}.safetensors', tensors(ord(name)), {'seed': 1})
    return folder/'a.safetensors', None, lambda: load_tensors(folder/'a.safetensors')


def checkpoint(folder):
    def state(seed):
        torch.manual_seed(seed)
        model = nn.Linear(6, 4)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        return train.State(model, optimizer, train.make_schedule('constant', optimizer, 2, 2), torch.amp.GradScaler('cpu', enabled=False))
    def read():
        found = train.load_checkpoint(folder/'c.safetensors', state(1))
        return found.model.state_dict(), [v['exp_avg'] for v in found.optimizer.state.values()], found.epoch
    train.save_checkpoint(folder/'c.safetensors', state(0))
    return folder/'c.safetensors', None, read


def package(name, other):
    def make(folder):
        copy = folder/'cifar_cam'
        for path in (name, other, 'data_hashes.json'):
            (copy/path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root/'cifar_cam'/path, copy/path)
        core.package_folder = lambda: copy
        return copy/name, copy/other, lambda: package_file(name).read_bytes().replace(b'\r\n', b'\n')
    return make


def cached(folder):
    images, labels = np.random.default_rng(0).integers(256, size=(120, 32, 32, 3), dtype=np.uint8), np.arange(120) % 10
    for i, name in enumerate(download.CHECKSUMS):
        rows = download.to_binary(images[i*20:(i + 1)*20], labels[i*20:(i + 1)*20])
        (folder/f'{name}.bin').write_bytes(rows)
        download.CHECKSUMS[name] = download.hashlib.md5(rows).hexdigest()
    download.fetch_cifar10(folder/'cache', source=folder, progress=False)
    place = folder/'cache'/'cifar10'
    def read():
        download._CHECKED.clear()
        if not download.is_fetched(folder/'cache'): raise ValueError(f'{place/"train_images.npy"}: fetched again')
        return [array.tolist() for array in download.cached_arrays('train', folder/'cache')]
    return place/'train_images.npy', place/'test_images.npy', read


def predictions(name):
    def make(folder):
        labels, runs, models = np.arange(30) % 10, [], [nn.Linear(2, 2), nn.Linear(2, 2)]
        for n in (0, 1):
            logits = torch.randn(30, 10, generator=torch.Generator().manual_seed(n))
            runs.append(new_run(f'run{n}', folder))
            keep_predictions(runs[-1], table_from_logits(logits, labels), logits, models[n])
        def read():
            table, logits = kept_predictions(runs[0], models[0])
            return table.values.tolist(), logits
        return runs[0]/name, runs[1]/name, read
    return make


KINDS = {
    'weights of a run': run_file('weights.safetensors'), 'history': run_file('history.csv'), 'run card': run_file('run.json'),
    'tensors': tensor_file, 'checkpoint': checkpoint, 'cached arrays': cached,
    'sample pictures': package('sample/test.png', 'sample/train.png'), 'sample indices': package('sample/sample.json', 'data_hashes.json'),
    'doubtful labels': package('sample/cifar10_test_doubtful_labels.csv', 'sample/sample.json'),
    'embedded weights': package('weights/resnet18_layernorm.safetensors', 'sample/test.png'),
    'list of hashes': package('data_hashes.json', 'sample/sample.json'),
    'logits of predictions': predictions('predictions.safetensors'),
    'table of predictions': predictions('predictions.csv')}


def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize('kind', KINDS)
def test_damage_is_noticed_or_harmless(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(core, 'package_folder', core.package_folder) # put back at the end
    monkeypatch.setattr(download, 'CHECKSUMS', dict(download.CHECKSUMS))
    if kind == 'list of hashes':
        path, other, _ = KINDS[kind](tmp_path)
        shutil.copytree(root/'cifar_cam'/'sample', path.parent/'sample', dirs_exist_ok=True)
        read = lambda: package_file('sample/test.png').read_bytes()
    else: path, other, read = KINDS[kind](tmp_path)
    content, wanted = path.read_bytes(), read()
    noticed, harmless, missed = 0, 0, []
    for seed in SEEDS:
        chance = random.Random(f'{kind} {seed}')
        damage = DAMAGES[seed % len(DAMAGES)]
        if damage is swap and other is None: damage = flip
        damaged = damage(content, chance, other.read_bytes() if other else b'')
        path.write_bytes(damaged)
        print(f'{kind}: seed {seed}, {damage.__name__}')
        try: found = read()
        except (ValueError, OSError) as error:
            named = 'package' if kind == 'list of hashes' else 'model must be' if damage is swap and kind == 'logits of predictions' else path.name
            assert named in str(error) and '\n' not in str(error), error
            noticed += 1
        else:
            if same(found, wanted): harmless += 1
            else: missed.append(seed)
    print(f'{kind}: {noticed} noticed, {harmless} harmless of {len(SEEDS)}')
    assert not missed, f'unnoticed: seeds {missed}'
    assert noticed + harmless == len(SEEDS) and noticed >= 6


def test_a_hundred_and_more(): assert len(KINDS)*len(SEEDS) > 100


def test_each_single_bit_of_a_file_of_tensors_counts(tmp_path):
    "Also those of the name under which the hash is kept: without it nothing would be compared."
    path = save_tensors(tmp_path/'small.safetensors', {'a': torch.arange(3.)}, {'state': 'x'})
    content, unnoticed = path.read_bytes(), []
    for bit in range(8*len(content)):
        path.write_bytes(content[:bit//8] + bytes([content[bit//8] ^ 1 << bit % 8]) + content[bit//8 + 1:])
        try: load_tensors(path)
        except ValueError: continue
        unnoticed.append(bit)
    assert not unnoticed


def test_each_single_bit_of_a_run_card_counts(tmp_path):
    run = new_run('bits', tmp_path)
    finish_run(run, {'w': torch.zeros(2)}, history, {'seed': 1, 'test_accuracy': .5})
    path, card, unnoticed = run/'run.json', core.read_card(run), []
    content = path.read_bytes()
    for bit in range(8*len(content)):
        path.write_bytes(content[:bit//8] + bytes([content[bit//8] ^ 1 << bit % 8]) + content[bit//8 + 1:])
        try: found = core.read_card(run)
        except ValueError: continue
        if found != card: unnoticed.append((bit, path.read_text()[max(0, bit//8 - 9):bit//8 + 9]))
    assert not unnoticed
