"""Makes the built site stand on its own: what Quarto loads from other hosts comes from the site's own files, or goes.

    python tools/finish_site.py [FOLDER]     # _docs if not given; prints what is still loaded from elsewhere

Formulas use the KaTeX that lies in nbs/katex, badges the file in nbs/images. The fonts of Google and the two libraries that Quarto adds to
every notebook with a table (require.js and jQuery) are not needed: no page holds a widget. Names in signatures become links.
Cells of tables and printed text are marked by what they hold, so that site.css can keep numbers whole and wrap sentences.
"""
import re
import sys
from html import unescape
from pathlib import Path

root = Path(__file__).resolve().parent.parent
KATEX = re.compile(r'https://cdn\.jsdelivr\.net/npm/katex@[^/"\']+/dist/')
BADGE = 'https://colab.research.google.com/assets/colab-badge.svg'
# an address of Google's fonts holds semicolons itself: what is left of it would spoil the rule after it
FONTS = re.compile(r'@import\s*(?:url\()?\s*["\']?https://fonts\.googleapis\.com[^"\'()]*["\')][^;]*;')
LIBRARIES = re.compile(r'<script[^>]*src="https://cdnjs\.cloudflare\.com/ajax/libs/(?:require\.js|jquery)/[^>]*></script>\s*')
DEFINE = re.compile(r'<script[^>]*>\s*define\(\'jquery\',[^<]*</script>\s*')
LOADS = re.compile(r'<(?:script|img|iframe|source|video|audio)\b[^>]*?\ssrc="(https?://[^"]+)"')
RAW_LINK = re.compile(r'\[`([\w.]+)`\]\((https?://[^)\s<]+)\)')  # nbdev links names in signatures too, where Markdown is not read
UNTYPED = re.compile(r'(?<=\w):NoneType(?=(?:<[^>]*>)*=)')  # nbdev writes the type of the default where there is none
# nbdev writes the whole path of some types; the source has none of these
TYPES = {'torch.nn.modules.module.Module': 'nn.Module', 'torch.optim.lr_scheduler.LRScheduler': 'LRScheduler', 'pathlib.Path': 'Path',
         'collections.abc.Iterable': 'Iterable', 'typing.Any': 'Any'}
CLASS = re.compile(r'(<span class="kw">)def(</span> [A-Z])')  # nbdev writes def for a class
CELL = re.compile(r'<(t[dh])((?: (?!class=)[\w-]+="[^"]*")*)>([^<]+)</\1>')
# also 0.1 +- 0.2, 5 % (4 % to 6 %), 8x8, (64, 8, 8); but not 50 to 80 %, which is the name of a group
NUMBER = re.compile(r'(?!\d[\d.]* to )[-+<>~(\[]{0,2} ?\d[-+\d.,:;%()\[\]/xe ]*(?:(?:to|of) [-+\d.,%) ]+)*|-|NaN|<NA>')
PRINTED = re.compile(r'(<div class="cell-output[^>]*>\s*<pre)(>\s*<code>(.*?)</code>)', re.S)
STYLES = re.compile(r'<link\b(?=[^>]*\brel="(?:stylesheet|preload|icon|preconnect)")[^>]*?\shref="(https?://[^"]+)"')


def plain_types(text):
    "The types of signatures as they are written in the notebooks."
    text = UNTYPED.sub('', text)
    for long, short in TYPES.items(): text = re.sub(rf'(?<![\w.]){re.escape(long)}\b', short, text)
    return text


def mark_cell(found):
    "A cell of a table: a number, which stays on one line, or words, which want a wide column."
    tag, rest, text = found.groups()
    words = unescape(text).strip()
    kind = 'number' if NUMBER.fullmatch(words) else 'words' if len(words) > 16 else ''
    return f'<{tag} class="{kind}"{rest}>{text}</{tag}>' if kind else found[0]


def mark_printed(found):
    "What a cell printed: columns made with spaces stay as they are, sentences may wrap."
    columns = sum(re.search(r'\S {2,}\S', line) is not None for line in found[3].splitlines())
    return found[0] if columns > 1 else f'{found[1]} class="sentences"{found[2]}'


def finish_page(text, up=''):
    "One page; `up` leads from it to the site's first folder, such as '../'."
    text = KATEX.sub(f'{up}katex/', text).replace(f'src="{BADGE}"', f'src="{up}images/colab-badge.svg"')
    text = CLASS.sub(r'\1class\2', RAW_LINK.sub(r'<a href="\2">\1</a>', plain_types(text)))
    text = PRINTED.sub(mark_printed, CELL.sub(mark_cell, text))
    return DEFINE.sub('', LIBRARIES.sub('', FONTS.sub('', text)))


def outside_loads(text):
    "The addresses on other hosts from which a page loads something by itself (links are no loads)."
    return sorted({*LOADS.findall(text), *STYLES.findall(text)})


def finish(folder):
    "All pages and styles of a built site; what is still loaded from elsewhere, page by page."
    left = {}
    for path in sorted(folder.rglob('*.html')):
        name = path.relative_to(folder)
        if name.parts[0] == 'live': continue  # made by hand, with files of its own
        text = finish_page(path.read_text(encoding='utf-8'), '../' * (len(name.parts) - 1))
        path.write_text(text, encoding='utf-8')
        if found := outside_loads(text): left[str(name)] = found
    for path in folder.rglob('*.css'):
        old = path.read_text(encoding='utf-8')
        if (new := FONTS.sub('', old)) != old: path.write_text(new, encoding='utf-8')
    return left


if __name__ == '__main__':
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else root/'_docs'
    if not (place/'index.html').is_file(): raise SystemExit(f'{place} is no built site: run make docs first')
    for page, found in finish(place).items(): print(f'{page} still loads {", ".join(found)}')
    print(f'{place.name}: formulas, badges and fonts are local')
