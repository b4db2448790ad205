"""Which change helps the small LayerNorm network? results/ablation.csv, one row a run.

    python tools/ablation.py                 # three seeds, about 2.5 minutes a run on one core; finished runs keep their rows
    python tools/ablation.py --seeds "44"    # one of them, such as on another core
"""
from pathlib import Path

import pandas as pd
import torch
from fastcore.script import call_parse

from cifar_cam.ablation import ABLATION, small_run
from cifar_cam.core import atomic_path, plain_errors

table = Path(__file__).resolve().parent.parent/'results'/'ablation.csv'


def known():
    "The rows that are there."
    return pd.read_csv(table) if table.exists() else pd.DataFrame(columns=['run', 'seed'])


@call_parse
def main(
    seeds:str='42 43 44', # with spaces between
    device:str='auto', # auto, cpu, cuda, cuda:1, mps
):
    "Train the small network once for each setting and seed that has no row yet."
    torch.set_flush_denormal(True)
    with plain_errors():
        if not all(seed.isdigit() for seed in seeds.split()): raise ValueError(f"seeds must be whole numbers, such as '42 43'; got {seeds!r}")
        for seed in map(int, seeds.split()):
            for name, settings in ABLATION.items():
                if ((known().run == name) & (known().seed == seed)).any(): continue
                row = small_run(seed=seed, device=device, **settings)
                with atomic_path(table) as part: pd.concat([known(), pd.DataFrame([dict(run=name, **row)])]).to_csv(part, index=False)
                print(f"{name}, seed {seed}: {row['accuracy']:.2%} of {row['images']:,} validation images, {row['seconds']:.0f} s", flush=True)
