"The explorers of notebooks 06 and 07, served by Voila and clicked in a real headless browser."
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip('voila', reason='Voila is not installed: pip install voila ipykernel')
pytest.importorskip('ipykernel', reason='no Jupyter kernel here: pip install ipykernel')
webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')

CHROMIUM = next((path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))), None)
CHROMEDRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason='no chromium with chromedriver on the PATH')

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


def test_clicking_the_explorer_of_maps_changes_its_picture(server, browser):
    page = Page(browser, server + 'maps.ipynb')
    assert page.select('layer').first_selected_option.text == 'layer3'
    seen = [page.picture(), page.after(lambda: page.select('layer').select_by_visible_text('layer4')),
            page.after(lambda: page.select('method').select_by_visible_text('HiResCAM')),
            page.after(lambda: page.select('explain').select_by_visible_text('truck'))]
    assert len(set(seen)) == 4
    assert page.says('12 of 12 images')
    page.after(lambda: page.select('true class').select_by_visible_text('ship'))
    assert all('ship ->' in option.text for option in page.select('image').options)
    page.tick()
    assert wait_for(lambda: all('ship -> ship' not in option.text for option in page.select('image').options))


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
