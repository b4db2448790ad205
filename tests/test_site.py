"The site's pages, looked at without building them: order, links, figures, sizes, what is loaded from elsewhere; README and workflows."
import difflib
import io
import json
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from PIL import Image

root = Path(__file__).resolve().parent.parent
nbs = root/'nbs'
sys.path.insert(0, str(root/'tools'))
import make_readme  # noqa: E402
from finish_site import BADGE, TYPES, finish, finish_page, outside_loads  # noqa: E402

notebooks = sorted(path for path in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts)
name = lambda path: path.relative_to(nbs).as_posix()
each_page = pytest.mark.parametrize('path', notebooks, ids=name)
FENCED = re.compile(r'^(```+).*?^\1`*\s*$', re.M | re.S)


@cache
def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])
def load(path): return yaml.safe_load(path.read_text(encoding='utf-8'))


def sidebar():
    "The pages of the sidebar, in order."
    parts = load(nbs/'sidebar.yml')['website']['sidebar']['contents']
    return [page['href'] for part in parts for page in part['contents']]


def anchor(heading):
    "The identifier that Quarto gives a heading (pandoc's auto_identifiers)."
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    text = re.sub(r'[^\w\s.-]', '', text).strip().lower()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', text)) or 'section'


@cache
def anchors(path):
    "All places of a page that a link can lead to: its headings, and the names that it exports."
    found = set()
    for cell in cells(path):
        if cell['cell_type'] == 'markdown':
            for heading in re.findall(r'^#{1,6} +(.+?)\s*$', FENCED.sub('', source(cell)), re.M):
                made, n = anchor(heading), 1
                while made in found: made, n = f'{anchor(heading)}-{n}', n + 1
                found.add(made)
        elif re.match(r'#\| *exports?\b', source(cell)): found |= set(re.findall(r'^(?:def|class) (\w+)', source(cell), re.M))
    return found


def texts(path):
    "The markdown of a page: its prose, and what its cells print as markdown."
    for cell in cells(path):
        if cell['cell_type'] == 'markdown': yield source(cell)
        else: yield from (''.join(out['data']['text/markdown']) for out in cell['outputs'] if 'text/markdown' in out.get('data', {}))


def links(text):
    "The targets of links and images, without those inside code."
    text = re.sub(r'`[^`\n]*`', '', FENCED.sub('', text))
    return re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def test_every_page_is_in_the_sidebar_once():
    pages = sidebar()
    assert len(set(pages)) == len(pages), f'twice: {sorted({page for page in pages if pages.count(page) > 1})}'
    there = {name(path) for path in notebooks}
    listed = {page for page in pages if page.endswith('.ipynb')}
    assert listed == there, f'no such page: {sorted(listed - there)}; not in nbs/sidebar.yml: {sorted(there - listed)}'


def test_the_lessons_of_the_first_page_are_those_in_the_folder():
    there = [path.stem for path in notebooks if path.parent == nbs and path.name[0].isdigit()]
    assert [lesson for lesson, *_ in make_readme.LESSONS if lesson in there] == there


def test_a_new_notebook_of_the_hood_comes_last_in_its_part(monkeypatch, tmp_path):
    (tmp_path/'hood').mkdir()
    for page, title in (('core', 'Runs'), ('zebra', 'Stripes')):
        (tmp_path/'hood'/f'{page}.ipynb').write_text(json.dumps(dict(cells=[dict(source=[f'# {title}\n\n> Why?'])])))
    monkeypatch.setattr(make_readme, 'nbs', tmp_path)
    assert make_readme.pages()['Under the hood'] == {'hood/core.ipynb': 'Runs, seeds, errors', 'hood/zebra.ipynb': 'Stripes'}
    assert make_readme.pages()['Training'] == {} and 'hood/zebra.ipynb' in make_readme.sidebar_text()


@each_page
def test_links_within_the_site_lead_somewhere(path):
    wrong = []
    for target in {target for text in texts(path) for target in links(text)}:
        if re.match(r'[a-z]+:', target): continue
        file, _, place = target.partition('#')
        page = (path.parent/file).resolve() if file else path
        if file.startswith('live/'): continue  # made when the site is built
        if not page.is_file(): wrong.append(f'{target}: no such file')
        elif place and page.suffix == '.ipynb' and place not in anchors(page):
            close = [f'{name(other)}#{near}' for other in notebooks for near in difflib.get_close_matches(place, anchors(other), 1, .8)]
            wrong.append(f'{target}: no such heading; near: {close or sorted(anchors(page))}')
    assert not wrong, '\n'.join(wrong)


def test_the_identifiers_of_headings_are_those_of_pandoc():
    for heading, wanted in {'Is it true? Asking the gradient': 'is-it-true-asking-the-gradient', '1. Data `uint8`, *all* of it': 'data-uint8-all-of-it',
                            'See [the table](x.md#y)': 'see-the-table', 'CAM by hand: a map of 2x2': 'cam-by-hand-a-map-of-2x2', '2026': 'section'}.items():
        assert anchor(heading) == wanted


@each_page
def test_markdown_reads_alike_on_github_and_on_the_site(path):
    "Pandoc wants an empty line before a heading, a list, a table; and 32*3*3 is 32, an italic 3, 3."
    wrong, begins = [], r'#{1,6} |\||[-*+] |\d+\. '
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] != 'markdown': continue
        text = FENCED.sub('', source(cell))
        lines = text.split('\n')
        wrong += [f'cell {i}: {line[:60]}' for before, line in zip(lines, lines[1:], strict=False) if before.strip() and re.match(begins, line)
                  and not (re.match(r'\||[-*+] |\d+\. |  ', before) and line[0] != '#')]
        wrong += [f'cell {i}: {found[0]}' for found in re.finditer(r'\w\*\w[^*\n]{0,12}\*\w', re.sub(r'`[^`]*`|\$[^$]*\$', '', text))]
    assert not wrong, '\n'.join(wrong)


@each_page
def test_every_figure_has_alt_text(path):
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] == 'markdown':
            for image in re.findall(r'<img\b[^>]*>', source(cell)): assert re.search(r'alt="[^"]{20,}"', image), f'cell {i}: {image[:80]}'
            assert not re.search(r'!\[\s*\]\(', source(cell)), f'cell {i}: an image without a text'
            continue
        for data in (out.get('data', {}) for out in cell['outputs']):
            if any(kind.startswith('image/') for kind in data):
                assert re.search(r'^#\| *fig-alt: *\S.{20,}', source(cell), re.M), f'cell {i} draws a figure without #| fig-alt'
            for image in re.findall(r'<img\b[^>]*>', ''.join(data.get('text/html', ''))): assert 'alt="' in image, f'cell {i}: {image[:80]}'


@each_page
def test_no_page_loads_an_image_from_elsewhere(path):
    outside = re.compile(r'(?:!\[[^\]]*\]\(|<img\b[^>]*\ssrc=")(https?:[^)"\s]+)')
    found = {image for text in texts(path) for image in outside.findall(text)}
    assert found <= {BADGE}, 'a reader asks this site alone; finish_site.py replaces the badge'


@each_page
def test_no_page_is_heavy(path):
    assert path.stat().st_size < 3_000_000, f'{path.stat().st_size/1e6:.1f} MB'


@pytest.mark.parametrize('page', ['questions', 'glossary', 'quirks', 'benchmarks', 'index'])
def test_code_of_the_pages_fits_their_column(page):
    for i, cell in enumerate(cells(nbs/f'{page}.ipynb')):
        if cell['cell_type'] != 'code': continue
        long = [line for line in source(cell).split('\n') if len(line) > 100 and not line.startswith('#|')]
        assert not long, f'cell {i}: {long}'


def test_what_is_made_from_the_notebooks_is_up_to_date():
    assert (nbs/'sidebar.yml').read_text(encoding='utf-8') == make_readme.sidebar_text(), 'run: python tools/make_readme.py'
    assert (nbs/'llms.txt').read_text(encoding='utf-8') == make_readme.llms_text(), 'run: python tools/make_readme.py'
    assert make_readme.lesson_table() in '\n'.join(texts(nbs/'index.ipynb')), 'run: python tools/make_readme.py'
    assert (root/'README.md').read_text(encoding='utf-8') == make_readme.readme_text(), 'run: python tools/make_readme.py'


def test_llms_txt_lists_every_page():
    listed = (nbs/'llms.txt').read_text(encoding='utf-8')
    missing = [name(path) for path in notebooks if f'/{name(path).replace(".ipynb", ".html")})' not in listed]
    assert not missing, f'run tools/make_readme.py; missing: {missing}'


def test_measured_tables_are_all_shown():
    page = '\n'.join(texts(nbs/'benchmarks.ipynb'))
    for file in sorted((root/'results').glob('bench_*.md')): assert file.read_text(encoding='utf-8').strip() in page, f'{file.name} is not on the page as it is'


def test_the_readme_is_short_and_begins_with_its_picture():
    text = (root/'README.md').read_text(encoding='utf-8')
    assert len(text.split('\n')) <= 75, 'two screens'
    first = re.search(r'src="([^"]+)"', text)
    assert text.index(first[0]) < text.index('\n## '), 'the picture stands before the first section'
    assert (root/first[1]).is_file() and (root/first[1]).stat().st_size < 150_000
    for target in links(text):
        if not re.match(r'[a-z]+:|#', target): assert (root/target.partition('#')[0]).exists(), f'README: {target} is not there'


def test_the_picture_shows_what_the_network_says():
    import numpy as np
    import torch

    from cifar_cam.data import CLASSES, load_sample, normalise
    from cifar_cam.resnet import load_pretrained
    image = Image.open(nbs/'images'/'home.png')
    facts = json.loads(image.text['facts'])
    assert image.size == (1200, 630) and len(facts) == 6  # the size that cards of links ask for
    images, labels = load_sample('test')
    chosen = [fact['image'] for fact in facts]
    with torch.no_grad(): said = load_pretrained()(normalise(torch.as_tensor(np.array(images))[chosen])).softmax(1)
    alt = re.search(r'alt="([^"]+)"', '\n'.join(texts(nbs/'index.ipynb')))[1]
    for fact, row in zip(facts, said, strict=True):
        assert CLASSES[labels[fact['image']]] == fact['true'] != fact['predicted'] == CLASSES[row.argmax()]
        assert abs(row.max().item() - fact['confidence']) < .01
        assert re.search(rf'\b{fact["true"]} (predicted )?as {fact["predicted"]}\b', alt), f'the alt text does not tell {fact}'


QUARTO = '''<script src="https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js" integrity="sha512-c3==" crossorigin="anonymous"></script>
<script src="https://cdnjs.cloudflare.com/ajax/libs/jquery/3.5.1/jquery.min.js" integrity="sha512-bL==" data-relocate-top="true"></script>
<script type="application/javascript" data-relocate-top="true">define('jquery', [],function() {return window.jQuery;})</script>
<script defer="" src="https://cdn.jsdelivr.net/npm/katex@latest/dist/katex.min.js"></script><script src="site_libs/quarto.js"></script>
<link rel="stylesheet" href="https://cdn.jsdelivr.net/npm/katex@latest/dist/katex.min.css"><link rel="canonical" href="https://x.github.io/y">
<a href="https://colab.research.google.com/x"><img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open in Colab"></a>'''
# as Bootstrap's themes have it, semicolons within the address
IMPORTS = [f'@import{address};:root{{--a:1}}body{{color:red}}' for address in (
    '"https://fonts.googleapis.com/css2?family=Lato:ital,wght@0,400;0,700;1,400&display=swap"',
    ' url(https://fonts.googleapis.com/css2?family=Source+Sans+Pro:wght@300;400;700&display=swap)',
    " url('https://fonts.googleapis.com/css?family=Lato') screen")]


def test_the_finished_site_loads_nothing_from_elsewhere(tmp_path):
    assert len(outside_loads(QUARTO)) == 5, 'the check sees what Quarto loads'
    for page in ('index.html', 'hood/core.html', 'live/index.html'):
        (tmp_path/page).parent.mkdir(exist_ok=True)
        (tmp_path/page).write_text(QUARTO)
    for n, style in enumerate(IMPORTS): (tmp_path/f'{n}.css').write_text(style)
    assert finish(tmp_path) == {}
    top, below = (tmp_path/'index.html').read_text(), (tmp_path/'hood'/'core.html').read_text()
    for text in ('src="katex/katex.min.js"', 'href="katex/katex.min.css"', 'src="images/colab-badge.svg"', 'src="site_libs/quarto.js"'): assert text in top
    for text in ('src="../katex/katex.min.js"', 'src="../images/colab-badge.svg"'): assert text in below
    for text in ('require.js', 'jquery', "define('jquery'"): assert text not in top
    assert 'https://x.github.io/y' in top and 'https://colab.research.google.com/x' in top, 'links stay'
    assert (tmp_path/'live'/'index.html').read_text() == QUARTO
    assert [path.read_text() for path in tmp_path.glob('*.css')] == [':root{--a:1}body{color:red}']*3
    assert finish_page(top) == top, 'a second time changes nothing'


def test_names_in_signatures_become_links_and_a_class_is_called_so():
    page = '<span class="kw">def</span> Recipe(\n<span class="co"># from [`find_recipe`](https://x.github.io/y/recipes.html#find_recipe)</span>'
    assert finish_page(page) == ('<span class="kw">class</span> Recipe(\n<span class="co"># from '
                                 '<a href="https://x.github.io/y/recipes.html#find_recipe">find_recipe</a></span>')
    typed = 'target:NoneType<span class="op">=</span><span class="va">None</span>, c:NoneType=None, d:int=1'
    assert finish_page(typed) == 'target<span class="op">=</span><span class="va">None</span>, c=None, d:int=1', 'types as written'
    typed = 'layer:torch.nn.modules.module.Module | str, to:str <span class="op">|</span> pathlib.Path, plan:torch.optim.lr_scheduler.LRScheduler'
    assert finish_page(typed) == 'layer:nn.Module | str, to:str <span class="op">|</span> Path, plan:LRScheduler'
    for path in notebooks: assert not [long for long in TYPES if any(long in source(cell) for cell in cells(path))], f'{name(path)} writes it itself'
    assert finish_page('plan = torch.optim.lr_scheduler.OneCycleLR(o)') == 'plan = torch.optim.lr_scheduler.OneCycleLR(o)', 'code stays'
    assert finish_page('<span class="kw">def</span> fit(x): # `(B,C)`') == '<span class="kw">def</span> fit(x): # `(B,C)`'


def test_numbers_stay_whole_and_sentences_wrap():
    numbers = ('0.5', '-1.9e-05', '0.64 +- 0.19', '5.66 % (5.22 % to 6.13 %)', '(64, 32, 32)', '32x32x3',
               '&gt; 87 %', '145 / 113', '77 (75 to 79) of 500', 'NaN', '&lt;NA&gt;')
    for text in numbers: assert finish_page(f'<td>{text}</td>') == f'<td class="number">{text}</td>'
    for text in ('cat', 'layer4.1.conv2', '<strong>8 bits</strong>', 'not run', '50 to 80 %'): assert finish_page(f'<td>{text}</td>') == f'<td>{text}</td>'
    assert 'class="words"' in finish_page('<td>loses to the blob; its evidence cancels</td>')
    assert finish_page('<th rowspan="2">confident learning</th>') == '<th class="words" rowspan="2">confident learning</th>'
    printed = '<div class="cell-output cell-output-stdout">\n<pre><code>{}</code></pre>\n</div>'
    for text, kind in (('parameters:  layer1 1%  layer2 5%', ' class="sentences"'), ('a sentence\n   its rest', ' class="sentences"'), ('a   1\nb   2', '')):
        assert finish_page(printed.format(text)) == printed.format(text).replace('<pre', f'<pre{kind}'), text
    once = finish_page(printed.format('words') + '<td>1</td>')
    assert finish_page(once) == once, 'a finished page stays as it is'


def test_files_that_the_site_needs_are_there():
    config = load(root/'_quarto.yml')
    for file in (config['website']['favicon'], config['website']['image'], config['format']['html']['css'], 'images/colab-badge.svg', 'katex/katex.min.js'):
        assert (nbs/file).is_file(), file
    style = (nbs/'katex'/'katex.min.css').read_text(encoding='utf-8')
    fonts = set(re.findall(r'url\(([^)]+)\)', style))
    assert len(fonts) == 20 and all((nbs/'katex'/font).is_file() for font in fonts)
    patterns = config['project']['resources']
    for file in ('llms.txt', *(path.relative_to(nbs).as_posix() for folder in ('images', 'katex') for path in (nbs/folder).rglob('*') if path.is_file())):
        assert any(Path(file).match(p) or file.startswith(p.removesuffix('**')) for p in patterns), f'{file} would not be copied to the site'
    assert not re.search(r'https?://(?!www\.w3\.org)', (nbs/'site.css').read_text() + (nbs/'images'/'favicon.svg').read_text())


def test_the_readme_on_pypi_leads_to_github(monkeypatch):
    setuptools = pytest.importorskip('setuptools')
    made = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **options: made.update(options))
    monkeypatch.chdir(root)
    runpy.run_path(str(root/'setup.py'))
    targets = links(made['long_description'])
    assert len(targets) > 20 and all(re.match(r'https?:', target) for target in targets)


workflows = sorted((root/'.github'/'workflows').glob('*.yml'))


@pytest.mark.parametrize('path', [root/'_quarto.yml', nbs/'_quarto.yml', nbs/'sidebar.yml', root/'CITATION.cff', *workflows], ids=lambda path: path.name)
def test_yaml_can_be_read(path):
    assert isinstance(load(path), dict)


@pytest.mark.parametrize('path', workflows, ids=lambda path: path.name)
def test_workflows_may_do_little_and_name_their_actions_by_hash(path):
    flow = load(path)
    assert flow['permissions'] == {'contents': 'read'}, 'more than reading is given to single jobs'
    for title, job in flow['jobs'].items():
        assert 'timeout-minutes' in job, title
        uses = [step['uses'] for step in job['steps'] if 'uses' in step]
        assert all(re.fullmatch(r'[\w.-]+/[\w.-]+@[0-9a-f]{40}', action) for action in uses), uses
        if 'write' in str(job.get('permissions', '')):
            assert not any('run' in step for step in job['steps']), f'{title} may write, so it runs no code of ours'


def test_the_site_is_built_without_the_right_to_publish():
    jobs = load(root/'.github'/'workflows'/'docs.yml')['jobs']
    assert 'permissions' not in jobs['build'] and jobs['deploy']['permissions'] == {'pages': 'write', 'id-token': 'write'}
    steps = ' '.join(step.get('run', '') for step in jobs['build']['steps'])
    assert 'sha256sum --check' in steps and steps.index('sha256sum') < steps.index('dpkg'), 'Quarto is checked before it is installed'


def test_the_tests_run_on_every_python_that_the_package_allows():
    matrix = load(root/'.github'/'workflows'/'test.yml')['jobs']['test']['strategy']['matrix']['python']
    assert matrix == ['3.11', '3.12', '3.13'] and matrix[0] == make_readme.config.min_python


def test_times_are_told_as_a_reader_wants_them(monkeypatch, tmp_path):
    assert [make_readme.duration(seconds) for seconds in ('', '7.6', '89', '91', '600')] == ['-', '8 s', '89 s', '2 min', '10 min']
    import time_lessons
    page = tmp_path/'01_x.ipynb'
    code = lambda text: dict(cell_type='code', source=[text], outputs=[])
    page.write_text(json.dumps(dict(cells=[dict(cell_type='markdown', source=['word ' * 1500]), code('#| hide\na = 1\nb = 2'), code('a = 1\n\nb = 2')])))
    assert time_lessons.reading(page) == (1500, 2, 10)
    stream = io.StringIO('lesson,cpu_seconds,cuda_seconds,cpu,cuda\n01_data,12.2,,AMD EPYC,\n')
    monkeypatch.setattr(make_readme, 'times', lambda: {row['lesson']: row for row in make_readme.csv.DictReader(stream)})
    monkeypatch.setattr(make_readme, 'lessons', lambda: [page.rename(tmp_path/'01_data.ipynb')])
    table = make_readme.lesson_table()
    assert '| reading | run, CPU |\n' in table and '| Python | 10 min | 12 s |' in table and '(CPU: AMD EPYC)' in table and 'GPU' not in table
