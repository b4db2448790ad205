"""Builds the page on which the embedded network runs in the reader's browser: `make live`.

    python tools/make_live.py [FOLDER] [--weights 8|6|5]

FOLDER is nbs/live if none is named. The runtime comes from npm once and is kept in the cache
folder; its checksum in live/package-lock.json is checked at every build.

A lesson shows a part of the page in a frame, at an image of its choice (its official index):

    <iframe src="live/index.html?panel=1&image=1&class=ship" width="100%" height="860">
"""
import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from live_network import VARIANTS, export_network, export_parts, fingerprint, packed

from cifar_cam.data import CLASSES, MEAN, STD, load_sample
from cifar_cam.download import cache_folder
from cifar_cam.pretrained import pretrained_card
from cifar_cam.resnet import load_pretrained

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT/'live'
RUNTIME = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')  # of onnxruntime-web's dist/
PAGE = ('.html', '.css', '.js', '.svg', '.txt')  # what is copied from live/


def read_lock():
    "Name, version and sha512 of the runtime, as live/package-lock.json has them."
    wanted = json.loads((SOURCES/'package.json').read_text(encoding='utf-8'))['dependencies']
    lock = json.loads((SOURCES/'package-lock.json').read_text(encoding='utf-8'))['packages']
    (name, version), = wanted.items()
    entry = lock[f'node_modules/{name}']
    if entry['version'] != version:
        raise SystemExit(f'live/package.json asks for {name} {version}, package-lock.json has '
                         f"{entry['version']}. Run npm install --package-lock-only in live/")
    return name, version, entry['integrity']


def check_integrity(path, integrity):
    "Raise unless the sha512 of the file is the one that the lock names."
    got = 'sha512-' + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if got != integrity:
        raise ValueError(f'{path} is not what live/package-lock.json names: it has {got}, '
                         f'wanted {integrity}. Delete it and run make live again')


def fetch_runtime():
    "The checked archive of the runtime: from the cache, else through `npm pack`."
    name, version, integrity = read_lock()
    folder = cache_folder()/'npm'
    archive = folder/f'{name}-{version}.tgz'
    if not archive.is_file():
        if not (npm := shutil.which('npm')):
            raise SystemExit('npm is not on the PATH. Install Node.js, then run make live again')
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            print(f'fetching {name} {version} with npm (33 MB, once)', flush=True)
            command = [npm, 'pack', f'{name}@{version}', '--ignore-scripts', '--loglevel', 'error']
            done = subprocess.run(command, cwd=work, capture_output=True, text=True)
            if done.returncode:
                said = ' '.join(done.stderr.split())[:300]
                raise SystemExit(f'npm pack {name}@{version} failed: {said}. Try npm ping')
            packed_file = next(Path(work).glob('*.tgz'))
            check_integrity(packed_file, integrity)
            os.replace(packed_file, archive)
    check_integrity(archive, integrity)
    return archive


def read_runtime():
    "The files of the runtime that the page needs, name -> bytes."
    with tarfile.open(fetch_runtime()) as archive:
        return {name: archive.extractfile(f'package/dist/{name}').read() for name in RUNTIME}


def read_measured():
    "results/live.json if it speaks of the embedded weights, else None."
    path = ROOT/'results'/'live.json'
    measured = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    return measured if measured.get('fingerprint') == fingerprint() else None


def predict_sample(network):
    "The class that the network gives each image of the embedded sample, as a string of digits."
    from measure_live import run_network, start_session
    logits, _ = run_network(start_session(network), load_sample('test')[0])
    return ''.join(map(str, logits.argmax(1)))


def list_sample(predictions):
    "Where each image of sample.png lies: official index, class (its row), column, prediction."
    facts = json.loads((files('cifar_cam')/'sample'/'sample.json').read_text(encoding='utf-8'))
    tiles = [(index, row, column) for row, some in enumerate(facts['test'])
             for column, index in enumerate(some)]
    return [[*tile, int(said)] for tile, said in zip(sorted(tiles), predictions, strict=True)]


def versioned(folder, name, data):
    "Write a file; returns its address with a hash, so that no browser mixes two builds, and size."
    path = folder/name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return dict(url=f'{name}?v={hashlib.sha256(data).hexdigest()[:8]}', bytes=len(data))


def shorten(values):
    "Float32 values with no more digits than they need, for JavaScript."
    return [float(str(v)) for v in np.asarray(values, dtype=np.float32).ravel()]


def write_facts(folder, variant, measured):
    "network, runtime and facts.js; returns what the page's text needs to know."
    (network, weights, layout), model = export_parts(variant), load_pretrained()
    runtime = read_runtime()
    parts = dict(
        network=versioned(folder, 'network.onnx.gz', packed(network)),
        weights=versioned(folder, 'weights.bin.gz', packed(weights)),
        runtime=versioned(folder, f'runtime/{RUNTIME[1]}.gz', packed(runtime[RUNTIME[1]])))
    (folder/'runtime'/RUNTIME[0]).write_bytes(runtime[RUNTIME[0]])
    trusted = measured and variant == measured['chosen']
    predictions = measured['sample_predictions'] if trusted else predict_sample(export_network(variant))
    head = dict(weight=shorten(model.fc.weight.detach()), bias=shorten(model.fc.bias.detach()))
    facts = dict(classes=CLASSES, mean=MEAN, std=STD, **parts, layout=layout, head=head,
                 sample=list_sample(predictions))
    text = 'export default ' + json.dumps(facts, separators=(',', ':')) + '\n'
    (folder/'facts.js').write_text(text, encoding='utf-8')
    return sum(part['bytes'] for part in parts.values()), predictions


def describe(variant, measured, predictions, download):
    "What index.html says in its {{places}}."
    card, (name, version, _) = pretrained_card(), read_lock()
    _, labels = load_sample('test')
    right = sum(int(said) == label for said, label in zip(predictions, labels, strict=True))
    share, images = right/len(labels), f'{len(labels):,} test images of the embedded sample'
    for row in (measured or {}).get('rows', []):
        if row['weights'].split()[0] == str(variant):
            share, images = row['test_accuracy'], '10,000 test images'
    return dict(megabytes=f'{download/1e6:.0f}', accuracy=f'{100*share:.1f} % of the {images}',
                rounded=f'rounded to {variant} bits', train_images=f"{card['train_images']:,}",
                runtime=f'{name} {version}', mistakes=str(len(labels) - right))


def copy_sources(folder, places):
    "The page's own files; every {{place}} of index.html is filled in."
    for path in sorted(SOURCES.iterdir()):
        if path.suffix not in PAGE: continue
        text = path.read_text(encoding='utf-8')
        if path.suffix == '.html':
            text = re.sub(r'\{\{(\w+)\}\}', lambda found: places[found[1]], text)
        (folder/path.name).write_text(text, encoding='utf-8')


def build(folder, variant=None):
    "Make the page in `folder`, which is replaced as a whole once everything is there."
    folder, measured = Path(folder), read_measured()
    if measured is None:
        print('results/live.json is not about the embedded weights: python tools/measure_live.py')
    variant = variant or (measured or {}).get('chosen', 8)
    if folder.exists() and any(folder.iterdir()) and not (folder/'facts.js').is_file():
        raise SystemExit(f'{folder} holds something else than this page. Name a new folder')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.live-') as work:
        made = Path(work)/'live'
        made.mkdir()
        download, predictions = write_facts(made, variant, measured)
        (made/'sample.png').write_bytes((files('cifar_cam')/'sample'/'test.png').read_bytes())
        copy_sources(made, describe(variant, measured, predictions, download))
        if folder.exists(): shutil.rmtree(folder)
        os.replace(made, folder)
    return download


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', default=ROOT/'nbs'/'live', type=Path)
    parser.add_argument('--weights', type=int, choices=VARIANTS[1:],
                        help='default: what results/live.json chose')
    options = parser.parse_args()
    download = build(options.folder, options.weights)
    print(f'{options.folder}: the network is {download/1e6:.1f} MB to download with its runtime.\n'
          f'Look at it: python -m http.server --directory {options.folder}')


if __name__ == '__main__': main()
