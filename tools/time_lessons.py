"""Measures how long the lessons take to read and to run, for the table on the first page: results/lesson_times.csv.

    python tools/time_lessons.py              # all lessons, on the processor with two threads; run it on a quiet machine
    python tools/time_lessons.py cuda         # the same where there is a GPU
    python tools/time_lessons.py read         # counts words and lines only; measured seconds stay

Reading: 150 words of prose a minute, seven seconds for a visible line of code. Running: every cell from top to bottom, as in Colab.
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
columns = ['lesson', 'words', 'code_lines', 'reading_minutes', 'cpu_seconds', 'cuda_seconds', 'cpu', 'cuda']
WORDS_A_MINUTE, SECONDS_A_LINE = 150, 7


def lessons():
    "The numbered notebooks, in order."
    return sorted(path for path in (root/'nbs').glob('[0-9]*.ipynb'))


def reading(path):
    "Words of prose, visible lines of code, and minutes for both."
    words = lines = 0
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': words += len(re.findall(r'[\w’\'-]+', re.sub(r'\(http\S+\)', '', source)))
        elif not re.search(r'^#\| *(hide|exporti?|echo: *false|eval: *false)\b', source, re.M):
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


def main(what):
    if what not in ('cpu', 'cuda', 'read'): raise SystemExit(__doc__)
    known = {row['lesson']: row for row in csv.DictReader(table.open(encoding='utf-8'))} if table.exists() else {}
    name, rows = hardware(what) if what != 'read' else '', []
    for path in lessons():
        words, lines, minutes = reading(path)
        row = dict.fromkeys(columns, '') | known.get(path.stem, {}) | dict(lesson=path.stem, words=words, code_lines=lines, reading_minutes=minutes)
        if what != 'read': row |= {f'{what}_seconds': round(running(path, what), 1), what: name}
        rows.append(row)
        print(f'{path.stem}: {minutes} minutes to read, {row["cpu_seconds"] or "?"} s on a CPU, {row["cuda_seconds"] or "?"} s on a GPU', flush=True)
    with table.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    print(f'{table.relative_to(root)}: {len(rows)} lessons; now run tools/make_readme.py')


if __name__ == '__main__': main(sys.argv[1] if len(sys.argv) > 1 else 'cpu')
