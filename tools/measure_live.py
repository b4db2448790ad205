"""What rounding the weights costs: writes results/live.json and results/live.md.

    python tools/measure_live.py [float16 8 6 5]

Every variant of the ONNX file runs on the 5,000 validation images, on which the variant is chosen,
and on the 10,000 test images. What a variant said is kept in the cache folder, so the command
may be stopped and started again, or given one variant at a time; the tables need all of them.
"""
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from live_network import VARIANTS, export_network, export_parts, fingerprint, packed

from cifar_cam.core import run_card
from cifar_cam.data import load_cifar10, normalise, sample_indices, split_train_valid
from cifar_cam.download import cache_folder
from cifar_cam.resnet import load_pretrained

ROOT = Path(__file__).resolve().parent.parent
AGREE = 0.995  # the rule: fewest bits with the answer of float16 on this share of validation images


def softmax(logits):
    "Probabilities of each row."
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def start_session(network):
    "Runs an ONNX file on the CPU, with OMP_NUM_THREADS threads."
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get('OMP_NUM_THREADS', 0))
    return onnxruntime.InferenceSession(network, options, providers=['CPUExecutionProvider'])


def run_network(session, images):
    "Logits (N,10) and class maps (N,10,4,4) of uint8 images (N,32,32,3)."
    head, logits, maps = load_pretrained().fc.weight.detach().numpy(), [], []
    for i in range(0, len(images), 100):
        x = normalise(images[i:i + 100]).numpy()
        some, features = session.run(None, {'image': x})
        logits.append(some)
        maps.append(np.einsum('kd,bdhw->bkhw', head, features))
    return np.concatenate(logits), np.concatenate(maps)


def kept_answers(variant, split, images):
    "What `run_network` says, from the cache if it was asked before, 1,000 images at a time."
    network, session, parts = export_network(variant), None, []
    folder = cache_folder()/'live'/hashlib.sha256(network).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(images), 1000):
        path = folder/f'{variant}-{split}-{i}.npz'
        if not path.is_file():
            session = session or start_session(network)
            logits, maps = run_network(session, images[i:i + 1000])
            np.savez(path.with_suffix('.part.npz'), logits=logits, maps=maps.astype(np.float16))
            os.replace(path.with_suffix('.part.npz'), path)
            print(f'{variant} {split} {i + len(logits)}/{len(images)}', flush=True)
        with np.load(path) as part: parts.append((part['logits'], part['maps']))
    return [np.concatenate(some) for some in zip(*parts, strict=True)]


def correlate_maps(ours, theirs):
    "The correlation of two sets of maps (N,4,4), image by image; its median."
    a, b = (m.reshape(len(m), -1).astype(np.float64) for m in (ours, theirs))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return float(np.median((a*b).sum(1) / np.sqrt((a*a).sum(1) * (b*b).sum(1))))


def load_images():
    "Validation and test images, split name -> (images, labels)."
    images, labels = load_cifar10('train')
    valid = split_train_valid(labels)[1]
    return {'valid': (np.asarray(images[valid]), labels[valid]), 'test': load_cifar10('test')}


def measure(variant, splits, reference):
    "One row of the table; `reference` is what float16 said, split -> (logits, maps)."
    files = export_parts(variant)[:2]
    row = dict(weights=variant if variant == 'float16' else f'{variant} bits',
               bytes=sum(map(len, files)), download=sum(len(packed(file)) for file in files))
    for split, (images, labels) in splits.items():
        answers = kept_answers(variant, split, np.asarray(images))
        facts = compare(answers, reference[split], labels)
        row |= {f'{split}_{name}': value for name, value in facts.items()}
    return row


def compare(answers, reference, labels):
    "What changed from the `reference`; both are (logits, maps)."
    (logits, maps), (logits_before, maps_before) = answers, reference
    ours, theirs, each = logits.argmax(1), logits_before.argmax(1), np.arange(len(labels))
    right, was_right = ours == labels, theirs == labels
    moved = np.abs(softmax(logits) - softmax(logits_before)).max(1)
    return dict(accuracy=float(right.mean()), same=float((ours == theirs).mean()),
                lost=int((was_right & ~right).sum()), gained=int((right & ~was_right).sum()),
                probability=float(moved.mean()),
                maps=correlate_maps(maps[each, theirs], maps_before[each, theirs]))


def choose(rows):
    "The row with the smallest download among those that answer as float16 does."
    return min((r for r in rows if r['valid_same'] >= AGREE), key=lambda r: r['download'])


def table(rows, card):
    "The rows in Markdown."
    chosen = choose(rows)
    lines = [
        f"{card['hardware']}, {card['threads']} thread{'s' * (card['threads'] > 1)}, onnxruntime {card['onnxruntime']}; "
        f"weights {card['fingerprint']}.", '',
        '| weights of the convolutions | download, MB | same answer, validation '
        '| accuracy, validation | accuracy, test | lost / gained, test '
        '| change of probability, test | correlation of maps, test |',
        '|---|---|---|---|---|---|---|---|']
    for r in rows:
        mark = '**' if r is chosen else ''
        lines.append(
            f"| {mark}{r['weights']}{mark} | {r['download']/1e6:.1f} | {r['valid_same']:.2%} "
            f"| {r['valid_accuracy']:.2%} | {r['test_accuracy']:.2%} "
            f"| {r['test_lost']} / {r['test_gained']} "
            f"| {r['test_probability']:.4f} | {r['test_maps']:.5f} |")
    return '\n'.join([*lines, '', *explain(rows, chosen)]) + '\n'


def explain(rows, chosen):
    "How to read the table, and what was chosen."
    return [
        'The ONNX file itself ran on 5,000 validation and 10,000 test images. Its convolutions are '
        'rounded, channel by channel, to whole numbers times one step; all else is float32.',
        'Download: graph and weights after gzip, as the page fetches them. Same answer: the share of images '
        "with float16's prediction. Lost / gained: test images that float16 gets right and this "
        'one does not, and the reverse. Change of probability: the largest of the ten, mean. '
        "Maps: correlation with float16's map of its predicted class, median.", '',
        f'The rule, applied on validation images: the smallest download with the same answer on at '
        f"least {AGREE:.1%} of them. It chooses **{chosen['weights']}**."]


def main(names):
    variants = [v for v in VARIANTS if not names or str(v) in names]
    splits = load_images()
    reference = {split: kept_answers('float16', split, np.asarray(images))
                 for split, (images, _) in splits.items()}
    rows = [measure(variant, splits, reference) for variant in variants]
    if len(rows) < len(VARIANTS): return print(json.dumps(rows, indent=1))
    chosen = choose(rows)
    variant = VARIANTS[rows.index(chosen)]
    said = kept_answers(variant, 'test', np.asarray(splits['test'][0]))[0].argmax(1)
    card = run_card(onnxruntime=onnxruntime.__version__, fingerprint=fingerprint(),
                    valid_images=5000, test_images=10000)
    kept = card | dict(chosen=variant, rows=rows,
                       sample_predictions=''.join(map(str, said[sample_indices('test')])))
    (ROOT/'results'/'live.json').write_text(json.dumps(kept, indent=1) + '\n', encoding='utf-8')
    (ROOT/'results'/'live.md').write_text(table(rows, card), encoding='utf-8')
    print(table(rows, card))


if __name__ == '__main__': main(sys.argv[1:])
