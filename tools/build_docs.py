"""Builds the site into _docs/ from a copy of the tree, so that README.md and the notebooks stay as they are, also after a failed build.

    python tools/build_docs.py              # the whole site; needs Quarto on the PATH
    python tools/build_docs.py --process    # nbdev's half alone, into _proc/, without Quarto: which cells and signatures the pages will hold
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def copy_tree(target):
    "Copies what git tracks or would track, and the folders that other commands made for the site."
    listed = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=root, capture_output=True, text=True, check=True).stdout
    built = [str(p.relative_to(root)) for p in (root/'nbs'/'live').rglob('*') if p.is_file()]
    for name in sorted({*filter(None, listed.split('\0')), *built}):
        if not (root/name).is_file(): continue
        (target/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root/name, target/name)


def build(target, process_only=False, extra=None):
    "Runs nbdev on the copy in `target`; what it prints comes back, an error names the first cell that failed."
    path = [str(Path(sys.executable).parent), os.environ['PATH']]
    if process_only:  # nbdev only asks whether there is a Quarto
        stub = target/'.quarto-stub'/'quarto'
        stub.parent.mkdir()
        stub.write_text('#!/bin/sh\necho 1.7.34\n')
        stub.chmod(0o755)
        path.insert(0, str(stub.parent))
    env = dict(os.environ, NO_ALBUMENTATIONS_UPDATE='1', PYTHONPATH=str(target), **(extra or {}))
    env['PATH'] = ':'.join([*filter(None, [env.get('PATH_FIRST')]), *path])
    command = 'nbdev_proc_nbs' if process_only else 'nbdev_docs'
    # one process: nbdev's workers have waited for each other for ever on a busy machine
    return subprocess.run([command, '--n_workers', '0'], cwd=target, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    process_only = '--process' in sys.argv
    made = '_proc' if process_only else '_docs'
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)/'project'
        target.mkdir()
        copy_tree(target)
        done = build(target, process_only)
        print(done.stdout, end='')
        if done.returncode or not (target/made).is_dir(): raise SystemExit(f'the build failed with status {done.returncode}; {made}/ is as it was')
        shutil.rmtree(root/made, ignore_errors=True)
        shutil.move(target/made, root/made)
    print(f'{len(list((root/made).rglob("*.html" if made == "_docs" else "*.ipynb")))} pages in {made}/')


if __name__ == '__main__': main()
