"The site: nbdev's half of the build runs whole, offline, and every page keeps its opening and the code that it teaches."
import ast
import json
import sys
from pathlib import Path

import pytest
import yaml

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/'tools'))
from build_docs import build, copy_tree  # noqa: E402

notebooks = sorted((root/'nbs').rglob('*.ipynb'))
numbered = [path for path in notebooks if path.name[0].isdigit()]
names = {path: str(path.relative_to(root/'nbs')) for path in notebooks}

NO_NETWORK = """
import os, socket
def refuse(self, address):
    if self.family == socket.AF_UNIX or str(address[0]) in ('127.0.0.1', '::1', 'localhost'): return connect(self, address)
    with open(os.environ['DOWNLOADS'], 'a') as file: file.write(f'{address}\\n')
    raise OSError('no network while the site is built')
connect, socket.socket.connect = socket.socket.connect, refuse
"""


def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])


def process(folder):
    "The processed pages, made with an empty home, no network, and an npm that only notes that it was called."
    project, tools, downloads = folder/'project', folder/'tools', folder/'downloads.txt'
    for made in (project, tools, folder/'home'): made.mkdir(parents=True)
    copy_tree(project)
    (project/'sitecustomize.py').write_text(NO_NETWORK)
    (tools/'npm').write_text(f'#!/bin/sh\necho npm "$@" >> {downloads}\nexit 1\n')
    (tools/'npm').chmod(0o755)
    before = {path: path.read_bytes() for path in (project/'nbs').rglob('*.ipynb')} | {project/'README.md': (project/'README.md').read_bytes()}
    done = build(project, process_only=True, extra=dict(HOME=str(folder/'home'), DOWNLOADS=str(downloads), PATH_FIRST=str(tools)))
    changed = [path.name for path, old in before.items() if path.read_bytes() != old]
    return dict(status=done.returncode, said=done.stdout[-4000:], changed=changed, downloads=downloads.read_text() if downloads.exists() else '')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "What `process` found, and the folder of its pages."
    folder = tmp_path_factory.mktemp('processed')
    return process(folder) | dict(pages=folder/'project'/'_proc')


def test_the_site_is_processed_without_error_or_download(site):
    assert site['status'] == 0, site['said']
    assert not site['downloads'], f'the build fetched something: {site["downloads"]}'
    assert not site['changed'], 'the build changed its own sources'


@pytest.mark.parametrize('path', notebooks, ids=lambda path: path.stem)
def test_a_page_keeps_its_opening_and_the_code_that_it_teaches(site, path):
    page = cells(site['pages']/names[path])
    text = '\n'.join(source(cell) for cell in page)
    title, promise = source(cells(path)[0]).split('\n\n')
    front = yaml.safe_load(source(page[0]).strip().strip('-'))
    assert (front['title'], front['description']) == (title.removeprefix('# '), promise.removeprefix('> '))
    if path in numbered: assert 'colab.research.google.com' in text and '**Time' in text.replace('**Reading', '**Time')
    opening = source(cells(path)[1])
    assert opening.split('\n\n')[-1][-60:] in text.replace('`', '') or opening[-60:] in text, 'the opening is lost'
    for cell in cells(path):
        if not source(cell).startswith('#| exports'): continue
        code = [line for line in source(cell).split('\n') if line and not line.startswith('#|')]
        assert '\n'.join(code[:3]) in text, f'the page does not show {code[0]}'


def imports_and_more(code):
    "Does a cell import something and also do something else? nbdev runs such a cell alone when it builds the site."
    try: body = ast.parse(code).body
    except SyntaxError: return False  # a line for the shell
    imports = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in body]
    inside = any(isinstance(node, (ast.Import, ast.ImportFrom)) for top in body for node in ast.walk(top))
    defines = all(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in body)
    return (any(imports) and not all(imports)) or (inside and not any(imports) and not defines)


@pytest.mark.parametrize('path', notebooks, ids=lambda path: path.stem)
def test_imports_stand_in_cells_of_their_own(path):
    mixed = [i for i, cell in enumerate(cells(path)) if cell['cell_type'] == 'code' and imports_and_more(source(cell))]
    assert not mixed, f'cells {mixed} mix imports with other code'


def test_the_check_for_mixed_cells_sees_them():
    assert imports_and_more('import shutil\nshutil.rmtree(folder)')
    assert imports_and_more('for x in y:\n    import time')
    assert not imports_and_more('import shutil\nfrom os import path')
    assert not imports_and_more('def f():\n    import time\n    return time')


