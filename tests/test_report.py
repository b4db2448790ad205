"The report: one file, no network, readable at 390 and 1280 pixels, checked in a real browser where there is one."
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch

from cifar_cam.core import finish_run, new_run
from cifar_cam.data import load_sample, sample_indices
from cifar_cam.report import demo_command, kept_predictions, report_command, write_comparison, write_report
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
    for part in ('Run card', 'Training', 'Classes', 'Confusion', 'Calibration', 'Misclassified images', 'The same images with Grad-CAM', 'Doubtful labels'):
        assert f'>{part}</h2>' in text
    for chart in ('Loss', 'Accuracy', 'Learning rate', 'Image width'): assert f'class="name">{chart}' in text
    assert text.count('<figure>') >= 40 and '&lt;script&gt;alert(1)' in text


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
def test_the_demo_writes_page_and_pictures_within_a_minute(tmp_path, capsys):
    start = time.perf_counter()
    demo_command(['--root', str(tmp_path)])
    assert time.perf_counter() - start < 60
    said = capsys.readouterr().out
    assert '1,000 embedded test images' in said and str(tmp_path/'demo'/'report.html') in said
    for name in ('mistakes.png', 'mistakes_gradcam.png'): assert (tmp_path/'demo'/name).read_bytes()[:4] == b'\x89PNG'
    assert (kept_predictions(tmp_path/'demo', load_pretrained())[0].eval('true == predicted')).mean() > .5


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
    asked = [entry['message'] for entry in browser.get_log('performance') if '"Network.requestWillBeSent"' in entry['message']]
    assert not [m for m in asked if re.search(r'"url":"https?:', m)]
    assert not [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']


@needs_browser
def test_the_page_can_be_printed(pages, browser):
    browser.get((pages[0][0]/'report.html').as_uri())
    assert len(browser.execute_cdp_cmd('Page.printToPDF', dict(printBackground=True))['data']) > 20_000
