"Writes README.md from nbs/index.ipynb: its markdown, and the outputs of the cells that are not hidden."
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
(root/'README.md').write_text(head + '\n\n'.join(part.strip() for part in parts) + '\n', encoding='utf-8')
