"""Every notebook is a test: all its cells run from top to bottom as in Colab (see run_as_colab.py), in an empty folder and a process of its own.

These are the cells that `nbdev_test` runs, and those that it leaves out.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

here = Path(__file__).resolve().parent
notebooks = sorted(path for path in (here.parent/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts)


@pytest.mark.parametrize('notebook', notebooks, ids=lambda path: path.stem)
def test_notebook(notebook, tmp_path):
    before = tree(here.parent)
    done = subprocess.run([sys.executable, here/'run_as_colab.py', notebook], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env=dict(os.environ, PYTHONPATH=str(here.parent)))
    print(done.stdout[-200:])
    assert done.returncode == 0, f'{notebook.name} failed:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}'
    assert tree(here.parent) == before, 'a notebook writes into the working folder only'


def tree(root):
    "Names, sizes and times of the files that could be written by mistake: of the package, its results and its notebooks."
    folders = [root/name for name in ('cifar_cam', 'results', 'nbs')]
    files = [path for folder in folders for path in folder.rglob('*') if path.is_file() and '__pycache__' not in path.parts]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_there_are_notebooks():
    assert len(notebooks) >= 12


@pytest.fixture(scope='module')
def own_run(tmp_path_factory):
    "A run folder as a reader has one: the ResNet-18 with LayerNorm after one step."
    from cifar_cam.core import new_run
    from cifar_cam.recipes import find_recipe, recipe_data, run_recipe
    data = {part: (images[:8], labels[:8]) for part, (images, labels) in recipe_data(sample=True).items()}
    run = new_run('own', tmp_path_factory.mktemp('runs'))
    run_recipe(find_recipe('layernorm-plateau', epochs=1, batch_size=8), run, data, device='cpu', precision='float32', progress=False)
    return run


@pytest.mark.parametrize('lesson, last', [('06_gradcam', 'naive = naive_grad_cam('), ('07_cam_methods', 'at_layer3 = ['),
                                          ('08_faithfulness', 'few_maps, few_logits = ')])
def test_a_lesson_takes_a_run_of_the_readers_own(lesson, last, own_run, tmp_path):
    "From the first cell to its first maps, with `RUN` set to that folder."
    cells = json.loads((here.parent/'nbs'/f'{lesson}.ipynb').read_text(encoding='utf-8'))['cells']
    cells = [cell for cell in cells if cell['cell_type'] == 'code']
    cells = cells[:next(i for i, cell in enumerate(cells) if last in ''.join(cell['source'])) + 1]
    changed = [cell for cell in cells if ''.join(cell['source']).startswith('RUN = None')]
    assert len(changed) == 1
    changed[0]['source'] = ''.join(changed[0]['source']).replace('RUN = None', f'RUN = {str(own_run)!r}', 1)
    check = f"from cifar_cam.core import read_run\nassert (model.fc.weight.cpu() == read_run({str(own_run)!r}).weights['fc.weight']).all()"
    (tmp_path/'own.ipynb').write_text(json.dumps(dict(cells=[*cells, dict(cell_type='code', source=check)])))
    done = subprocess.run([sys.executable, here/'run_as_colab.py', tmp_path/'own.ipynb'], cwd=tmp_path, capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=str(here.parent)))
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
