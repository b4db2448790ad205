"Every notebook is a test: its unflagged cells run from top to bottom, as `nbdev_test` runs them."
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb as run_notebook_cells

config = get_config()
notebooks = sorted(nbglob(as_path=True))


@pytest.mark.parametrize('notebook', notebooks, ids=lambda path: path.stem)
def test_notebook(notebook, monkeypatch, capfd):
    monkeypatch.chdir(config.nbs_path)
    monkeypatch.setenv('IN_TEST', '1')
    ok, seconds = run_notebook_cells(
        notebook, skip_flags=config.tst_flags.split(), basepath=config.config_path, do_print=False)
    assert ok, f'{notebook.name} failed:\n{capfd.readouterr().err}'


def test_there_are_notebooks():
    assert len(notebooks) >= 8
