"The explorers of images and of mistakes: what they ask of ipywidgets, and clicked in a real headless browser, served by Voila."
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import types
from itertools import count
from time import sleep

import numpy as np
import pytest
import torch
from torch import nn

import cifar_cam.explorers
from cifar_cam.causes import add_votes
from cifar_cam.data import load_sample, sample_indices
from cifar_cam.explorers import explorer, explorer_box, filter_mistakes, mistake_explorer, mistake_view, people_line, turn_page
from cifar_cam.hooks import predict
from cifar_cam.mistakes import prediction_table
from cifar_cam.people import mark_doubtful
from cifar_cam.resnet import load_pretrained

CHROMIUM = next((path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))), None)
CHROMEDRIVER = shutil.which('chromedriver')
MISSING = [name for name in ('voila', 'ipykernel', 'selenium') if not importlib.util.find_spec(name)]
in_browser = pytest.mark.skipif(bool(MISSING) or not (CHROMIUM and CHROMEDRIVER),
                                reason=f'needs chromium with chromedriver on the PATH, and {MISSING or "no more packages"}')

MAPS = '''
from cifar_cam.data import CLASSES, load_sample, normalise
from cifar_cam.explorers import explorer
from cifar_cam.resnet import resnet18
import torch
torch.manual_seed(0)
images, labels = load_sample('test')
explorer(resnet18(), images[:12], labels[:12], normalise(images[:12]), CLASSES)
'''

INDICES = sample_indices('test')
SOME = sorted({*range(0, 1000, 16), *np.isin(INDICES, (165, 792, 882, 1227)).nonzero()[0].tolist()})  # with four doubtful labels


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


@pytest.fixture(scope='module')
def judged():
    "The embedded network, some images, and their table."
    model, (images, labels) = load_pretrained(), (part[SOME] for part in load_sample('test'))
    table, _ = prediction_table(model, images, labels, INDICES[SOME])
    return model, images, mark_doubtful(table)


def named(made): return {widget.description: widget for widget in made if getattr(widget, 'description', '')}
def note_and_view(made): return (next(w for w in made if type(w).__name__ == kind) for kind in ('Label', 'Image'))


def test_the_explorer_of_mistakes_asks_for_nothing_that_ipywidgets_7_lacks(judged, monkeypatch):
    seven, made = only_seven()
    monkeypatch.setitem(sys.modules, 'ipywidgets', seven)
    mistake_explorer(*judged)
    controls, (note, view) = named(made), note_and_view(made)
    count, first = len(filter_mistakes(judged[2])), bytes(view.value)
    assert count > 2 and note.value == f'1 of {count} mistakes' and first[:4] == b'\x89PNG'
    controls['next'].click()
    assert note.value == f'2 of {count} mistakes' and bytes(view.value) != first
    controls['previous'].click()
    assert (note.value, bytes(view.value)) == (f'1 of {count} mistakes', first)
    controls['previous'].click() # before the first comes the last
    assert note.value == f'{count} of {count} mistakes'
    assert bytes(view.value) == mistake_view(*judged, count - 1)[0]
    true = int(filter_mistakes(judged[2]).true.iloc[0])
    controls['true'].value = true
    assert note.value == f'1 of {len(filter_mistakes(judged[2], true=true))} mistakes' and bytes(view.value) == first
    controls['confidence'].value = (0, .01)
    assert (note.value, view.value) == ('no mistake passes these filters', b'')
    controls['next'].click()
    assert note.value == 'no mistake passes these filters'


def test_a_view_of_a_mistake_is_the_twin_of_the_widget(judged):
    rows = filter_mistakes(judged[2])
    assert rows.loss.is_monotonic_decreasing
    assert mistake_view(*judged, len(rows) - 1)[1] == f'{len(rows)} of {len(rows)} mistakes'
    assert mistake_view(*judged, confidence=(0., .01)) == (b'', 'no mistake passes these filters')
    with pytest.raises(ValueError, match=f'place must lie from 0 to {len(rows) - 1}'): mistake_view(*judged, len(rows))
    assert [turn_page(*turn) for turn in ((0, 1, 3), (2, 1, 3), (0, -1, 3), (0, 1, 0))] == [1, 0, 2, 0]


def test_the_explorer_tells_what_people_said_and_filters_by_verdict(judged, monkeypatch):
    model, images, table = judged
    votes = np.zeros((10_000, 10), int)
    votes[:, 3], votes[:, 5] = 31, 20
    marked = add_votes(table.assign(match=0.), votes)
    rows = filter_mistakes(marked)
    assert people_line(next(rows[(rows.true == 3) & ~rows.doubtful].itertuples())) == (
        'people: cat 31, dog 20 of 51. people unsure: fewer than 80 % of the people chose the label')
    assert people_line(next(filter_mistakes(table).itertuples())) == 'votes of people are not at hand (see add_votes)'
    unsure = filter_mistakes(marked, verdict='people unsure')
    assert 0 < len(unsure) < len(rows) and set(unsure.true) == {3}
    with pytest.raises(ValueError, match='column verdict'): filter_mistakes(table, verdict='people unsure')
    seven, made = only_seven()
    monkeypatch.setitem(sys.modules, 'ipywidgets', seven)
    mistake_explorer(model, images, marked)
    controls, (note, view) = named(made), note_and_view(made)
    assert controls['verdict'].options == (('all', None), ('label doubtful', 'label doubtful'), ('people unsure', 'people unsure'))
    controls['verdict'].value = 'people unsure'
    assert note.value == f'1 of {len(unsure)} mistakes'
    assert bytes(view.value) == mistake_view(model, images, marked, verdict='people unsure')[0]


def test_one_change_is_one_picture_and_an_error_is_told():
    widgets, drawn = pytest.importorskip('ipywidgets', reason='ipywidgets is not installed'), []
    def draw(item, how):
        drawn.append((item, how))
        if how == 'badly': raise ValueError('no such way')
        return f'{item} {how}'.encode()
    few, how = widgets.Checkbox(description='few'), widgets.Dropdown(options=['well', 'badly'], description='how')
    box = explorer_box(dict(few=few), dict(how=how), lambda few: [(f'item {i}', i) for i in range(10, 12 if few else 14)], draw,
                       lambda place, count: f'{place} of {count}')
    item, (back, ahead), note, view = box.children[1].children[0], box.children[1].children[1:], box.children[3].children[0], box.children[4].children[0]
    assert (drawn, note.value, view.value) == ([(10, 'well')], '0 of 4', b'10 well')
    item.value = 13
    few.value = True
    assert (drawn[1:], note.value) == ([(13, 'well'), (10, 'well')], '0 of 2')
    how.value = 'badly'
    assert (note.value, view.value) == ('0 of 2; ValueError: no such way', b'')
    how.value = 'well'
    ahead.click()
    back.click()
    assert (drawn[-2:], note.value, view.value) == ([(11, 'well'), (10, 'well')], '0 of 2', b'10 well')


def test_both_explorers_are_the_same_box(small, judged, monkeypatch):
    pytest.importorskip('ipywidgets', reason='ipywidgets is not installed')
    made, real = [], cifar_cam.explorers.explorer_box
    monkeypatch.setattr(cifar_cam.explorers, 'explorer_box', lambda *args: made.append(real(*args)) or made[-1])
    assert [explorer(*small), mistake_explorer(*judged)] == made and cifar_cam.explorers.__all__ == ['explorer', 'mistake_explorer']
    assert all(len(box.children) == 5 and len(box.children[1].children) == 3 for box in made)


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "The address of a Voila server that shows an explorer."
    folder = tmp_path_factory.mktemp('explorer')
    kernel = dict(display_name='Python 3', language='python', name='python3')
    cell = dict(cell_type='code', id='explorer', execution_count=None, metadata={}, outputs=[], source=MAPS)
    (folder/'explorer.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    places = {'JUPYTER_PREFER_ENV_PATH': '1', 'OMP_NUM_THREADS': '1', 'JUPYTER_CONFIG_DIR': str(folder), 'JUPYTER_RUNTIME_DIR': str(folder)}
    with (folder/'voila.log').open('w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', '.', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1'],
                                  cwd=folder, env={**os.environ, **places}, stdout=log, stderr=log)
        try:
            wait_for(lambda: server.poll() is not None or is_port_open(port))
            assert server.poll() is None, (folder/'voila.log').read_text()[-2000:]
            yield f'http://127.0.0.1:{port}/voila/render/'
        finally:
            server.terminate()
            try: server.wait(60)
            except subprocess.TimeoutExpired: server.kill()


def is_port_open(port):
    try: socket.create_connection(('127.0.0.1', port), 1).close()
    except OSError: return False
    return True


def wait_for(found, explain=lambda: ''):
    "What `found` returns once it is true; a busy machine may take its time, 5,000 looks end what hangs."
    for look in count():
        if value := found(): return value
        assert look < 5000, f'it never came {explain()}'
        sleep(.2)


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
        browser.set_page_load_timeout(1000)
        browser.get(address)
        wait_for(lambda: self.width() >= 800, lambda: browser.page_source[:1500])

    def find(self, css, text=''): return next((e for e in self.browser.find_elements('css selector', css) if e.text.strip().startswith(text)), None)
    def says(self, text): return text in self.browser.find_element('tag name', 'body').text
    def picture(self): return next((i.get_attribute('src') for i in self.browser.find_elements('css selector', 'img.widget-image')), '')
    def pixels(self):
        "What the picture shows; its address is a new one each time."
        return self.browser.execute_script('''const image = document.querySelector("img.widget-image"), canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0); return canvas.toDataURL()''')
    def width(self): return self.browser.execute_script('return [...document.querySelectorAll("img.widget-image")].map(i => i.naturalWidth)[0] || 0')

    def select(self, label):
        from selenium.webdriver.support.ui import Select
        return Select(self.find('.widget-dropdown', label).find_element('css selector', 'select'))

    def after(self, act):
        "What the picture that comes after a click shows."
        before = self.picture()
        act()
        wait_for(lambda: self.picture() != before and self.width() >= 800)
        return self.pixels()

    def tick(self):
        box = self.find('.widget-checkbox').find_element('css selector', 'input')
        box.click()
        wait_for(box.is_selected)


@in_browser
def test_clicking_an_explorer_changes_its_picture(server, browser):
    "Both explorers are one box, so one of them is clicked."
    page = Page(browser, server + 'explorer.ipynb')
    assert page.select('layer').first_selected_option.text == 'layer4'
    seen = [page.pixels(), page.after(lambda: page.select('layer').select_by_visible_text('layer3')),
            page.after(lambda: page.select('method').select_by_visible_text('HiResCAM')),
            page.after(lambda: page.select('explain').select_by_visible_text('truck')),
            page.after(lambda: page.find('button', 'next').click())]
    assert len(set(seen)) == 5 and page.says('12 of 12 images')
    assert page.after(lambda: page.find('button', 'previous').click()) == seen[3]
    last = page.after(lambda: page.find('button', 'previous').click())
    assert last not in seen and page.select('image').first_selected_option.text.startswith('11: ')
    page.after(lambda: page.select('true class').select_by_visible_text('ship'))
    assert all('ship ->' in option.text for option in page.select('image').options)
    page.tick()
    assert wait_for(lambda: all('ship -> ship' not in option.text for option in page.select('image').options))
