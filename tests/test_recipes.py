"The recipes against what their authors state, word for word in numbers; and the command that runs them all."
import importlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifar_cam import recipes
from cifar_cam.augment import PIPELINES
from cifar_cam.core import finish_run, new_run
from cifar_cam.recipes import MODELS, RECIPES, changed_fields, find_recipe, keep_result, recipe_data, results_table
from cifar_cam.optimizer import make_optimizer
from cifar_cam.train import make_schedule

root = Path(__file__).resolve().parent.parent


def rates_at_epoch_ends(name, steps, **changes):
    "The learning rate of recipe `name` after each epoch."
    recipe = find_recipe(name, **changes)
    optimizer = make_optimizer(nn.Linear(2, 2), recipe.optimizer, recipe.lr, recipe.weight_decay, momentum=recipe.momentum)
    schedule, rates = make_schedule(recipe.schedule, optimizer, recipe.epochs, steps, **recipe.schedule_options), []
    for step in range(recipe.epochs*steps):
        optimizer.step()
        schedule.step()
        if (step + 1) % steps == 0: rates.append(optimizer.param_groups[0]['lr'])
    return rates


@pytest.mark.parametrize('steps', [98, 88])  # the author's 50,000 images, our 45,000
def test_davidnet_has_the_24_rates_that_its_author_prints(steps):
    down = [0.45312, 0.43424, 0.41536, 0.39648, 0.3776, 0.35872, 0.33984, 0.32096, 0.30208, 0.2832, 0.26432, 0.24544, 0.22656, 0.20768,
            0.1888, 0.16992]
    printed = [0.0944, 0.16992, 0.24544, 0.32096, 0.39648, 0.472, *down, 0.04248, 0.02832]
    np.testing.assert_allclose(rates_at_epoch_ends('davidnet-triangular', steps), printed, rtol=0.01)  # half a step further on


@pytest.mark.parametrize('steps', [391, 352])
def test_onecycle_has_the_rates_that_its_author_prints_for_epochs_15_to_20(steps):
    rates = rates_at_epoch_ends('batchnorm-onecycle', steps)
    printed = [1.6585e-4, 1.3267e-4, 9.9495e-5, 6.6319e-5, 3.3142e-5, -3.5e-8]
    np.testing.assert_allclose(rates[14:], printed, rtol=0.01, atol=0.01*3.3e-5)
    assert np.argmax(rates) == 4 and abs(rates[4] - 5e-4) < 0.01*5e-4  # the rise takes five epochs
    if steps == 391: np.testing.assert_allclose(rates[19], -3.5e-8, rtol=0.01)  # PyTorch's one step past the end


def test_a_shorter_or_slower_run_keeps_the_shape_of_the_printed_rates():
    whole = rates_at_epoch_ends('davidnet-triangular', 10)
    np.testing.assert_allclose(rates_at_epoch_ends('davidnet-triangular', 20, epochs=12), whole[1::2], rtol=1e-9)
    np.testing.assert_allclose(rates_at_epoch_ends('davidnet-triangular', 10, lr=0.0472), np.array(whole)/10, rtol=1e-9)


def test_a_cosine_over_200_epochs_hardly_falls_in_20():
    rates = rates_at_epoch_ends('torchvision-scratch', 313)
    np.testing.assert_allclose(rates, 0.005*(1 + np.cos(np.pi*np.arange(1, 21)/200)), rtol=1e-6)


crop = "RandomCrop(padding=4, border='zeros')"
half, imagenet = ((0.5,)*3, (0.5,)*3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
cifar = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
transfer = dict(optimizer='adam', lr=1e-3, schedule='cosine', epochs=20, batch_size=128, weight_decay=0, valid=10_000)
STATED = {  # recipe -> fields that its author states; parameters; transforms; normalisation
    'layernorm-plateau': (dict(optimizer='adam', lr=1e-3, weight_decay=1e-4, schedule='plateau', epochs=40), 11_173_962,
                          [crop, 'CutOut(size=16', 'Rotate(limit=5', 'CoarseDropout('], cifar),
    'batchnorm-sgd': (dict(optimizer='sgd', lr=0.01, batch_size=64), 11_173_962, None, cifar),
    'torchvision-scratch': (transfer | dict(lr=0.01), 11_181_642, [], half),
    'finetune-all': (transfer, 11_181_642, [], half),
    'freeze-6': (transfer, 11_176_512 + 133_898, [], half),
    'freeze-10': (transfer, 11_176_512 + 133_898, [], half),
    'mini-dropout': (dict(optimizer='adam', lr=1e-3, schedule='cosine', epochs=50, batch_size=128, valid=45_000), 11_181_642,
                     ['Resize(size=224)', 'HorizontalFlip(p=0.4)', 'Rotate(limit=30'], imagenet),
    'davidnet-triangular': (dict(lr=0.472, epochs=24, batch_size=512), 6_713_674, [crop, 'HorizontalFlip(p=0.5)', 'CutOut(size=8'], cifar),
    'batchnorm-onecycle': (dict(optimizer='adam', weight_decay=1e-3, schedule='onecycle', epochs=20, batch_size=128), 11_173_962,
                           [crop, 'CutOut(size=16'], cifar)}


def untrained(monkeypatch):
    "Let the builders make the same networks without ImageNet's weights."
    from cifar_cam import transfer
    monkeypatch.setattr(transfer, 'imagenet_weights', lambda: transfer.TransferResNet().state_dict())


@pytest.mark.parametrize('name', STATED)
def test_a_recipe_is_what_its_author_states(name, monkeypatch):
    untrained(monkeypatch)
    fields, parameters, transforms, (mean, std) = STATED[name]
    recipe = RECIPES[name]
    assert {key: getattr(recipe, key) for key in fields} == fields
    assert sum(p.numel() for p in MODELS[recipe.model]().parameters()) == parameters
    *steps, last = PIPELINES[recipe.pipeline]
    if transforms is not None:
        assert len(steps) == len(transforms) and all(repr(s).startswith(t) for s, t in zip(steps, transforms, strict=True)), steps
    np.testing.assert_allclose([last.mean, last.std], [mean, std], atol=5e-4)
    if recipe.schedule == 'cosine': assert recipe.schedule_options == {'span': 200}
    assert recipe.published and ('assumed: ' in recipe.note)


def test_every_recipe_of_an_author_is_in_the_table_above():
    assert set(STATED) | {'layernorm-fast'} == set(RECIPES)


def test_which_weights_train_and_what_the_heads_are(monkeypatch):
    untrained(monkeypatch)
    trains = {name: {n.split('.')[0] for n, p in MODELS[name]().named_parameters() if p.requires_grad} for name in MODELS if '-' in name}
    layers = {'layer2', 'layer3', 'layer4', 'fc'}
    assert trains == {'finetune-all': layers | {'conv1', 'bn1', 'layer1'}, 'mini-dropout': layers | {'conv1', 'bn1', 'layer1'},
                      'freeze-6': layers, 'freeze-10': {'fc'}}
    kinds = {name: [type(m).__name__ for m in MODELS[name]().fc] for name in ('freeze-6', 'freeze-10', 'mini-dropout')}
    small = ['Linear', 'ReLU', 'Dropout', 'Linear']
    assert kinds == {'freeze-6': small, 'freeze-10': small, 'mini-dropout': ['Dropout', 'Linear']}
    assert MODELS['freeze-6']().fc[2].p == 0.2 and MODELS['mini-dropout']().fc[0].p == 0.3


def test_only_three_networks_ask_for_imagenets_weights(monkeypatch):
    from cifar_cam import transfer
    asked = []
    monkeypatch.setattr(transfer, 'imagenet_weights', lambda: asked.append(name) or transfer.TransferResNet().state_dict())
    for name in MODELS: MODELS[name]()
    assert asked == ['finetune-all', 'freeze-6', 'freeze-10']


def test_splits_share_no_image_and_add_up():
    for valid, train in ((5000, 900), (10_000, 800), (45_000, 100), (0, 1000)):
        data = recipe_data(sample=True, valid=valid)
        assert len(data['train'][1]) == train
        bytes_of = [{image.tobytes() for image in data[part][0]} for part in ('train', 'valid')]
        assert not valid or (len(data['valid'][1]) == 1000 - train and not bytes_of[0] & bytes_of[1])


@pytest.mark.parametrize('changes, message', [
    (dict(model='batchnrm'), "Did you mean 'batchnorm'"), (dict(schedule='printd'), 'schedule must be one of'), (dict(optimizer='adm'), 'optimizer must be'),
    (dict(pipeline='crop'), 'pipeline'), (dict(epochs='3'), 'epochs must be a whole number'), (dict(lr='a'), 'lr must be a finite number'),
    (dict(batch_size=0), 'batch_size must be'), (dict(epochs=0), 'epochs must be'), (dict(valid=50_000), 'valid must be'),
    (dict(schedule='plateau', valid=0), 'valid must be above 0'), (dict(schedule_options={'spann': 3}), 'spann')])
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(ValueError, match=message): find_recipe('torchvision-scratch', **changes)


def card_of(name, **facts):
    "A card as `cifar_cam_train` writes it."
    recipe = json.loads(json.dumps(asdict(RECIPES[name])))
    return dict(recipe=recipe, seed=42, device='cpu', hardware='a machine', threads=1, test_accuracy=0.9, test_images=10_000, train_images=40_000,
                valid_images=10_000, steps=2, split='40,000 train / 10,000 held back') | facts


def write_run(path, card):
    history = pd.DataFrame([dict(epoch=1, step_seconds=0.5), dict(epoch=2, step_seconds=1.5)])
    return finish_run(new_run(path.name, path.parent), {'w': torch.zeros(1)}, history, card)


def test_a_changed_run_is_no_row_and_another_split_is_named(tmp_path):
    whole = card_of('freeze-10')
    short = card_of('freeze-6', recipe=asdict(find_recipe('freeze-6', epochs=2)))
    every = card_of('finetune-all', split='50,000 train / 0 held back', recipe=asdict(find_recipe('finetune-all', valid=0)))
    for name, card in dict(whole=whole, short=short, every=every).items(): keep_result(write_run(tmp_path/name, card), tmp_path/'results')
    table = results_table(tmp_path/'results').set_index('recipe')
    assert changed_fields(short) == ['epochs 2, not 20']
    assert table.loc['freeze-6', 'measured'] == 'not run' and table.loc['freeze-10', 'measured'] == '90.00%'
    assert table.loc['finetune-all', 'split'] == '50,000 train / 0 held back' and table.loc['freeze-10', 'step minutes'] == '0.0'
    assert (tmp_path/'results'/'finetune-all-seed42-cpu-valid0.json').exists()


def test_the_table_says_what_a_card_says(tmp_path):
    card = card_of('freeze-10', test_accuracy=0.5, seconds=1234.5)
    history = pd.DataFrame(dict(epoch=[1, 2], step_seconds=30., train_accuracy=[.4, .6], valid_accuracy=[.3, .45]))
    keep_result(finish_run(new_run('whole', tmp_path), {'w': torch.zeros(1)}, history, card), tmp_path/'results')
    row = results_table(tmp_path/'results').set_index('recipe').loc['freeze-10']
    told = dict(published='49.1 %', measured='50.00%', margin='0.98', difference='+0.9', train='60.00%', validation='45.00%', epochs='2',
                seconds='1,234', seed='42')
    assert {key: row[key] for key in told} == told and row['step minutes'] == '1.0' and row['hardware'] == 'a machine, 1 thread'


def test_what_is_no_result_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match='Clone the repository'): results_table(tmp_path/'nowhere')
    demo = finish_run(new_run('demo', tmp_path), {}, pd.DataFrame([dict(epoch=1)]), {'seed': 1})
    with pytest.raises(ValueError, match='has no recipe, device'): keep_result(demo)
    short = card_of('layernorm-fast', recipe=asdict(find_recipe('layernorm-fast', epochs=3, valid=0)), test_images=1000)
    assert changed_fields(short) == ['epochs 3, not 12', 'test_images 1000, not 10000']


def test_the_cards_in_results_are_of_the_recipes_as_they_stand():
    cards = {path.name: json.loads(path.read_text()) for path in (root/'results').glob('*-seed*.json')}
    assert cards and not {name: changed_fields(card) for name, card in cards.items() if changed_fields(card)}


@pytest.fixture
def tool(monkeypatch):
    "The module tools/results.py."
    monkeypatch.syspath_prepend(str(root/'tools'))
    return importlib.import_module('results')


def test_make_results_keeps_the_card_of_a_finished_run_and_then_has_nothing_to_do(tool, tmp_path, capsys):
    write_run(tmp_path/'runs'/'freeze-10-seed7-cpu', card_of('freeze-10', seed=7))
    options = dict(device='cpu', runs=str(tmp_path/'runs'), folder=str(tmp_path/'results'))
    for _ in range(2): tool.main(only='freeze-10', seeds='7', **options)
    said = capsys.readouterr().out
    assert 'freeze-10, seed 7: 90.00% (published 49.1 %), 40,000 train / 10,000 held back' in said and 'every card is there' in said
    assert (tmp_path/'results'/'freeze-10-seed7-cpu.json').exists()
    with pytest.raises(SystemExit): tool.main(only='freeze-10', seeds='4x', **options)
    assert 'seeds must be whole numbers' in capsys.readouterr().err
    with pytest.raises(SystemExit): tool.main(only='freeze-11', **options)
    assert "Did you mean 'freeze-10'" in capsys.readouterr().err


def test_make_results_trains_in_a_process_of_its_own_and_goes_on_after_a_failure(tool, tmp_path, capsys, monkeypatch):
    def run(command, check):
        name, seed, folder = command[3], int(command[5]), Path(command[command.index('--run') + 1])
        if name == 'freeze-6': raise subprocess.CalledProcessError(2, command)
        write_run(Path(command[-1])/folder, card_of(name, seed=seed))
    monkeypatch.setattr(tool.subprocess, 'run', run)
    with pytest.raises(SystemExit):
        tool.main(device='cpu', only='finetune-all freeze-6 freeze-10', runs=str(tmp_path/'runs'), folder=str(tmp_path/'results'))
    assert sorted(p.stem for p in (tmp_path/'results').glob('*.json')) == ['finetune-all-seed42-cpu', 'freeze-10-seed42-cpu']
    assert 'freeze-6, seed 42: training ended with status 2' in capsys.readouterr().out


def test_make_results_refuses_a_finished_run_of_other_settings(tool, tmp_path, capsys):
    write_run(tmp_path/'runs'/'freeze-6-seed42-cpu', card_of('freeze-6', recipe=asdict(find_recipe('freeze-6', epochs=2))))
    with pytest.raises(SystemExit): tool.main(device='cpu', only='freeze-6', runs=str(tmp_path/'runs'), folder=str(tmp_path/'results'))
    assert 'is not the recipe freeze-6 of today (epochs 2, not 20)' in capsys.readouterr().out and not (tmp_path/'results').exists()


def test_make_results_goes_through_all_recipes_cheapest_first(tool, tmp_path):
    assert set(tool.COSTS) == set(recipes.RECIPES)
    todo = tool.missing_runs([], [42, 43], 'cpu', tmp_path)
    assert len(todo) == 20 and todo[0] == ('freeze-10', 42) and todo[10] == ('freeze-10', 43) and todo[19] == ('layernorm-plateau', 43)
    keep_result(write_run(tmp_path/'a', card_of('freeze-10')), tmp_path)
    keep_result(write_run(tmp_path/'b', card_of('freeze-6', recipe=asdict(find_recipe('freeze-6', epochs=2)))), tmp_path)
    assert [name for name, _ in tool.missing_runs(['freeze-6', 'freeze-10'], [42], 'cpu', tmp_path)] == ['freeze-6']
