"""Measures how long the lessons take to run, for the table on the first page: results/lesson_times.csv. Reading times need no measuring.

    python tools/time_lessons.py              # all lessons, on the processor with two threads; run it on a quiet machine
    python tools/time_lessons.py cuda         # the same where there is a GPU
    python tools/time_lessons.py cpu 05 12    # some of them; the others keep what was measured

Every cell runs from top to bottom, as in Colab. What was measured is written after each lesson.
Reading: 150 words of prose a minute, seven seconds for a line of code that the page shows.
"""
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
table = root/'results'/'lesson_times.csv'
columns = ['lesson', 'cpu_seconds', 'cuda_seconds', 'cpu', 'cuda']
WORDS_A_MINUTE, SECONDS_A_LINE = 150, 7


def lessons():
    "The numbered notebooks, in order."
    return sorted(path for path in (root/'nbs').glob('[0-9]*.ipynb'))


def reading(path):
    "Words of prose, visible lines of code, and minutes for both."
    words = lines = 0
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': words += len(re.findall(r'[\w’\'-]+', re.sub(r'\]\([^)]*\)|<[^>]*>', ' ', source)))
        elif not re.search(r'^#\| *(hide|exporti?\b|echo: *false|eval: *false|code-fold: *true)', source, re.M):
            lines += sum(bool(line.strip()) and not line.startswith('#|') for line in source.split('\n'))
    return words, lines, max(5, 5*round((words/WORDS_A_MINUTE + lines*SECONDS_A_LINE/60)/5))


def running(path, device):
    "Seconds for all cells of a notebook in an empty folder, imports included."
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='2')
    if device == 'cpu': env['CUDA_VISIBLE_DEVICES'] = ''
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, root/'tests'/'run_as_colab.py', path], cwd=folder, capture_output=True, text=True, env=env)
    if done.returncode: raise SystemExit(f'{path.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}')
    return float(re.findall(r'code cells in ([\d.]+) s', done.stdout)[-1])


def hardware(device):
    "The name of the processor or of the GPU."
    if device == 'cuda':
        import torch
        if not torch.cuda.is_available(): raise SystemExit('there is no GPU here')
        return torch.cuda.get_device_name()
    from cifar_cam.core import run_card
    return f"{run_card('cpu')['hardware']}, 2 threads"


def write(rows):
    "Keep what was measured, in the order of the lessons."
    with table.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n', extrasaction='ignore')
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def main(device='cpu', *only):
    if device not in ('cpu', 'cuda'): raise SystemExit(__doc__)
    names, machine = {path.stem: path for path in lessons()}, hardware(device)
    rows = {row['lesson']: row for row in csv.DictReader(table.open(encoding='utf-8'))} if table.exists() else {}
    rows = {name: row for name, row in rows.items() if name in names}
    for name, path in names.items():
        if only and name[:2] not in only: continue
        seconds = running(path, device)
        rows[name] = dict.fromkeys(columns, '') | rows.get(name, {}) | {'lesson': name, f'{device}_seconds': round(seconds, 1), device: machine}
        write(rows)
        print(f'{name}: {seconds:.0f} s to run, {reading(path)[2]} minutes to read', flush=True)
    print(f'{table.relative_to(root)} is written; now run tools/make_readme.py')


if __name__ == '__main__': main(*sys.argv[1:])
