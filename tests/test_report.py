"The report: one file, no network, readable at 390 and 1280 pixels, checked in a real browser where there is one."
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cifar_cam.recipes
import cifar_cam.report
from cifar_cam.core import finish_run, new_run, read_run
from cifar_cam.data import load_sample, sample_indices, split_train_valid
from cifar_cam.recipes import find_recipe, recipe_data, run_recipe, train_command
from cifar_cam.report import (
    axis_ticks,
    class_comparison,
    demo_command,
    demo_run,
    held_back,
    keep_predictions,
    kept_predictions,
    report_command,
    report_data,
    run_names,
    svg_lines,
    write_comparison,
    write_report,
)
from cifar_cam.resnet import david_resnet, load_pretrained, pretrained_path, resnet18

chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
chromedriver = shutil.which('chromedriver')
needs_browser = pytest.mark.skipif(not (chromium and chromedriver), reason='no Chromium with chromedriver on this machine')
needs_weights = pytest.mark.skipif(not pretrained_path().is_file(), reason='no embedded weights')
history = pd.DataFrame(dict(epoch=[1, 2, 3], train_loss=[2., 1.2, .9], train_accuracy=[.3, .6, .7], valid_loss=[1.8, 1.1, 1.],
                            valid_accuracy=[.4, .6, .65], lr=[.1, .05, .01], size=[16, 24, 32], seconds=[4., 5., 6.]))


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    "Two finished runs of different networks, judged on 60 images, their reports and their comparison."
    root = tmp_path_factory.mktemp('runs')
    torch.manual_seed(0)
    images, labels, indices = *load_sample('test'), sample_indices('test')
    some = np.r_[0:50, np.isin(indices, (165, 792, 882, 1227)).nonzero()[0], 50:60][:60]
    runs = []
    for name, model, recipe in (('layer', resnet18(), dict(name='layernorm-fast', model='layernorm', pipeline='fast')), ('david', david_resnet(), None)):
        run = finish_run(new_run(name, root), model.state_dict(), history, dict(recipe=recipe, seed=1, note='<script>alert(1)</script>'))
        write_report(run, images[some], labels[some], indices[some])
        runs.append(run)
    return runs, write_comparison(runs, root/'comparison.html')


def test_a_page_is_one_small_file_that_fetches_nothing(pages):
    runs, comparison = pages
    for page in [run/'report.html' for run in runs] + [comparison]:
        text = page.read_text(encoding='utf-8')
        assert len(text) < 3_000_000
        fetched = re.findall(r'(?:src|href)="(.*?)"', text)
        assert fetched and all(f.startswith(('data:', '#')) for f in fetched)
        assert 'http' not in text and '<script' not in text and 'url(' not in text


def test_a_page_has_all_its_parts(pages):
    text = (pages[0][0]/'report.html').read_text(encoding='utf-8')
    assert re.findall('<h2.*?>(.*?)</h2>', text) == ['Classes', 'Confusion', 'Calibration', 'Misclassified images', 'The same images with Grad-CAM',
                                                     'Doubtful labels', 'Training', 'Run card']
    for words in ('true class down, predicted class across', 'also called recall', 'T below 1', 'the other way round',
                  'raters: 1 deer, 1 bird, 3 neither', 'share right'):
        assert words in text
    for chart in ('Loss', 'Accuracy', 'Learning rate', 'Image width'): assert f'class="name">{chart}' in text
    assert text.count('<figure>') >= 40 and '&lt;script&gt;alert(1)' in text


def test_the_lead_gives_the_accuracy_once_with_its_interval(pages):
    lead = re.search('</h1>(.*?)<nav>', (pages[0][0]/'report.html').read_text(encoding='utf-8'))[1]
    right = kept_predictions(pages[0][0])[0].eval('true == predicted').mean()
    assert lead.count(f'{right:.2%}') == 1 and lead.count('95 % confidence interval') == 1
    for words in ('60 test images of CIFAR-10', 'ResNet with 11,173,962 parameters', 'LayerNorm', 'recipe layernorm-fast', 'Page written on 20',
                  'Most frequent mistake'): assert words in lead
    assert 'On all 10,000' not in lead # nobody knows, for these weights


def test_axes_have_round_numbers_that_enclose_the_values():
    assert list(axis_ticks(.012, .098, percent=True).values()) == ['0%', '2%', '4%', '6%', '8%', '10%']
    for low, high in ((.3, 1.78), (1.6e-5, .02), (-3, 5), (.9251, .9258), (1e-7, 3e-7), (2., 4e8)):
        ticks = axis_ticks(low, high)
        assert min(ticks) <= low + 1e-12 and max(ticks) >= high - 1e-12 and 3 <= len(ticks) <= 10 and len(set(ticks.values())) == len(ticks)
        assert all(abs(float(text) - value) <= 1e-9*max(abs(value), 1) for value, text in ticks.items())


def test_names_of_lines_are_whole_and_only_where_there_are_several():
    line = ([1, 2], [1., 2.])
    assert '■' not in svg_lines({'lr': line}, 'Learning rate')
    short, long = (svg_lines({name: line for name in names}, 'Loss') for names in (('a', 'b'), ('a', 'layernorm-plateau-seed42-again')))
    assert 'class="names"' in short and 'class="names long"' in long and 'layernorm-plateau-seed42-again</span>' in long


def test_predictions_stay_with_their_model(pages):
    run = pages[0][0]
    table, logits = kept_predictions(run)
    assert list(table)[:5] == ['index', 'true', 'predicted', 'confidence', 'true_confidence'] and len(logits) == len(table) == 60
    assert len(pd.read_csv(run/'predictions.csv')) == 60
    with pytest.raises(ValueError, match='Write the report again'): kept_predictions(run, resnet18())


def test_a_comparison_shows_every_run_and_says_what_is_not_judged(pages, tmp_path):
    runs, comparison = pages
    text = comparison.read_text(encoding='utf-8')
    assert all(f'<td>{run.name}</td>' in text for run in runs) and 'layernorm-fast' in text and 'Accuracy of each class' in text
    bare = finish_run(new_run('bare', tmp_path), resnet18().state_dict(), pd.DataFrame({'epoch': []}), {})
    assert 'not judged' in write_comparison([runs[0], bare], tmp_path/'c.html').read_text(encoding='utf-8')


def test_a_comparison_counts_epochs_itself_and_refuses_stale_predictions(pages, tmp_path):
    bare = finish_run(new_run('bare', tmp_path), resnet18().state_dict(), history.drop(columns='epoch'), {})
    assert 'Validation loss' in write_comparison([pages[0][0], bare], tmp_path/'c.html').read_text(encoding='utf-8')
    keep_predictions(bare, *kept_predictions(pages[0][0]), resnet18())
    for compare in (class_comparison, lambda runs: write_comparison(runs, tmp_path/'d.html')):
        with pytest.raises(ValueError, match='Write the report again'): compare([bare])
    assert not (tmp_path/'d.html').exists()


def test_names_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_names([tmp_path/'first'/'seed42', 'second/seed42']) == ['first/seed42', 'second/seed42']
    assert run_names(['a', 'a/a']) == ['a', 'a/a'] and run_names(['.']) == [tmp_path.name]
    with pytest.raises(ValueError, match='different folders'): run_names(['a', './a/'])


def test_the_title_is_the_folder_that_a_dot_stands_for(pages, monkeypatch):
    monkeypatch.chdir(pages[0][1])
    images, labels = (a[:60] for a in load_sample('test'))
    assert '<title>cifar_cam: david</title>' in write_report('.', images, labels).read_text(encoding='utf-8')


def test_a_wrong_choice_is_found_before_the_pass_and_harms_nothing(pages, monkeypatch, capsys):
    run, passes = pages[0][0], []
    monkeypatch.setattr(cifar_cam.report, 'prediction_table', lambda *_, **options: passes.append(1))
    before = {path.name: path.read_bytes() for path in run.glob('predictions.*')}
    for arguments, words in (([run, '--rule', 'best'], "got 'best'"), ([run, '--images', '201'], 'at most 200'), ([run, f'{run}/.'], 'different folders')):
        with pytest.raises(SystemExit) as leaving: report_command([str(a) for a in arguments])
        assert leaving.value.code == 2 and words in capsys.readouterr().err
    images, labels = load_sample('test')
    for wrong, words in ((dict(images=images), 'labels must be given'), (dict(labels=labels), 'images must be given'),
                         (dict(images=images[:0], labels=labels[:0]), 'at least one image'), (dict(valid=(images, labels[:9])), 'valid must be'),
                         (dict(rule='best'), 'rule must be')):
        with pytest.raises(ValueError, match=words): write_report(run, **wrong)
    assert not passes and before == {path.name: path.read_bytes() for path in run.glob('predictions.*')}


def test_predictions_are_kept_only_with_their_page(pages, monkeypatch):
    run = pages[0][0]
    def fails(*_): raise OSError('no fonts')
    monkeypatch.setattr(cifar_cam.report, 'report_sections', fails)
    before, (images, labels) = (run/'predictions.csv').read_bytes(), (a[:8] for a in load_sample('test'))
    with pytest.raises(OSError, match='no fonts'): write_report(run, images, labels)
    assert (run/'predictions.csv').read_bytes() == before


@pytest.mark.parametrize('file, text, words', [
    ('run.json', '[1]', 'no JSON object'), ('run.json', 'null', 'no JSON object'), ('run.json', '{', 'is not JSON'),
    ('history.csv', '', 'history.csv is no table'), ('history.csv', 'epoch\n1\n2,3\n', 'history.csv is no table'),
    ('history.csv', 'epoch,train_loss\n1,2.0\n2,high\n', "column train_loss, not 'high'"), ('history.csv', 'size\nbig\n', "column size, not 'big'"),
    ('history.csv', 'epoch,seconds\n1,inf\n', 'column seconds, not inf'), ('history.csv', f'epoch\n1{"0"*400}\n', 'column epoch'),
    ('run.json', '['*100_000, 'run.json is not JSON'), ('run.json', '{"a":'*400 + '1' + '}'*400, 'more than 20 levels deep'),
    ('run.json', '{"a": "' + 'x'*20_000_000 + '"}', 'run.json has 20,000,009 bytes'), ('history.csv', 'epoch\n' + '1\n'*600_000, 'history.csv has')])
def test_damaged_run_files_are_named(tmp_path, file, text, words):
    run = finish_run(new_run('damaged', tmp_path), {'w': torch.ones(1)}, history, {})
    (run/file).write_text(text)
    with pytest.raises(ValueError) as error: read_run(run)
    assert words in str(error.value) and str(run) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['run.json', 'history.csv', 'weights.safetensors'])
def test_a_file_of_30_gigabytes_is_not_read(tmp_path, capsys, name):
    run = finish_run(new_run('huge', tmp_path), {'w': torch.ones(1)}, history, {})
    with open(run/name, 'rb+') as file: file.truncate(30_000_000_000) # sparse: it takes no room
    with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and f'{run/name} has 30,000,000,000 bytes' in said and len(said.strip().splitlines()) == 1


def test_foreign_notes_in_the_weights_are_one_line(tmp_path, capsys):
    from safetensors.torch import save_file
    run = finish_run(new_run('foreign', tmp_path), {'w': torch.ones(1)}, history, {})
    for notes in ({'facts': 'no JSON'}, {'facts': '['*100_000}):
        save_file({'w': torch.ones(1)}, run/'weights.safetensors', metadata=notes)
        with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
        said = capsys.readouterr().err
        assert leaving.value.code == 2 and str(run/'weights.safetensors') in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize('recipe, words', [(dict(model=['x']), 'do not fit'), (dict(pipeline={'a': 1}), 'must name a known pipeline'),
                                           (dict(pipeline='none such'), 'must name a known pipeline'), ([1], 'do not fit')])
def test_a_strange_recipe_in_a_card_is_one_line(tmp_path, capsys, recipe, words):
    run = finish_run(new_run('strange', tmp_path), {'w': torch.ones(1)}, history, dict(recipe=recipe, seed=[1], trained=3))
    with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and words in said and str(run) in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize('name', ['report.html', 'predictions.csv', 'predictions.safetensors', '../comparison.html'])
def test_a_folder_in_the_place_of_a_page_is_found_before_the_pass(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(cifar_cam.report, 'prediction_table', lambda *_, **options: pytest.fail('it began'))
    runs = [finish_run(new_run(kind, tmp_path), resnet18().state_dict(), history, {}) for kind in ('a', 'b')]
    (runs[0]/name).mkdir()
    with pytest.raises(SystemExit) as leaving: report_command([*map(str, runs), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and 'there is a folder of that name' in said and Path(name).name in said


def test_predictions_of_somebody_else_are_refused_by_name(pages, tmp_path):
    from safetensors.torch import save_file
    path = tmp_path/'predictions.safetensors'
    for tensors, notes in (({'logits': torch.ones(1, 10)}, {}), ({'x': torch.ones(1)}, {'facts': '[1]'}), ({'x': torch.ones(1)}, {'facts': 'no'})):
        save_file(tensors, path, metadata=notes)
        with pytest.raises(ValueError, match='predictions.safetensors does not'): kept_predictions(tmp_path)


def test_a_finished_run_without_weights_gets_one_advice(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finish_run(new_run('lost', 'runs'), {'w': torch.ones(1)}, history, {})
    (run/'weights.safetensors').unlink()
    said = []
    for start in (lambda: report_command([str(run), '--data', 'sample']), lambda: train_command('layernorm-fast', run='lost', sample=True)):
        with pytest.raises(SystemExit) as leaving: start()
        assert leaving.value.code == 2
        said.append(capsys.readouterr().err)
    for words in said: assert 'finished' in words and 'remove' in words and 'resumes' not in words
    assert 'lacks weights.safetensors' in said[0]


def test_training_and_report_say_one_number(tmp_path, monkeypatch):
    "Training may run in bfloat16; what it says of the test images is what float32 says, as in the report."
    tiny = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
    monkeypatch.setitem(cifar_cam.recipes.MODELS, 'tiny', tiny)
    data = recipe_data(300, True)
    recipe = find_recipe('layernorm-fast', model='tiny', epochs=2, batch_size=32)
    card = run_recipe(recipe, new_run('short', tmp_path), data, precision='bfloat16', progress=False)
    write_report(tmp_path/'short', *data['test'])
    table, _ = kept_predictions(tmp_path/'short')
    assert card['test_accuracy'] == pytest.approx(table.eval('true == predicted').mean(), abs=1e-7)
    assert card['test_loss'] == pytest.approx(table.loss.mean(), abs=1e-6) # bfloat16 is right to two or three digits


def test_the_temperature_is_fitted_on_what_the_run_held_back(monkeypatch):
    whole = dict(train_images=45_000, valid_images=5000)
    assert [held_back(card) for card in ({}, whole, dict(trained=whole), dict(train_images=40_000, valid_images=10_000, recipe=dict(valid=10_000)))] \
        == [5000, 5000, 5000, 10_000]
    assert [held_back(card) for card in (dict(train_images=128, valid_images=100), dict(recipe=dict(valid=0)), dict(recipe=dict(valid='x')))] == [0, 0, 0]
    labels = np.arange(50_000) % 10
    monkeypatch.setattr('cifar_cam.report.load_cifar10', lambda split, root: (np.arange(50_000)[:, None], labels))
    for valid, images in ((5000, 5000), (10_000, 5000), (100, 100)):
        found = report_data('test', valid=valid)['valid'][0][:, 0]
        assert len(found) == images and set(found) <= set(split_train_valid(labels, valid=valid)[1])
    assert 'valid' not in report_data('test', valid=0)


def test_a_chart_can_be_read_without_a_style_sheet():
    chart = svg_lines({'a': ([1, 2], [.5, .7])}, 'Loss')
    frame = re.search('<svg[^>]*>', chart)[0]
    assert 'fill="currentColor"' in frame and 'stroke="currentColor"' in chart and not re.search('fill="#(000|59626e)', chart)


@pytest.mark.parametrize('make', [resnet18, david_resnet])
def test_a_network_for_other_classes_is_told_apart(tmp_path, make):
    run = finish_run(new_run('hundred', tmp_path), make(num_classes=100).state_dict(), history, {})
    with pytest.raises(ValueError, match='10 outputs.*has 100'): write_report(run)


@pytest.mark.parametrize('arguments, words', [
    (['nothing'], 'does not exist'), (['half'], 'lacks weights.safetensors'), (['good', '--data', 'all'], "got 'all'"),
    (['good', '--data', 'sample', '--rule', 'best'], "got 'best'"), (['good', '--data', 'sample', '--images', '0'], 'above 0; got 0')])
def test_a_wrong_command_is_one_line_and_leaves_no_page(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    new_run('half', '.')
    finish_run(new_run('good', '.'), resnet18().state_dict(), history, {})
    monkeypatch.setattr('cifar_cam.report.load_sample', lambda split: tuple(a[:8] for a in load_sample(split)))
    monkeypatch.setattr('cifar_cam.report.sample_indices', lambda split: sample_indices(split)[:8])
    with pytest.raises(SystemExit) as leaving: report_command(arguments)
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and words in said and len(said.strip().splitlines()) == 1
    assert not list(tmp_path.glob('*/report.html'))


@needs_weights
def test_the_demo_writes_page_and_pictures_within_a_minute(tmp_path, capsys, monkeypatch):
    drawn, draw = [], cifar_cam.report.plot_gallery
    monkeypatch.setattr(cifar_cam.report, 'plot_gallery', lambda tiles, rows, rule, heat: drawn.append((rows, heat)) or draw(tiles, rows, rule, heat=heat))
    start = time.process_time() # not the clock: the machine may be busy with something else
    demo_command(['--root', str(tmp_path)])
    assert time.process_time() - start < 60
    said = capsys.readouterr().out
    assert '1,000 embedded test images' in said and str(tmp_path/'demo'/'report.html') in said
    for name in ('mistakes.png', 'mistakes_gradcam.png'): assert (tmp_path/'demo'/name).read_bytes()[:4] == b'\x89PNG'
    assert (kept_predictions(tmp_path/'demo', load_pretrained())[0].eval('true == predicted')).mean() > .5
    assert len(drawn) == 2 and all('doubtful' in rows for rows, _ in drawn)
    assert [heat for _, heat in drawn] == ['', 'Grad-CAM of the predicted class at layer4, 4x4 values']
    lead = re.search('</h1>(.*?)<nav>', (tmp_path/'demo'/'report.html').read_text(encoding='utf-8'))[1]
    assert 'On all 10,000 test images: 92.17 %' in lead and 'test images of CIFAR-10' in lead


@needs_weights
def test_the_demo_leaves_a_run_of_that_name_alone(tmp_path, monkeypatch, capsys):
    for part in ('write_report', 'save_galleries'): monkeypatch.setattr(cifar_cam.report, part, lambda run: None)
    assert demo_run(tmp_path/'free') == demo_run(tmp_path/'free') == tmp_path/'free'/'demo' # the second over the first
    mine = finish_run(new_run('demo', tmp_path), {'w': torch.ones(1)}, history, dict(seed=1))
    for card in ('{"seed": 1}', '[1]', '{'):
        (mine/'run.json').write_text(card)
        with pytest.raises(SystemExit) as leaving: demo_command(['--root', str(tmp_path)])
        assert leaving.value.code == 2 and '--root' in capsys.readouterr().err
        assert (mine/'run.json').read_text() == card and (mine/'weights.safetensors').stat().st_size < 1000


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
                 '--disable-component-update', '--disable-sync', f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@needs_browser
@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_the_page_fits_the_screen(pages, browser, width, dark):
    runs, comparison = pages
    scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 500))
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[scheme]))
    for page in (runs[0]/'report.html', comparison):
        browser.get(page.as_uri())
        assert browser.execute_script('return document.documentElement.scrollWidth') <= width
        assert browser.execute_script('return [...document.images].every(i => i.complete && i.naturalWidth > 0)')
        ground, ink = browser.execute_script('const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]')
        lightness = [sum(map(int, re.findall(r'\d+', c)[:3])) for c in (ground, ink)]
        assert (lightness[0] < lightness[1] - 400) if dark else (lightness[0] > lightness[1] + 400)
        sizes = browser.execute_script('return [...document.querySelectorAll("p,td,th,figcaption")].map(e => parseFloat(getComputedStyle(e).fontSize))')
        assert min(sizes) >= 10
        # text in a drawing grows and shrinks with it
        assert browser.execute_script("""return Math.min(...[...document.querySelectorAll("svg text")].map(t => parseFloat(getComputedStyle(t).fontSize)
            * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width))""") >= 11
        assert browser.execute_script('return Math.min(...[...document.querySelectorAll(".names")].map(e => parseFloat(getComputedStyle(e).fontSize)))') >= 11
        if page.name == 'report.html':
            assert not browser.execute_script("""return [...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth)
                .map(e => e.textContent.slice(0, 60))""")
    asked = [entry['message'] for entry in browser.get_log('performance') if '"Network.requestWillBeSent"' in entry['message']]
    assert not [m for m in asked if re.search(r'"url":"https?:', m)]
    assert not [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']


@needs_browser
def test_the_page_can_be_printed(pages, browser):
    browser.get((pages[0][0]/'report.html').as_uri())
    assert len(browser.execute_cdp_cmd('Page.printToPDF', dict(printBackground=True))['data']) > 20_000
