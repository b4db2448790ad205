"""Makes what is derived from the notebooks: the table of lessons in nbs/index.ipynb, nbs/llms.txt, and README.md from nbs/index.ipynb.

    python tools/make_readme.py            # all three
    python tools/make_readme.py FILE       # only the README, into FILE

README.md holds the index's markdown and the outputs of its cells that are not hidden. Links between pages become links to the files on GitHub.
"""
import csv
import json
import re
import sys
from pathlib import Path

import yaml
from execnb.nbio import read_nb, write_nb
from nbdev.config import get_config
from nbdev.process import extract_directives

root = Path(__file__).resolve().parent.parent
nbs = root/'nbs'
config = get_config(path=root)
mark = '<!-- lessons: made by tools/make_readme.py -->'

# file, the question it answers, what to read before
LESSONS = [
    ('01_data', 'What is in CIFAR-10?', 'Python'),
    ('02_augment', 'How do we make more of it, and what does it buy?', '01'),
    ('03_resnet', 'What is a ResNet-18 with LayerNorm, and what does LayerNorm cost?', 'some PyTorch'),
    ('04_lr_finder', 'Which learning rate?', '03'),
    ('05_train', 'How is it trained?', '02, 03, 04'),
    ('06_gradcam', 'What did it look at?', '03'),
    ('07_cam_methods', 'What else can be asked of it?', '06'),
    ('08_faithfulness', 'Is the map to be believed? Which layer?', '06'),
    ('08b_ground_truth', 'Does a map find what we know is there?', '07, 08'),
    ('09_mistakes', 'Where is it wrong?', '03, 06'),
    ('11_transfer', 'What does ImageNet buy?', '03, 05'),
    ('12_recipes', 'What did each published experiment get, and what do we get?', '05'),
    ('13_your_run', 'The whole path in one notebook, on your own run', '05, 06, 09'),
]


def times():
    "What tools/time_lessons.py measured, one row a lesson."
    table = root/'results'/'lesson_times.csv'
    return {row['lesson']: row for row in csv.DictReader(table.open(encoding='utf-8'))} if table.exists() else {}


def duration(seconds):
    "A measured time as a reader wants it: '8 s', '3 min'; a dash where nothing was measured."
    if not seconds: return '-'
    return f'{round(float(seconds))} s' if float(seconds) < 90 else f'{round(float(seconds)/60)} min'


def lesson_table():
    "The lessons with their question, what they need and how long they take."
    measured, machines = times(), {}
    lines = ['| lesson | question | read first | reading | run, CPU | run, GPU |', '|---|---|---|---|---|---|']
    for name, question, needs in LESSONS:
        row = measured.get(name, {})
        minutes = f'{row["reading_minutes"]} min' if row.get('reading_minutes') else '-'
        for device in ('cpu', 'cuda'):
            if row.get(device): machines[device] = row[device]
        lines.append(f'| [{name.replace("_", " ", 1)}]({name}.ipynb) | {question} | {needs} | {minutes} | '
                     f'{duration(row.get("cpu_seconds"))} | {duration(row.get("cuda_seconds"))} |')
    where = '; '.join(f'{dict(cpu="CPU", cuda="GPU")[device]}: {machine}' for device, machine in machines.items())
    total = sum(int(measured[name]['reading_minutes']) for name, *_ in LESSONS if name in measured)
    together = f' All lessons together: {total/60:.0f} hours of reading.' if total else ''
    note = ('Reading: 150 words of prose a minute and seven seconds a line of code. Running: all cells from top to bottom, without those behind '
            f'the switch `LONG`{f" ({where})" if where else ""}. A dash: not measured.{together} Each lesson exports one module of the same name '
            '(`05_train` is `cifar_cam.train`) and ends with exercises that check themselves; the machinery below the lessons has '
            f'[notebooks of its own](https://github.com/{config.user}/{config.repo}/tree/{config.branch}/nbs/hood).')
    return '\n'.join(lines) + '\n\n' + note


def update_index():
    "Write the table of lessons into the index, below its mark."
    path = nbs/'index.ipynb'
    nb = read_nb(path)
    cell = next(cell for cell in nb.cells if mark in cell.source)
    source = cell.source[:cell.source.index(mark)] + mark + '\n\n' + lesson_table()
    if source == cell.source: return
    cell.source = source
    write_nb(nb, path)


def front(path):
    "Title and promise of a notebook, from its first cell; empty where there is none."
    if not path.exists(): return '', ''
    first = ''.join(json.loads(path.read_text(encoding='utf-8'))['cells'][0]['source'])
    title, _, promise = first.partition('\n\n> ')
    return title.removeprefix('# '), promise


def llms_text():
    "All pages of the site with their promises, for language models (llmstxt.org), in the order of the sidebar."
    site = config.doc_host + config.doc_baseurl
    lines = [f'# {config.title}', '', f'> {config.description}', '', f'Source: {config.git_url}', '']
    for part in yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']:
        lines += [f'## {part["section"]}', '']
        for page in part['contents']:
            title, promise = front(nbs/page['href']) if page['href'].endswith('.ipynb') else ('', '')
            lines.append(f'- [{title or page["text"]}]({site}/{page["href"].replace(".ipynb", ".html")}){": " if promise else ""}{promise}')
        lines.append('')
    return '\n'.join(lines)


def to_github(text):
    "Links between the site's pages as links to the repository's files; the marks for the tools go."
    text = re.sub(r'\]\((?!https?:|#|mailto:)([^)\s]+)\)', r'](nbs/\1)', text)
    return re.sub(r'src="(?!https?:)([^"]+)"', r'src="nbs/\1"', text).replace(mark + '\n\n', '')


def readme_text():
    "The README: the index's markdown and visible outputs."
    parts = []
    for cell in read_nb(nbs/'index.ipynb').cells:
        if cell.cell_type == 'markdown': parts.append(cell.source)
        elif 'hide' not in extract_directives(cell, remove=False):
            parts += [''.join(o['data']['text/markdown']) for o in cell.outputs if 'text/markdown' in o.get('data', {})]
    head = '<!-- Made from nbs/index.ipynb by tools/make_readme.py: change it there. -->\n\n'
    return head + to_github('\n\n'.join(part.strip() for part in parts)) + '\n'


if __name__ == '__main__':
    if len(sys.argv) > 1: Path(sys.argv[1]).write_text(readme_text(), encoding='utf-8')
    else:
        update_index()
        (nbs/'llms.txt').write_text(llms_text(), encoding='utf-8')
        (root/'README.md').write_text(readme_text(), encoding='utf-8')
