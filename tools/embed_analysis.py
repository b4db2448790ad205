"Ships what notebook 07 measured with LONG = True: `python tools/embed_analysis.py nbs/results/test_analysis.safetensors`."
import sys
from pathlib import Path

from cifar_cam.core import load_tensors
from cifar_cam.mistakes import fingerprint
from cifar_cam.resnet import load_pretrained

shipped = Path(__file__).resolve().parent.parent/'results'/'test_analysis.safetensors'


def embed(source, target=shipped):
    "Move the analysis `source` to `target`, unless it belongs to other weights or holds less than what is there."
    tensors, facts = load_tensors(source)
    if facts.get('fingerprint') != (mine := fingerprint(load_pretrained())):
        raise SystemExit(f'{source} was made with the weights {facts.get("fingerprint")}, the embedded ones are {mine}; nothing was changed')
    missing = set(load_tensors(target)[0]) - set(tensors) if target.is_file() else set()
    if missing:
        raise SystemExit(f'{source} lacks {", ".join(sorted(missing))}; nothing was changed. '
                         'Without maps of a second network, put its run folder into nbs/runs and run the notebook again')
    Path(source).replace(target)
    print(f'{target}: {target.stat().st_size/1e6:.1f} MB, made on {facts.get("hardware")}')


if __name__ == '__main__':
    if len(sys.argv) != 2: raise SystemExit(__doc__)
    embed(Path(sys.argv[1]))
