"""Simulates Colab: `make colab`, or `python tools/colab.py [NOTEBOOK ...]`.

A fresh environment with Colab's versions, the wheel of this checkout installed into it as a reader's install cell would do, and then every cell of every
notebook in order from another folder, long cells switched off as they are saved. Ends with 1 if a cell fails or an installed package changed.
PYTHON313 names another Python 3.13; the environment is kept in .colab/ for the next time.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
versions = root/'tools'/'colab_versions.txt'


def run(*command, **options): return subprocess.run([str(part) for part in command], check=True, **options)


def environment(folder):
    "The Python of an environment that holds what Colab has preinstalled."
    python, mark = folder/'bin'/'python', folder/'versions.txt'
    if mark.is_file() and mark.read_text() == versions.read_text(): return python
    base = os.environ.get('PYTHON313') or shutil.which('python3.13')
    if not base: print(f'no Python 3.13 here (set PYTHON313): Python {sys.version.split()[0]} stands in')
    shutil.rmtree(folder, ignore_errors=True)
    run(base or sys.executable, '-m', 'venv', folder)
    run(python, '-m', 'pip', 'install', '--quiet', '-r', versions)
    mark.write_text(versions.read_text())
    return python


def installed(python):
    "Name -> version of every package but ours."
    lines = run(python, '-m', 'pip', 'list', '--format=freeze', capture_output=True, text=True).stdout.split()
    return {name: version for name, version in (line.split('==') for line in lines) if name not in ('cifar_cam', 'cifar-cam')}


def main(wanted):
    python = environment(root/'.colab')
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', folder, root)
        before = installed(python)
        run(python, '-m', 'pip', 'install', '--quiet', next(Path(folder).glob('*.whl')))
        after = installed(python)
        changed = {name: (old, after.get(name)) for name, old in before.items() if after.get(name) != old}
        added = sorted(set(after) - set(before))
        print(f'{run(python, "--version", capture_output=True, text=True).stdout.strip()}; added by the install: {", ".join(added) or "nothing"}; '
              f'changed: {changed or "nothing"}', flush=True)
        failed = notebooks(python, Path(folder), wanted)
        run(python, '-m', 'pip', 'uninstall', '--quiet', '--yes', 'cifar_cam', *added)  # as bare as before, for the next time
    raise SystemExit(f'failed: {", ".join(failed)}; changed: {changed}' if failed or changed else 0)


def notebooks(python, folder, wanted):
    "Runs the notebooks from an empty folder each; returns the names of those that failed."
    paths = [p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts and (not wanted or p.stem in wanted)]
    env, failed = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}, []
    for path in paths:
        place, start = folder/path.stem, time.perf_counter()
        place.mkdir()
        done = subprocess.run([python, root/'tests'/'run_as_colab.py', path], cwd=place, env=env, capture_output=True, text=True)
        print(f'{path.stem:16} {"ok" if done.returncode == 0 else "FAILED":7} {time.perf_counter() - start:6.1f} s', flush=True)
        if done.returncode:
            failed.append(path.stem)
            print(done.stdout[-3000:], done.stderr[-3000:], sep='\n', flush=True)
    return failed


if __name__ == '__main__': main(sys.argv[1:])
