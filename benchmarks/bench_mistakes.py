"The analysis of 10,000 images against one plain forward pass over them, and 20 images with two maps each."
import argparse
import statistics
import time

import numpy as np
import torch

from cifar_cam.core import run_card
from cifar_cam.data import load_cifar10, load_sample, normalise
from cifar_cam.metrics import accuracy_coverage, fit_temperature, reliability, scores
from cifar_cam.mistakes import (
    choose_mistakes,
    class_maps,
    confused_pairs,
    confusion,
    per_class,
    plot_evidence,
    prediction_table,
)
from cifar_cam.pictures import images_of
from cifar_cam.resnet import load_pretrained


def plain_pass(model, images):
    with torch.inference_mode():
        batches = (normalise(torch.from_numpy(np.array(images[k:k + 100]))) for k in range(0, len(images), 100))
        return torch.cat([model(x.contiguous(memory_format=torch.channels_last)) for x in batches])  # the layout of the analysis


def analysis(model, images, labels):
    table, logits = prediction_table(model, images, labels)
    parts = per_class(table), confusion(table), confused_pairs(table), accuracy_coverage(table)
    temperature = fit_temperature(logits[::2], labels[::2])
    return table, parts, scores(table, logits, temperature), reliability(table.confidence, table.true == table.predicted)


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('--images', type=int, default=10_000, help='how many; up to 1,000 need no CIFAR-10')
parser.add_argument('--rounds', type=int, default=3)
options = parser.parse_args()
torch.set_flush_denormal(True)
model = load_pretrained().to(memory_format=torch.channels_last)
images, labels = load_sample('test') if options.images <= 1000 else load_cifar10('test')
images, labels = images[:options.images], labels[:options.images]
analysis(model, images[:200], labels[:200]), plain_pass(model, images[:200])
times = {'plain': [], 'analysis': [], 'maps': [], 'figure': []}
for _ in range(options.rounds):
    times['plain'].append(seconds(plain_pass, model, images)[0])
    took, (table, *_) = seconds(analysis, model, images, labels)
    times['analysis'].append(took)
rows, _ = choose_mistakes(table)
pictures = images_of(rows, table, images)
for _ in range(5):
    took, (predicted, true) = seconds(class_maps, model, pictures, rows)
    times['maps'].append(took)
    times['figure'].append(seconds(plot_evidence, pictures, rows, predicted, true)[0])
plain, whole, maps, figure = (statistics.median(t) for t in times.values())
card = run_card()
print(f'{card["hardware"]}, {card["threads"]} threads, torch {card["torch"]}, float32, median of {options.rounds}\n')
print('| what | images | seconds | ratio |\n|---|---|---|---|')
print(f'| plain forward pass | {len(images):,} | {plain:.2f} | 1.00 |')
print(f'| predictions, table and all metrics | {len(images):,} | {whole:.2f} | {whole/plain:.2f} |')
print(f'| two maps each | {len(rows)} | {maps:.2f} | |')
print(f'| their figure | {len(rows)} | {figure:.2f} | |')
