"""Draws the picture of the home page, nbs/images/home.png, from the embedded weights and the embedded test sample.

    python tools/make_home.py

Of each class the mistake that the network is surest of, then the six surest of these: photograph and Grad-CAM of the predicted class at layer4.
It is also the card that chats and social networks show beside a link (1200 x 630 pixels). What it shows stands in the file itself, as text.
"""
import json
import os
import sys
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))

from cifar_cam.data import CLASSES, load_sample, normalise
from cifar_cam.gradcam import grad_cam, overlay
from cifar_cam.resnet import load_pretrained

picture = root/'nbs'/'images'/'home.png'
WIDTH, HEIGHT, TILE, HEAD = 1200, 630, 192, 60
CELL_WIDTH, CELL_HEIGHT = WIDTH//3, (HEIGHT - HEAD)//2
BACK, TEXT, WARM = (24, 26, 32), (240, 240, 240), (255, 190, 92)  # a dark card on light and dark pages alike


def choose(probabilities, labels, number=6):
    "Indices of the mistakes to show: of each class the most confident one, then the `number` most confident of these."
    confidence, predicted = probabilities.max(1)
    best = {}
    for i in (predicted != labels).nonzero()[:, 0].tolist():
        label = labels[i].item()
        if label not in best or confidence[i] > confidence[best[label]]: best[label] = i
    return sorted(best.values(), key=lambda i: -confidence[i])[:number]


def find_mistakes():
    "The chosen photographs, their maps, and what is to be written beside them."
    images, labels = load_sample('test')
    images, labels = torch.as_tensor(np.array(images)), torch.as_tensor(np.array(labels))
    maps, logits = grad_cam(load_pretrained(), 'layer4', normalise(images))
    probabilities = logits.softmax(1)
    chosen = choose(probabilities, labels)
    facts = [dict(image=i, true=CLASSES[labels[i]], predicted=CLASSES[probabilities[i].argmax()],
                  confidence=round(probabilities[i].max().item(), 3)) for i in chosen]
    return images[chosen], maps[chosen], facts


def enlarge(images, size=TILE):
    "Photographs with their own pixels, larger."
    times = size//images.shape[1]
    return images.repeat_interleave(times, 1).repeat_interleave(times, 2)


def draw(images, maps, facts):
    "Three columns and two rows, each a photograph, its map, and two lines of text."
    large = enlarge(images)
    warm = overlay(large, maps)
    page = Image.new('RGB', (WIDTH, HEIGHT), BACK)
    pen = ImageDraw.Draw(page)
    folder = Path(matplotlib.get_data_path())/'fonts'/'ttf'
    plain, bold = (str(folder/f'DejaVuSans{kind}.ttf') for kind in ('', '-Bold'))
    pen.text((WIDTH//2, HEAD//2 + 4), 'Six mistakes, and their Grad-CAM at layer4', TEXT, ImageFont.truetype(bold, 38), anchor='mm')
    for k, fact in enumerate(facts):
        left, top = (k % 3)*CELL_WIDTH + 6, HEAD + (k//3)*CELL_HEIGHT
        pen.text((left, top + 6), f'true {fact["true"]}', TEXT, ImageFont.truetype(plain, 31))
        pen.text((left, top + 43), f'predicted {fact["predicted"]} {fact["confidence"]:.0%}', WARM, ImageFont.truetype(plain, 31))
        for n, tile in enumerate((large[k], warm[k])): page.paste(Image.fromarray(tile.numpy()), (left + n*(TILE + 4), top + 86))
    return page


def main():
    images, maps, facts = find_mistakes()
    info = PngInfo()
    info.add_text('facts', json.dumps(facts))
    picture.parent.mkdir(exist_ok=True)
    small = draw(images, maps, facts).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    small.save(picture, 'PNG', optimize=True, pnginfo=info)
    print(f'{picture.relative_to(root)}: {picture.stat().st_size/1000:.0f} KB')
    print(*facts, sep='\n')


if __name__ == '__main__': main()
