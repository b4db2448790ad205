"The explorer of notebook 06, served by Voila and clicked in a real headless browser."
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

CELL = '''
from cifar_cam.data import CLASSES, load_sample, normalise
from cifar_cam.gradcam import explorer
from cifar_cam.resnet import resnet18
import torch
torch.manual_seed(0)
images, labels = load_sample('test')
explorer(resnet18(), images[:12], labels[:12], normalise(images[:12]), CLASSES)
'''


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "The address of a Voila server that shows the explorer alone."
    folder = tmp_path_factory.mktemp('explorer')
    cell = dict(cell_type='code', id='explorer', execution_count=None, metadata={}, outputs=[], source=CELL)
    kernel = dict(display_name='Python 3', language='python', name='python3')
    (folder/'explorer.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    places = {'JUPYTER_PREFER_ENV_PATH': '1', 'OMP_NUM_THREADS': '1', 'JUPYTER_CONFIG_DIR': str(folder), 'JUPYTER_RUNTIME_DIR': str(folder)}
    with (folder/'voila.log').open('w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', 'explorer.ipynb', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1'],
                                  cwd=folder, env={**os.environ, **places}, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_port_open(port), 60, lambda: (folder/'voila.log').read_text()[-2000:])
            yield f'http://127.0.0.1:{port}/'
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


def test_clicking_the_explorer_changes_its_picture(page, browser):
    from selenium.webdriver.support.ui import Select
    browser.set_page_load_timeout(120)
    browser.get(page)

    def control(label):
        return next((box.find_element('css selector', 'select') for box in browser.find_elements('css selector', '.widget-dropdown')
                     if box.text.startswith(label)), None)

    def picture(): return next((i.get_attribute('src') for i in browser.find_elements('css selector', 'img.widget-image')), '')
    def pixels(): return browser.execute_script('return [...document.querySelectorAll("img.widget-image")].map(i => i.naturalWidth)[0] || 0')
    def after(act):
        before = picture()
        act()
        return wait_for(lambda: (new := picture()) != before and pixels() >= 800 and new, 60)

    wait_for(lambda: control('layer') and pixels() >= 800, 120, lambda: browser.page_source[:1500])
    assert Select(control('layer')).first_selected_option.text == 'layer3'
    seen = [picture(), after(lambda: Select(control('layer')).select_by_visible_text('layer4')),
            after(lambda: Select(control('method')).select_by_visible_text('HiResCAM')),
            after(lambda: Select(control('explain')).select_by_visible_text('truck'))]
    assert len(set(seen)) == 4
    assert '12 of 12 images' in browser.find_element('tag name', 'body').text
    after(lambda: Select(control('true class')).select_by_visible_text('ship'))
    assert all('ship ->' in option.text for option in Select(control('image')).options)
    box = browser.find_element('css selector', '.widget-checkbox input')
    box.click()
    wait_for(lambda: box.is_selected())
    assert wait_for(lambda: all('ship -> ship' not in option.text for option in Select(control('image')).options))
