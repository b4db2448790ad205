"Writes the owner named in settings.ini into every badge, install cell and link: `make owner`."
import re
from pathlib import Path

from nbdev.config import get_config

root = Path(__file__).resolve().parent.parent
config = get_config(path=root)
places = [*sorted((root/'nbs').rglob('*.ipynb')), root/'_quarto.yml']
address = re.compile(r'(raw\.githubusercontent\.com/|github\.com/|colab\.research\.google\.com/github/)[\w.-]+(/' + config.repo + r'\b)')
site = re.compile(r'https://[\w-]+\.github\.io(/' + config.repo + r'\b)')

for path in places:
    old = path.read_text(encoding='utf-8')
    new = site.sub(rf'https://{config.user}.github.io\1', address.sub(rf'\g<1>{config.user}\g<2>', old))
    if new != old: path.write_text(new, encoding='utf-8')
    print(f'{path.relative_to(root)}: {"changed" if new != old else "as it was"}')
