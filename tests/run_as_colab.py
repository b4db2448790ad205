"""Runs a notebook as Colab's *Run all* does: `python run_as_colab.py NOTEBOOK`, in the current folder, without nbdev, every cell but the install cell.

Colab knows none of nbdev's flags, has neither nbdev nor this repository, and stops at the first cell that fails. The last line says how long it took.
"""
import json
import os
import sys
import time
from pathlib import Path


class Hidden:
    "Makes nbdev look as if it were not installed."
    names = {'nbdev', 'execnb', 'ghapi'}

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in self.names: raise ModuleNotFoundError(f"No module named '{name}' (Colab has none)", name=name)


def main(path):
    sys.meta_path.insert(0, Hidden())
    from IPython.core.interactiveshell import InteractiveShell  # after the hiding: nothing may bring nbdev in
    from matplotlib_inline.backend_inline import configure_inline_support
    shell, start = InteractiveShell.instance(), time.perf_counter()
    configure_inline_support(shell, os.environ['MPLBACKEND'])  # figures are drawn at the end of a cell
    cells = [cell for cell in json.loads(path.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == 'code']
    for i, cell in enumerate(cells):
        source = ''.join(cell['source'])
        if '!pip install' in source: continue  # the one cell that the simulation does in its own way
        if not shell.run_cell(source, store_history=True).success:
            print(f'\n{path.name}: code cell {i} of {len(cells)} failed:\n{source}', file=sys.stderr)
            return 1
    print(f'\n{path.name}: {len(cells)} code cells in {time.perf_counter() - start:.1f} s')
    return 0


if __name__ == '__main__':
    os.environ.update(NO_ALBUMENTATIONS_UPDATE='1', MPLBACKEND='module://matplotlib_inline.backend_inline')
    status = main(Path(sys.argv[1]).resolve())
    sys.stdout.flush()
    os._exit(status)  # data loaders and widgets may hold threads
