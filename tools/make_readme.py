"Writes README.md (or the file that is named) from nbs/index.ipynb: its markdown, and the outputs of the cells that are not hidden."
import sys
from pathlib import Path

from execnb.nbio import read_nb
from nbdev.process import extract_directives

root = Path(__file__).resolve().parent.parent
parts = []
for cell in read_nb(root/'nbs'/'index.ipynb').cells:
    if cell.cell_type == 'markdown': parts.append(cell.source)
    elif 'hide' not in extract_directives(cell, remove=False):
        parts += [''.join(o['data']['text/markdown']) for o in cell.outputs if 'text/markdown' in o.get('data', {})]
head = '<!-- Made from nbs/index.ipynb by tools/make_readme.py: change it there. -->\n\n'
target = Path(sys.argv[1]) if len(sys.argv) > 1 else root/'README.md'
target.write_text(head + '\n\n'.join(part.strip() for part in parts) + '\n', encoding='utf-8')
