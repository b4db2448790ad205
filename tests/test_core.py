"""What core keeps and how it notices damage: hashes in files, runs and the package."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cifar_cam
from cifar_cam import core
from cifar_cam.core import finish_run, load_tensors, new_run, package_file, read_run, results_folder, save_tensors

root = Path(__file__).resolve().parent.parent
history = pd.DataFrame({'epoch': [1, 2], 'train_loss': [2.1, 1.7], 'valid_loss': [2.0, 1.8]})


def test_the_list_of_hashes_is_that_of_the_files(tmp_path):
    before = (root/'cifar_cam'/'data_hashes.json').read_text()
    for folder in ('sample', 'weights'): shutil.copytree(root/'cifar_cam'/folder, tmp_path/folder)
    code = f'import sys; sys.path.insert(0, "tools"); from pathlib import Path; from data_hashes import write_hashes; write_hashes(Path({str(tmp_path)!r}))'
    subprocess.run([sys.executable, '-c', code], cwd=root, check=True)
    assert (tmp_path/'data_hashes.json').read_text() == before, 'run: python tools/data_hashes.py'


def test_each_data_file_of_the_package_is_checked(tmp_path, monkeypatch):
    package = tmp_path/'cifar_cam'
    for folder in ('sample', 'weights'): shutil.copytree(root/'cifar_cam'/folder, package/folder)
    shutil.copy(root/'cifar_cam'/'data_hashes.json', package)
    monkeypatch.setattr(core, 'package_folder', lambda: package)
    for name in json.loads((package/'data_hashes.json').read_text()):
        path, content = package_file(name), (package/name).read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 64]) + content[-8:])
        with pytest.raises(ValueError, match=f'{path.name} is not the file that came with the package.*Install the package again'): package_file(name)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f'{path.name} must come with the package'): package_file(name)
        path.write_bytes(content.replace(b'\n', b'\r\n') if path.suffix == '.json' else content) # as git does on Windows
        assert package_file(name) == path
    (package/'data_hashes.json').write_text('{')
    with pytest.raises(ValueError, match='data_hashes.json must come with the package'): package_file('sample/test.png')


def test_a_built_package_checks_its_measured_results(tmp_path, monkeypatch):
    for name in ('setup.py', 'settings.ini', 'README.md', 'LICENSE', 'tools/data_hashes.py'):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        shutil.copy(root/name, tmp_path/name)
    for name in ('cifar_cam', 'results'): shutil.copytree(root/name, tmp_path/name, ignore=shutil.ignore_patterns('__pycache__'))
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '-d', 'lib'], cwd=tmp_path, check=True, capture_output=True)
    package = tmp_path/'lib'/'cifar_cam'
    listed = json.loads((package/'data_hashes.json').read_text())
    files = {f'{p.parent.name}/{p.name}' for folder in ('sample', 'weights', 'results') for p in (package/folder).glob('*')}
    assert files == set(listed) and 'results/cifar10.json' in files
    monkeypatch.setattr(core, 'package_folder', lambda: package)
    assert results_folder() == package/'results'
    with open(package/'results'/'cifar10.json', 'a') as file: file.write(' ')
    with pytest.raises(ValueError, match='cifar10.json is not the file that came with the package'): results_folder()


def test_no_byte_of_a_file_of_tensors_changes_unnoticed(tmp_path):
    path = save_tensors(tmp_path/'a.safetensors', {'w': torch.arange(5, dtype=torch.bfloat16), 'none': torch.ones(0), 'n': torch.tensor(3)}, {'seed': 1})
    content, said = path.read_bytes(), set()
    torch.testing.assert_close(load_tensors(path)[0]['n'], torch.tensor(3))
    for place, bit in enumerate(np.random.default_rng(0).integers(8, size=len(content))):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try: tensors, facts = load_tensors(path)
        except ValueError as error:
            assert str(path) in str(error) and 'Copy or train it again' in str(error)
            said.add(str(error).split(':')[0].replace(str(path), ''))
        else: # the name of the hash itself was hit: a file without a hash, whose content is what it was
            assert b'"sha256":' not in damaged and facts == {'seed': 1} and tensors['w'].tolist() == [0, 1, 2, 3, 4]
    assert any('has changed since' in text for text in said)


def test_files_without_hashes_are_read_as_before(tmp_path):
    from safetensors.torch import save_file
    save_file({'w': torch.ones(2)}, tmp_path/'old.safetensors', metadata={'facts': '{"seed": 1}'})
    assert load_tensors(tmp_path/'old.safetensors')[1] == {'seed': 1}
    run = finish_run(new_run('old', tmp_path), {'w': torch.ones(2)}, history, {'seed': 1})
    (run/'run.json').write_text('{"seed": 1}')
    save_file({'w': torch.ones(2)}, run/'weights.safetensors')
    assert read_run(run).card == {'seed': 1}


def test_a_run_that_is_not_finite_is_not_finished(tmp_path):
    run = new_run('bad', tmp_path)
    for weights, table, card, words in (
            ({'w': torch.tensor([1., torch.nan])}, history, {}, 'weights must be finite numbers; w has others'),
            ({'w': torch.ones(1)}, history.assign(train_loss=np.inf), {}, 'history must have finite numbers in its column train_loss; got inf'),
            ({'w': torch.ones(1)}, history, {'test_loss': float('inf')}, 'card must hold finite numbers'),
            ({'w': torch.ones(1)}, history, {'recipe': {'x': object()}}, 'card must hold what JSON can hold')):
        with pytest.raises((ValueError, TypeError), match=words): finish_run(run, weights, table, card)
        assert not list(run.iterdir())
    finish_run(run, {'w': torch.ones(1)}, history, {'seed': np.int64(42), 'acc': np.float32(.5), 'shape': (1, 2)})
    assert read_run(run).card == {'seed': 42, 'acc': .5, 'shape': [1, 2]}
    json.loads((run/'run.json').read_text(), parse_constant=pytest.fail)


def test_old_names_are_found_with_a_warning():
    for old, new in core.MOVED.items():
        with pytest.warns(DeprecationWarning, match=f'{old} is now cifar_cam.core.{new[5:]}') as seen: assert getattr(core, old) is getattr(core, new[5:])
        assert seen[0].filename == __file__


def test_an_installed_package_inside_a_foreign_repository_has_no_commit(tmp_path):
    site = tmp_path/'repository'/'.venv'/'site-packages'
    shutil.copytree(root/'cifar_cam', site/'cifar_cam', ignore=shutil.ignore_patterns('__pycache__', 'weights', 'sample'))
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c', '-C', tmp_path/'repository']
    for words in (('init', '-q'), ('commit', '-q', '--allow-empty', '-m', 'theirs')): subprocess.run([*git, *words], check=True)
    code = 'from cifar_cam.core import run_card; card = run_card(); print(card["commit"], card["version"])'
    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')} | {'PYTHONPATH': str(site)}
    ran = subprocess.run([sys.executable, '-c', code], cwd=tmp_path/'repository', env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ['unknown', cifar_cam.__version__]


def test_temporary_files_of_killed_processes_go(tmp_path):
    code = (f'import os, signal\nfrom cifar_cam.core import atomic_path\nwith atomic_path({str(tmp_path/"a.txt")!r}) as part:\n'
            '    part.write_text("half")\n    os.kill(os.getpid(), signal.SIGKILL)')
    assert subprocess.run([sys.executable, '-c', code]).returncode == -9
    left, = tmp_path.glob('.a.txt.*.part')
    save_tensors(tmp_path/'a.txt', {})
    assert left.exists() # it may be in use
    os.utime(left, (0, 0))
    with core.atomic_path(tmp_path/'b.txt') as part: part.write_text('other')
    assert left.exists() # not its own
    save_tensors(tmp_path/'a.txt', {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.txt', 'b.txt']
