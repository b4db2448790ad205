"""Opening all of CIFAR-10 and making tensors of it, against torchvision; and the time from files on disk to verified arrays.

Needs CIFAR-10 in the cache (cifar_cam_data). Ways are run in turn in one process; medians. torchvision reads pickles of the same images.
"""
import hashlib
import pickle
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from cifar_cam.core import run_card
from cifar_cam.data import MEAN, STD, load_cifar10, normalise
from cifar_cam.download import fetch_cifar10, to_binary, verify_cifar10

ROUNDS = 5


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def write_files(folder):
    "The official binary files, and pickles that torchvision reads, of the images in the cache."
    (folder/'py').mkdir()
    (folder/'bin').mkdir()
    sums = {}
    for split, names in (('train', [f'data_batch_{i}' for i in range(1, 6)]), ('test', ['test_batch'])):
        images, labels = load_cifar10(split)
        for i, name in enumerate(names):
            rows = to_binary(images[10000*i:10000*(i + 1)], labels[10000*i:10000*(i + 1)])
            (folder/'bin'/f'{name}.bin').write_bytes(rows)
            content = pickle.dumps(dict(labels=rows[:, 0].tolist(), data=np.ascontiguousarray(rows[:, 1:])))
            (folder/'py'/name).write_bytes(content)
            sums[name] = hashlib.md5(content).hexdigest()
    names = pickle.dumps(dict(label_names=['a']*10))
    (folder/'py'/'batches.meta').write_bytes(names)
    return type('OwnFiles', (CIFAR10,), dict(
        base_folder='py', train_list=[[k, v] for k, v in sums.items() if k != 'test_batch'], test_list=[['test_batch', sums['test_batch']]],
        meta=dict(filename='batches.meta', key='label_names', md5=hashlib.md5(names).hexdigest())))


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        theirs = write_files(folder)
        images = np.array(load_cifar10('test')[0][:2000])
        per_image, pictures = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]), list(images)
        ways = {
            ('open 50,000 images', 'torchvision'): lambda: theirs(folder),
            ('open 50,000 images', 'cifar_cam'): lambda: load_cifar10('train'),
            ('2,000 images to tensors', 'torchvision v2'): lambda: torch.stack([per_image(p) for p in pictures]),
            ('2,000 images to tensors', 'cifar_cam'): lambda: normalise(images),
            ('check 60,000 images, six checksums', 'cifar_cam'): verify_cifar10,
            ('official binary files to verified arrays', 'cifar_cam'): lambda: fetch_cifar10(tempfile.mkdtemp(dir=folder), folder/'bin', progress=False),
        }
        times = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items(): times[name].append(seconds(work)[0])
        torch.testing.assert_close(normalise(images), torch.stack([per_image(p) for p in pictures]))
        assert np.array_equal(theirs(folder).data, load_cifar10('train')[0])
    print(f'{run_card()["hardware"]}, 1 thread, torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}\n')
    print('| what | with | seconds (median of 5) | times as fast |\n|---|---|---|---|')
    slowest = {}
    for (what, who), values in times.items():
        median = statistics.median(values)
        ratio = f'{slowest[what]/median:,.0f}' if what in slowest else ''
        slowest.setdefault(what, median)
        print(f'| {what} | {who} | {median:.4f} | {ratio} |')


if __name__ == '__main__': main()
