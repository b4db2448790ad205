"""Which change helps the small LayerNorm network? results/ablation.csv, one row a run.

    python tools/ablation.py                 # 63 runs of two to eight minutes on one core; finished runs keep their rows
    python tools/ablation.py --seeds "44"    # some of them, such as on another core
"""
from pathlib import Path

import pandas as pd
import torch
from fastcore.script import call_parse

from cifar_cam.ablation import ABLATION, small_run
from cifar_cam.core import atomic_path, choice_error, plain_errors

table = Path(__file__).resolve().parent.parent/'results'/'ablation.csv'
WIDER = {name: settings for name, settings in ABLATION.items() if 'width' in settings}
SMALL = {name: settings for name, settings in ABLATION.items() if name not in WIDER}
RUNS = {'42': SMALL, '43': SMALL, '44': SMALL, '45': WIDER, '46': WIDER, '47': WIDER}  # seed -> its runs


def known():
    "The rows that are there."
    return pd.read_csv(table) if table.exists() else pd.DataFrame(columns=['run', 'seed'])


@call_parse
def main(
    seeds:str=' '.join(RUNS), # with spaces between
    device:str='auto', # auto, cpu, cuda, cuda:1, mps
):
    "Train the small network once for each setting and seed that has no row yet."
    torch.set_flush_denormal(True)
    with plain_errors():
        if strange := set(seeds.split()) - set(RUNS): raise choice_error('seeds', min(strange), RUNS)
        for seed in seeds.split():
            for name, settings in RUNS[seed].items():
                if ((known().run == name) & (known().seed == int(seed))).any(): continue
                row = small_run(seed=int(seed), device=device, **settings)
                row = {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
                with atomic_path(table) as part: pd.concat([known(), pd.DataFrame([dict(run=name, **row)])]).to_csv(part, index=False)
                print(f"{name}, seed {seed}: {row['accuracy']:.2%} of {row['images']:,} validation images, {row['seconds']:.0f} s", flush=True)
