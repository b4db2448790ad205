"The explorers of notebooks 06 and 07: what they ask of ipywidgets, and clicked in a real headless browser, served by Voila."
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import types

import numpy as np
import pytest
import torch
from torch import nn

from cifar_cam.data import load_sample, sample_indices
from cifar_cam.gradcam import explorer, predict
from cifar_cam.mistakes import mark_doubtful, mistake_explorer, prediction_table
from cifar_cam.resnet import load_pretrained

CHROMIUM = next((path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))), None)
CHROMEDRIVER = shutil.which('chromedriver')
MISSING = [name for name in ('voila', 'ipykernel', 'selenium') if not importlib.util.find_spec(name)]
in_browser = pytest.mark.skipif(bool(MISSING) or not (CHROMIUM and CHROMEDRIVER),
                                reason=f'needs chromium with chromedriver on the PATH, and {MISSING or "no more packages"}')

MAPS = '''
from cifar_cam.data import CLASSES, load_sample, normalise
from cifar_cam.gradcam import explorer
from cifar_cam.resnet import resnet18
import torch
torch.manual_seed(0)
images, labels = load_sample('test')
explorer(resnet18(), images[:12], labels[:12], normalise(images[:12]), CLASSES)
'''

MISTAKES = '''
from cifar_cam.data import load_sample, sample_indices
from cifar_cam.mistakes import mark_doubtful, mistake_explorer, prediction_table
from cifar_cam.resnet import load_pretrained
model, (images, labels) = load_pretrained(), load_sample('test')
table, _ = prediction_table(model, images, labels, sample_indices('test'))
mistake_explorer(model, images, mark_doubtful(table))
'''


SEVEN = {  # what a widget of ipywidgets 7.7.1 (Colab's) takes, as far as an explorer may use it
    'Dropdown': {'options', 'value', 'index', 'label', 'description', 'disabled'},
    'Checkbox': {'value', 'description', 'indent', 'disabled'},
    'FloatRangeSlider': {'value', 'min', 'max', 'step', 'description', 'continuous_update', 'readout', 'disabled'},
    'Button': {'description', 'icon', 'tooltip', 'disabled'},
    'Label': {'value', 'description'},
    'Image': {'value', 'format', 'width', 'height'},
    'HBox': {'children'}, 'VBox': {'children'},
}


def only_seven():
    "A stand-in for ipywidgets that has the widgets of `SEVEN` with these arguments and nothing else."
    real, made = pytest.importorskip('ipywidgets', reason='ipywidgets is not installed'), []
    def restricted(name, allowed):
        def make(*args, **options):
            assert options.keys() <= allowed, f'{name} has no {options.keys() - allowed} in ipywidgets 7.7'
            widget = getattr(real, name)(*args, **options)
            made.append(widget)
            return widget
        return make
    return types.SimpleNamespace(**{name: restricted(name, allowed) for name, allowed in SEVEN.items()}), made


@pytest.fixture
def small():
    "A network of three classes, four images, and what an explorer shows of them."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    return model, images, [0, 1, 2, 0], torch.tensor(images).permute(0, 3, 1, 2) / 255., ['a', 'b', 'c']


def test_the_explorer_of_maps_asks_for_nothing_that_ipywidgets_7_lacks(small, monkeypatch):
    seven, made = only_seven()
    monkeypatch.setitem(sys.modules, 'ipywidgets', seven)
    explorer(*small)
    named = {widget.description: widget for widget in made if getattr(widget, 'description', '')}
    views = [widget for widget in made if type(widget).__name__ == 'Image']
    seen, another = [bytes(views[0].value)], (int(predict(small[0], small[3][:1]).argmax()) + 1) % 3
    for name, value in (('layer', '0'), ('method', 'HiResCAM'), ('explain', another)):
        named[name].value = value
        seen.append(bytes(views[0].value))
    assert len(set(seen)) == 4 and all(png[:4] == b'\x89PNG' for png in seen)
    named['true class'].value, named['only mistakes'].value = 1, True
    assert len(named['image'].options) <= 1
    named['only mistakes'].value, named['true class'].value = False, None
    assert len(named['image'].options) == 4


def test_the_explorer_of_mistakes_asks_for_nothing_that_ipywidgets_7_lacks(monkeypatch):
    seven, made = only_seven()
    monkeypatch.setitem(sys.modules, 'ipywidgets', seven)
    model, (images, labels) = load_pretrained(), load_sample('test')
    table, _ = prediction_table(model, images[:40], labels[:40], sample_indices('test')[:40])
    mistake_explorer(model, images[:40], mark_doubtful(table))
    named = {widget.description: widget for widget in made if getattr(widget, 'description', '')}
    note, view = next(w for w in made if type(w).__name__ == 'Label'), next(w for w in made if type(w).__name__ == 'Image')
    count, first = int(note.value.split()[2]), bytes(view.value)
    assert count > 1 and note.value == f'1 of {count} mistakes' and first[:4] == b'\x89PNG'
    named['next'].click()
    assert note.value == f'2 of {count} mistakes' and bytes(view.value) != first
    named['confidence'].value = (0, .01)
    assert note.value == 'no mistake passes these filters'


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "The address of a Voila server that shows each explorer alone."
    folder = tmp_path_factory.mktemp('explorer')
    kernel = dict(display_name='Python 3', language='python', name='python3')
    for name, source in {'maps': MAPS, 'mistakes': MISTAKES}.items():
        cell = dict(cell_type='code', id='explorer', execution_count=None, metadata={}, outputs=[], source=source)
        (folder/f'{name}.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    places = {'JUPYTER_PREFER_ENV_PATH': '1', 'OMP_NUM_THREADS': '1', 'JUPYTER_CONFIG_DIR': str(folder), 'JUPYTER_RUNTIME_DIR': str(folder)}
    with (folder/'voila.log').open('w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', '.', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1'],
                                  cwd=folder, env={**os.environ, **places}, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_port_open(port), 60, lambda: (folder/'voila.log').read_text()[-2000:])
            yield f'http://127.0.0.1:{port}/voila/render/'
        finally:
            server.terminate()
            server.wait(20)


def is_port_open(port):
    try: socket.create_connection(('127.0.0.1', port), 1).close()
    except OSError: return False
    return True


def wait_for(found, seconds=60, explain=lambda: ''):
    "What `found` returns once it is true."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found(): return value
        time.sleep(.2)
    raise AssertionError(f'nothing after {seconds} s {explain()}')


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
                 'disable-component-update', 'disable-sync', 'window-size=1280,900', f'user-data-dir={tmp_path/"profile"}'):
        options.add_argument(f'--{flag}')
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


class Page:
    "What a person sees and does on the page of an explorer."
    def __init__(self, browser, address):
        self.browser = browser
        browser.set_page_load_timeout(120)
        browser.get(address)
        wait_for(lambda: self.width() >= 800, 120, lambda: browser.page_source[:1500])

    def find(self, css, text=''): return next((e for e in self.browser.find_elements('css selector', css) if e.text.strip().startswith(text)), None)
    def says(self, text): return text in self.browser.find_element('tag name', 'body').text
    def picture(self): return next((i.get_attribute('src') for i in self.browser.find_elements('css selector', 'img.widget-image')), '')
    def width(self): return self.browser.execute_script('return [...document.querySelectorAll("img.widget-image")].map(i => i.naturalWidth)[0] || 0')

    def select(self, label):
        from selenium.webdriver.support.ui import Select
        return Select(self.find('.widget-dropdown', label).find_element('css selector', 'select'))

    def after(self, act):
        "The picture that comes after a click."
        before = self.picture()
        act()
        return wait_for(lambda: (new := self.picture()) != before and self.width() >= 800 and new, 60)

    def tick(self):
        box = self.find('.widget-checkbox').find_element('css selector', 'input')
        box.click()
        wait_for(box.is_selected)


@in_browser
def test_clicking_the_explorer_of_maps_changes_its_picture(server, browser):
    page = Page(browser, server + 'maps.ipynb')
    assert page.select('layer').first_selected_option.text == 'layer4'
    seen = [page.picture(), page.after(lambda: page.select('layer').select_by_visible_text('layer3')),
            page.after(lambda: page.select('method').select_by_visible_text('HiResCAM')),
            page.after(lambda: page.select('explain').select_by_visible_text('truck'))]
    assert len(set(seen)) == 4
    assert page.says('12 of 12 images')
    page.after(lambda: page.select('true class').select_by_visible_text('ship'))
    assert all('ship ->' in option.text for option in page.select('image').options)
    page.tick()
    assert wait_for(lambda: all('ship -> ship' not in option.text for option in page.select('image').options))


@in_browser
def test_clicking_the_explorer_of_mistakes_turns_its_pages_and_filters(server, browser):
    page = Page(browser, server + 'mistakes.ipynb')
    def how_many(): return int(wait_for(lambda: page.find('.widget-label', '1 of')).text.split()[2])
    all_of_them = how_many()
    first = page.picture()
    second = page.after(lambda: page.find('button', 'next').click())
    assert second != first and page.says(f'2 of {all_of_them} mistakes')
    page.after(lambda: page.find('button', 'previous').click())
    last = page.after(lambda: page.find('button', 'previous').click())
    assert last not in (first, second) and page.says(f'{all_of_them} of {all_of_them} mistakes')
    page.after(lambda: page.select('method').select_by_visible_text('EigenCAM'))
    page.after(lambda: page.select('true').select_by_visible_text('cat'))
    cats = how_many()
    page.after(lambda: page.select('true').select_by_visible_text('all'))
    page.after(page.tick)
    assert 0 < cats < all_of_them and 0 < how_many() < all_of_them
    page.select('true').select_by_visible_text('cat')
    page.select('predicted').select_by_visible_text('cat')  # no cat was mistaken for a cat
    assert wait_for(lambda: page.says('no mistake passes these filters'))
