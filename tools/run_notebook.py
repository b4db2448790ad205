"""Runs one notebook afresh and keeps its outputs: `python tools/run_notebook.py 05 [slow,cuda]`.

With `slow` the cells behind `LONG` run too, and what they wrote into `results/` moves to the repository's folder.
"""
import base64
import io
import os
import sys
import time
from pathlib import Path

os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.process import extract_directives
from PIL import Image

root = Path(__file__).resolve().parent.parent
config = get_config(path=root)


class Shell(CaptureShell):
    "Of a figure that is drawn anew while a cell runs it keeps the last drawing, as Jupyter does."
    def _run(self, *args, **options):
        ran, shown = super()._run(*args, **options), {}
        for n, output in enumerate(ran.display_objects):
            shown[(output.transient or {}).get('display_id', n)] = output
        ran.display_objects = list(shown.values())
        return ran


def find_notebook(name):
    "The one notebook whose file name starts with `name` (`05`, `05_train` or a path)."
    stem, known = Path(name).name.removesuffix('.ipynb'), sorted((root/'nbs').rglob('*.ipynb'))
    for hits in ([p for p in known if p.stem == stem], [p for p in known if p.stem.startswith(f'{stem}_')]):
        if len(hits) == 1: return hits[0]
    raise SystemExit(f'NB must name one notebook; {name!r} fits {len(hits)}. Choose one of: {", ".join(p.stem for p in known)}')


def is_skipped(cell, flags):
    "True for a cell that this run leaves alone, with its saved outputs."
    directives = extract_directives(cell, remove=False)
    if directives.get('eval:', ['true'])[0].lower() == 'false': return True
    return any(f in directives for f in flags)


def lighter(png, least=20_000):
    "A figure of more than `least` bytes with 256 colours, a third of its bytes; both as base64."
    if len(png) * 3 // 4 < least: return png
    file, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB')
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(file, 'PNG', optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def tidy(output, places):
    "One output without what differs from run to run or names a place on this machine; None drops it."
    if output.get('name') == 'stderr': return None
    data = output.get('data', {})
    if 'image/png' in data: data['image/png'] = lighter(''.join(data['image/png']))
    if any('widget' in mime for mime in data):
        data = {m: v for m, v in data.items() if 'widget' not in m}
        output['data'] = data
        if set(data) <= {'text/plain'}: return None
    for holder, key in [(output, 'text')] + [(data, m) for m in data if m.startswith('text/')]:
        if key in holder:
            text = ''.join(holder[key])
            for place, short in places: text = text.replace(place, short)
            holder[key] = text.splitlines(keepends=True)
    return output


def run(path, run_flags=()):
    "Run `path` in `nbs/` and write it back with new outputs; stops at the first error and writes nothing."
    skip = [f for f in config.tst_flags.split() if f not in run_flags]
    nb, kept, sources = read_nb(path), {}, {}
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != 'code': continue
        if is_skipped(cell, skip): kept[i] = cell.get('outputs', [])
        cell.outputs = []  # a cell that says nothing any more would keep what it said before
        sources[i] = cell.source
        if 'slow' in run_flags: cell.source = cell.source.replace('LONG = False', 'LONG = True')
    os.chdir(root/'nbs')
    sys.path.insert(0, str(root))
    shell, start = Shell(mpl_format='png'), time.perf_counter()  # png: 100 dots an inch, not twice as many
    shell.run_all(nb, exc_stop=True, preproc=lambda cell: cell.cell_type == 'code' and is_skipped(cell, skip))
    if shell.exc: raise SystemExit(f'{path.name} failed: {shell.exc[1]!r}; nothing was written')
    places = [(str(root) + '/', ''), (str(root), '.'), (str(Path.home()), '~')]
    for i, source in sources.items(): nb.cells[i].source = source
    for file in Path('results').glob('*'): file.replace(root/'results'/file.name)
    for i, cell in enumerate(nb.cells):
        if i in kept: cell.outputs = kept[i]
        elif cell.cell_type == 'code':
            cell.outputs = [o for o in (tidy(o, places) for o in cell.get('outputs', [])) if o]
    clean_nb(nb)
    write_nb(nb, path)
    print(f'{path.name}: {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    if len(sys.argv) < 2: raise SystemExit(__doc__)
    run(find_notebook(sys.argv[1]), sys.argv[2].split(',') if len(sys.argv) > 2 else ())
