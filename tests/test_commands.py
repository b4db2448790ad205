"The commands as a person types them, on the embedded sample, without network: one path in processes of its own, the rest in this one."
import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SMALL = '''# read by every Python that starts: the network of the recipe becomes one that is trained in a second
from torch import nn
import cifar_cam.recipes as recipes
recipes.MODELS['layernorm'] = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
'''


@pytest.fixture
def type_in(tmp_path, monkeypatch, capsys):
    "Runs the script of a command in this process: exit status, stdout, stderr."
    monkeypatch.chdir(tmp_path)
    def run(command, *options):
        monkeypatch.setattr(sys, 'argv', [str(BIN/command), *options])
        try: runpy.run_path(str(BIN/command), run_name='__main__')
        except SystemExit as leaving: status = leaving.code or 0
        return status, *capsys.readouterr()
    return run


def test_train_then_report(tmp_path, monkeypatch, type_in):
    (tmp_path/'sitecustomize.py').write_text(SMALL)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, [str(tmp_path), os.environ.get('PYTHONPATH')])))
    def run(command, *options): return subprocess.run([BIN/command, *options], cwd=tmp_path, capture_output=True, text=True)
    trained = run('cifar_cam_train', 'layernorm-fast', '--sample', '--images', '128', '--epochs', '1', '--device', 'cpu', '--run', 'short')
    assert trained.returncode == 0, trained.stderr
    assert 'on 1,000 images (128 train' in trained.stdout
    card = json.loads((tmp_path/'runs'/'short'/'run.json').read_text())
    assert (card['recipe']['name'], card['seed'], card['test_images']) == ('layernorm-fast', 42, 1000)
    reported = run('cifar_cam_report', 'runs/short', '--data', 'sample')
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path/'runs'/'short'/'report.html').stat().st_size > 50_000
    status, _, said = type_in('cifar_cam_train', 'layernorm-fast', '--sample', '--run', 'short')
    assert status == 2 and 'finished already' in said and len(said.strip().splitlines()) == 1


def test_mistakes_at_the_command_line_get_one_line(tmp_path, type_in):
    wrong = {('cifar_cam_train', 'layernorm-fats'): 'layernorm-fast', ('cifar_cam_train', 'layernorm-fast', '--sample', '--images', '5000'): 'got 5000',
             ('cifar_cam_train', 'layernorm-fast', '--sample', '--epochs', '0'): 'got 0',
             ('cifar_cam_train', 'layernorm-fast', '--sample', '--device', 'tpu'): "got 'tpu'",
             ('cifar_cam_report', 'runs/nothing'): 'does not exist',
             ('cifar_cam_data', '--source', str(tmp_path/'nothing'), '--root', str(tmp_path/'cache')): 'nothing'}
    for command, words in wrong.items():
        status, _, said = type_in(*command)
        assert status == 2 and len(said.strip().splitlines()) == 1 and said.startswith('error: ') and words in said, (command, said)
    assert not list(tmp_path.glob('runs/*/run.json'))


OPTIONS = {'cifar_cam_data': ['--source', '--root'], 'cifar_cam_report': ['RUN', '--data', '--rule', '--images', '--seed', '--root'],
           'cifar_cam_train': ['--epochs', '--images', '--lr', '--seed', '--device', '--run', '--sample'], 'cifar_cam_demo': ['--root']}


def test_there_are_four_commands():
    assert {point.name for point in entry_points(group='console_scripts') if point.name.startswith('cifar_cam_')} == set(OPTIONS)


@pytest.mark.parametrize('command', OPTIONS)
def test_help_names_every_option(type_in, command):
    status, said, _ = type_in(command, '--help')
    assert status == 0 and 'usage' in said
    for option in OPTIONS[command]: assert option in said
