"""Trains every recipe that has no card in results/ yet, cheapest first, and keeps what it measured.

    python tools/results.py [--device cuda] [--seeds "42 43"] [--only "freeze-10 freeze-6"]

Killed and started again, it goes on where it was: finished recipes keep their cards, an unfinished one its checkpoint.
"""
import json
import subprocess
import sys
import time
from pathlib import Path

from fastcore.script import call_parse

from cifar_cam.core import pick_device, plain_errors, read_run
from cifar_cam.recipes import changed_fields, find_recipe, keep_result

root = Path(__file__).resolve().parent.parent
COSTS = {  # minutes on two CPU cores, about; they decide the order
    'freeze-10': 4, 'freeze-6': 11, 'finetune-all': 14, 'torchvision-scratch': 14, 'layernorm-fast': 25, 'davidnet-triangular': 70,
    'batchnorm-sgd': 75, 'batchnorm-onecycle': 76, 'mini-dropout': 140, 'layernorm-plateau': 150}


def has_card(name, seed, device, folder):
    "True if `folder` holds a card of this recipe as it stands in the registry."
    path = Path(folder)/f'{name}-seed{seed}-{device}.json'
    return path.exists() and not changed_fields(json.loads(path.read_text()))


def missing_runs(only, seeds, device, folder):
    "The (recipe, seed) pairs that have no card yet, cheapest first, one seed after the other."
    names = [find_recipe(name).name for name in only] or list(COSTS)
    return [(name, seed) for seed in seeds for name in sorted(names, key=COSTS.get) if not has_card(name, seed, device, folder)]


def train(name, seed, device, runs):
    "Train `name` in a process of its own; its run folder. A finished run is taken as it is."
    run = runs/f'{name}-seed{seed}-{device}'
    if not (run/'run.json').exists():
        command = [sys.executable, '-m', 'cifar_cam.recipes', name, '--seed', str(seed), '--device', device, '--run', run.name]
        subprocess.run([*command, '--root', str(runs)], check=True)
    if changed := changed_fields(read_run(run).card):
        raise ValueError(f'{run} is not the recipe {name} of today ({"; ".join(changed)}). Remove that folder and start again')
    return run


def measure(name, seed, device, runs, folder):
    "Train `name`, keep its card, and say so; True if all went well."
    start = time.perf_counter()
    try: card = json.loads(keep_result(train(name, seed, device, runs), folder).read_text())
    except subprocess.CalledProcessError as error:
        if error.returncode in (-2, 130): raise KeyboardInterrupt from None
        print(f'== {name}, seed {seed}: training ended with status {error.returncode}', flush=True)
    except (ValueError, OSError) as error: print(f'== {name}, seed {seed}: {error}', flush=True)
    else:
        print(f"== {name}, seed {seed}: {card['test_accuracy']:.2%} (published {find_recipe(name).published or '-'}), {card['split']}, "
              f"in {time.perf_counter() - start:,.0f} s", flush=True)
        return True
    return False


@call_parse
def main(
    device:str='auto', # auto, cpu, cuda, cuda:1, mps
    seeds:str='42', # one or several, with spaces between
    only:str='', # names of recipes, with spaces between; all if empty
    runs:str=str(root/'runs'), # where run folders are kept
    folder:str=str(root/'results'), # where cards are kept
):
    "Train the recipes that have no card yet."
    with plain_errors():
        device, seeds = pick_device(device).type if device == 'auto' else str(pick_device(device)), [int(s) for s in seeds.split()]
        todo = missing_runs(only.split(), seeds, device.split(':')[0], folder)
        print(f'{len(todo)} runs on {device}: {", ".join(f"{n} (seed {s})" for n, s in todo) or "every card is there"}', flush=True)
        try: good = [measure(name, seed, device, Path(runs), Path(folder)) for name, seed in todo]
        except KeyboardInterrupt:
            print('stopped; the same command goes on from here', file=sys.stderr)
            raise SystemExit(130) from None
    if not all(good): raise SystemExit(1)
