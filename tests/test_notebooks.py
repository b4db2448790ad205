"""Every notebook is a test: all its cells run from top to bottom as in Colab (see run_as_colab.py), in an empty folder and a process of its own.

These are the cells that `nbdev_test` runs, and those that it leaves out.
"""
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
