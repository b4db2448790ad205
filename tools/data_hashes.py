"""Writes cifar_cam/data_hashes.json: the sha256 of each data file that the package reads. Run it after changing one.

In the checkout these are the sample and the weights. setup.py adds the measured results while it builds a wheel: in a checkout
they are files that one works on, in an installed package they must be what came with it.
"""
import hashlib
import json
from pathlib import Path

FOLDERS = ('sample', 'weights', 'results')
TEXT = ('.csv', '.json', '.md')  # git on Windows may write their lines with \r\n


def list_hashes(package):
    "Such as {'sample/test.png': '5c0f...'}: every data file in the folder of the package."
    found = {}
    for path in sorted(p for folder in FOLDERS for p in (package/folder).glob('*') if p.is_file() and p.name[0] not in '._'):
        content = path.read_bytes()
        if path.suffix in TEXT: content = content.replace(b'\r\n', b'\n')
        found[f'{path.parent.name}/{path.name}'] = hashlib.sha256(content).hexdigest()
    return found


def write_hashes(package):
    "Write the list into the folder of the package."
    (package/'data_hashes.json').write_text(json.dumps(list_hashes(package), indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__': write_hashes(Path(__file__).resolve().parent.parent/'cifar_cam')
