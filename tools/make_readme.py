"""Makes what is derived from the notebooks: the table of lessons in nbs/index.ipynb, nbs/sidebar.yml, nbs/llms.txt, and README.md from nbs/index.ipynb.

    python tools/make_readme.py            # all four
    python tools/make_readme.py FILE       # only the README, into FILE

README.md holds the index's markdown, with one row a part in place of one a lesson, and the outputs of its cells that are not hidden.
Links between pages become links to the files on GitHub.
A notebook that is listed below and not there is left out; one of the hood that is there and not listed comes last in its part, under its title.
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
from time_lessons import lessons, reading

root = Path(__file__).resolve().parent.parent
nbs = root/'nbs'
config = get_config(path=root)
mark = '<!-- lessons: made by tools/make_readme.py -->'

# file, the question it answers, what to read before
LESSONS = [
    ('01_data', 'What is in CIFAR-10?', 'Python'),
    ('02_augment', 'How do we make more of it, and what does that buy?', '01'),
    ('03_resnet', 'What is a ResNet-18 with LayerNorm, and what does it cost?', 'some PyTorch'),
    ('04_lr_finder', 'Which learning rate?', '03'),
    ('05_train', 'How is it trained?', '02, 03, 04'),
    ('06_gradcam', 'What did it look at?', '03'),
    ('07_cam_methods', 'What else can be asked of it?', '06'),
    ('08_faithfulness', 'Is the map to be believed? Which layer?', '06'),
    ('08b_ground_truth', 'Does a map find what we know is there?', '07, 08'),
    ('09_mistakes', 'Where is it wrong?', '03, 06'),
    ('10_causes', 'Which of its mistakes can be explained?', '09'),
    ('10b_audit', 'Are the training labels right?', '05, 09'),
    ('11_transfer', 'What does ImageNet buy?', '03, 05'),
    ('12_recipes', 'What did published experiments get, and what do we?', '05'),
    ('12b_ablation', 'Which trick helps?', '05, 12'),
    ('13_your_run', 'The whole path in one notebook, on your own run', '05, 06, 09'),
]

# part of the site -> file and what the sidebar calls it
SIDEBAR = {
    'Start here': {'index.ipynb': 'Home', 'live/index.html': 'Try it in your browser', 'questions.ipynb': 'Questions'},
    'Data and network': {'01_data.ipynb': '01 Data', '02_augment.ipynb': '02 Augmentation', '03_resnet.ipynb': '03 ResNet with LayerNorm'},
    'Training': {'04_lr_finder.ipynb': '04 Which learning rate?', '05_train.ipynb': '05 Training'},
    'Looking inside': {'06_gradcam.ipynb': '06 Grad-CAM', '07_cam_methods.ipynb': '07 Other methods', '08_faithfulness.ipynb': '08 Faithfulness',
                       '08b_ground_truth.ipynb': '08b Known truth'},
    'Mistakes': {'09_mistakes.ipynb': '09 Where is it wrong?', '10_causes.ipynb': '10 What explains a mistake?',
                 '10b_audit.ipynb': '10b Are the labels right?'},
    'Experiments': {'11_transfer.ipynb': '11 Transfer', '12_recipes.ipynb': '12 Recipes', '12b_ablation.ipynb': '12b Which trick helps?',
                    '13_your_run.ipynb': '13 Your own run', 'quirks.ipynb': 'Quirks of the published projects'},
    'Under the hood': {'hood/core.ipynb': 'Runs, seeds, errors', 'hood/download.ipynb': 'Fetching CIFAR-10', 'hood/checks.ipynb': 'Checks of arguments',
                       'hood/figures.ipynb': 'Drawings and tables', 'hood/pixels.ipynb': 'Moving bytes',
                       'hood/albumentations_twin.ipynb': 'Twin in Albumentations', 'hood/layers.ipynb': 'Layers and windows',
                       'hood/davidnet.ipynb': 'DavidNet', 'hood/pretrained.ipynb': 'The embedded weights',
                       'hood/range_test.ipynb': 'The range test', 'hood/epochs.ipynb': 'Around an epoch', 'hood/optimizer.ipynb': 'Optimizers',
                       'hood/checkpoints.ipynb': 'Checkpoints', 'hood/hooks.ipynb': 'Hooks and targets', 'hood/channels.ipynb': 'One channel at a time',
                       'hood/metrics.ipynb': 'Metrics', 'hood/pictures.ipynb': 'Facts of a photograph',
                       'hood/people.ipynb': 'Votes of people',
                       'hood/explorers.ipynb': 'Explorers', 'hood/report.ipynb': 'The report'},
    'Reference': {'glossary.ipynb': 'Glossary', 'benchmarks.ipynb': 'Benchmarks'},
}


def is_there(page): return not page.endswith('.ipynb') or (nbs/page).is_file()


def pages():
    "The parts of the site and the pages that they hold, in order: part -> {file: text}."
    found = {part: {page: text for page, text in some.items() if is_there(page)} for part, some in SIDEBAR.items()}
    for path in sorted((nbs/'hood').glob('*.ipynb')):
        found['Under the hood'].setdefault(f'hood/{path.name}', front(path)[0])
    return found


def sidebar_text():
    "nbs/sidebar.yml."
    contents = [dict(section=part, contents=[dict(text=text, href=page) for page, text in some.items()]) for part, some in pages().items()]
    head = '# The pages in reading order. Made by tools/make_readme.py: change it there.\n'
    return head + yaml.safe_dump(dict(website=dict(sidebar=dict(style='docked', contents=contents))), sort_keys=False, allow_unicode=True)


# part of the site -> what its lessons ask, for the README, which has no room for a row a lesson
ASKED = {
    'Data and network': 'what is in CIFAR-10, how to make more of it, what LayerNorm costs',
    'Training': 'which learning rate, and a loop that survives a power cut',
    'Looking inside': 'Grad-CAM from scratch, its relatives, and whether to believe a map',
    'Mistakes': 'where the network is wrong, and which mistakes have a cause',
    'Experiments': 'what ImageNet buys, ten recipes, which tricks help, and a run of your own',
}

NAMES = dict(cpu='CPU', cuda='GPU')
WIDTHS = {'lesson': 8, 'question': 16, 'read first': 6}  # of the table's columns, beside each other


def times():
    "What tools/time_lessons.py measured, one row a lesson."
    table = root/'results'/'lesson_times.csv'
    return {row['lesson']: row for row in csv.DictReader(table.open(encoding='utf-8'))} if table.exists() else {}


def duration(seconds):
    "A measured time as a reader wants it: '8 s', '3 min'; a dash where nothing was measured."
    if not seconds: return '-'
    return f'{round(float(seconds))} s' if float(seconds) < 90 else f'{round(float(seconds)/60)} min'


def lesson_table(short=False):
    """The lessons with their question, what they need and how long they take; a device stands in it once something was measured on it.
    `short`: a row a part of the site, without run times."""
    measured, minutes = times(), {path.stem: reading(path)[2] for path in lessons()}
    devices = {}  # 'cpu' and 'cuda' -> the machine
    for row in measured.values(): devices |= {device: row[device] for device in ('cpu', 'cuda') if row.get(device)}
    titles = ['lesson', 'question', 'read first', 'reading', *(f'run, {NAMES[device]}' for device in devices)]
    lines = [f'| {" | ".join(titles)} |', '|' + '|'.join('-' * WIDTHS.get(title, 4) for title in titles) + '|']  # pandoc reads widths
    for name, question, needs in LESSONS:
        if name not in minutes: continue
        seconds = [duration(measured.get(name, {}).get(f'{device}_seconds')) for device in devices]
        number, _, word = name.partition('_')
        lines.append(f'| {" | ".join([f"[{number} {word}]({name}.ipynb)", question, needs, f"{minutes[name]} min", *seconds])} |')
    where = '; '.join(f'{NAMES[device]}: {machine}' for device, machine in devices.items())
    running = f' Running: all cells from top to bottom, without those behind the switch `LONG` ({where}).' if where and not short else ''
    note = (f'{sum(minutes.values())/60:.0f} hours of reading in all, at 150 words a minute.{running} Lessons 01 to 12 each write one module (`05_train` is '
            '`cifar_cam.train`) and end with exercises that check themselves; the machinery below has '
            f'[notebooks of its own](https://github.com/{config.user}/{config.repo}/tree/{config.branch}/nbs/hood).')
    return (part_table() if short else '\n'.join(lines)) + '\n\n' + note


def part_table():
    "The lessons as the README shows them: one row a part of the site."
    lines = ['| part | lessons | they ask | reading |', '|---|---|---|---|']
    for part, asked in ASKED.items():
        names = [name for name, *_ in LESSONS if f'{name}.ipynb' in pages()[part]]
        minutes = sum(reading(nbs/f'{name}.ipynb')[2] for name in names)
        links = ' '.join(f'[{name.partition("_")[0]}]({name}.ipynb)' for name in names)
        lines.append(f'| {part} | {links} | {asked} | {minutes} min |')
    return '\n'.join(lines)


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
    for part, some in pages().items():
        lines += [f'## {part}', '']
        for page, text in some.items():
            title, promise = front(nbs/page) if page.endswith('.ipynb') else ('', '')
            lines.append(f'- [{title or text}]({site}/{page.replace(".ipynb", ".html")}){": " if promise else ""}{promise}')
        lines.append('')
    return '\n'.join(lines)


def to_github(text):
    "Links between the site's pages as links to the repository's files."
    text = re.sub(r'\]\((?!https?:|#|mailto:)([^)\s]+)\)', r'](nbs/\1)', text)
    return re.sub(r'src="(?!https?:)([^"]+)"', r'src="nbs/\1"', text)


def tests_badge():
    "Whether the tests pass, for GitHub alone: a page of the site loads nothing from another host."
    page = f'https://github.com/{config.user}/{config.repo}/actions/workflows/test.yml'
    return f'[![tests]({page}/badge.svg)]({page})'


def readme_text():
    "The README: title, badge, then the index's other markdown, with a shorter table of lessons, and its visible outputs."
    parts, table, short = [], lesson_table(), lesson_table(short=True)
    for cell in read_nb(nbs/'index.ipynb').cells:
        if cell.cell_type == 'markdown': parts.append(cell.source.replace(f'{mark}\n\n{table}', short))
        elif 'hide' not in extract_directives(cell, remove=False):
            parts += [''.join(o['data']['text/markdown']) for o in cell.outputs if 'text/markdown' in o.get('data', {})]
    parts.insert(1, tests_badge())
    head = '<!-- Made from nbs/index.ipynb by tools/make_readme.py: change it there. -->\n\n'
    return head + to_github('\n\n'.join(part.strip() for part in parts)) + '\n'


if __name__ == '__main__':
    if len(sys.argv) > 1: Path(sys.argv[1]).write_text(readme_text(), encoding='utf-8')
    else:
        update_index()
        (nbs/'sidebar.yml').write_text(sidebar_text(), encoding='utf-8')
        (nbs/'llms.txt').write_text(llms_text(), encoding='utf-8')
        (root/'README.md').write_text(readme_text(), encoding='utf-8')
