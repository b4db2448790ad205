"The page on which the network runs in the browser: its file, its numbers, what a reader does."
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from torch import nn

from cifar_cam.data import CLASSES, MEAN, load_sample, normalise, sample_indices
from cifar_cam.gradcam import grad_cam
from cifar_cam.resnet import load_pretrained

pytest.importorskip('onnx', reason='onnx is not installed: pip install onnx onnxruntime')
onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import live_network  # noqa: E402
import make_live  # noqa: E402
import measure_live  # noqa: E402
from live_browser import CHROMIUM, Page, serve, start_chromium, wait_for  # noqa: E402

MEASURED = json.loads((ROOT/'results'/'live.json').read_text(encoding='utf-8'))
CHOSEN = MEASURED['chosen']


@pytest.fixture(scope='module')
def sample():
    "The first 100 test images of the embedded sample, as they are and normalised."
    images, _ = load_sample('test')
    return images[:100], normalise(images[:100])


@pytest.fixture(scope='module')
def twin(sample):
    "PyTorch with the weights that the page uses: the model, and its logits of the 100 images."
    model = live_network.rounded_model(CHOSEN)
    with torch.no_grad(): return model, model(sample[1])


# ---- the file ----

def test_weights_are_rounded_channel_by_channel():
    weight = torch.tensor([[1., -.6, .25], [0., 0., 0.], [-30., 10., 14.]])[:, :, None, None]
    numbers, steps = live_network.round_channels(weight, 3)  # -3 to 3
    assert numbers.flatten(1).tolist() == [[3, -2, 1], [0, 0, 0], [-3, 1, 1]]
    torch.testing.assert_close(steps.flatten()[[0, 2]], torch.tensor([1/3, 10.]))


def test_the_graph_with_float16_weights_is_the_network(sample):
    "Logits of 100 images within 1e-4 of PyTorch; layer4's features too."
    model, seen = live_network.rounded_model('float16'), {}
    model.layer4.register_forward_hook(lambda layer, inputs, output: seen.update(features=output))
    with torch.no_grad(): logits = model(sample[1])
    session = measure_live.start_session(live_network.export_network('float16'))
    ours, features = session.run(None, {'image': sample[1].numpy()})
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(features, seen['features'], rtol=0, atol=1e-3)


def test_what_is_downloaded_expands_to_the_rounded_weights():
    "Nine weights become those of a tile so that the tile's sums are those of the convolution."
    _, data, layout = live_network.export_parts(CHOSEN)
    whole = [n for n in live_network.rounded_model(CHOSEN).modules() if isinstance(n, nn.Conv2d)]
    assert sum(layer['tile'] is not None for layer in layout['layers']) == 10
    assert len(data) == sum(n.weight.numel() + 4*n.out_channels for n in whole)
    for tile in live_network.TILES:
        before, kernel, after = live_network.tile_matrices(tile)
        x, weight = torch.randn(1, 1, tile + 2, tile + 2), torch.randn(1, 1, 3, 3)
        products = (kernel @ weight.numpy().ravel()) * (before @ x.numpy().ravel())
        ours = (after @ products).reshape(tile, tile)
        np.testing.assert_allclose(ours, F.conv2d(x, weight)[0, 0], rtol=0, atol=1e-4)


def test_class_maps_are_grad_cam_times_16(sample):
    "All ten maps from one forward pass: relu(fc.weight @ features)/16 is Grad-CAM at layer4."
    model, x = load_pretrained(), sample[1][:4]
    session = measure_live.start_session(live_network.export_network('float16'))
    logits, maps = measure_live.run_network(session, sample[0][:4])
    for k in range(10):
        expected, _ = grad_cam(model, model.layer4, x, torch.full((4,), k))
        positive = np.maximum(maps[:, k], 0)
        np.testing.assert_allclose(positive/16, expected.detach(), rtol=0, atol=1e-5)
    sums = maps.mean((2, 3)) + model.fc.bias.detach().numpy()
    np.testing.assert_allclose(sums, logits, rtol=0, atol=1e-4)  # the cells make the logit


def test_the_measured_table_speaks_of_the_embedded_weights():
    assert MEASURED['fingerprint'] == live_network.fingerprint(), 'measure anew'
    rows = {r['weights'].split()[0]: r for r in MEASURED['rows']}
    assert measure_live.choose(MEASURED['rows']) is rows[str(CHOSEN)]
    assert rows[str(CHOSEN)]['download'] < 12e6
    accuracy = rows[str(CHOSEN)]['test_accuracy']
    assert abs(accuracy - rows['float16']['test_accuracy']) < 0.005
    said = np.array([int(digit) for digit in MEASURED['sample_predictions']])
    assert abs((said == load_sample('test')[1]).mean() - accuracy) < 0.03
    shown = (ROOT/'results'/'live.md').read_text(encoding='utf-8')
    assert shown == measure_live.table(MEASURED['rows'], MEASURED)


def test_a_changed_archive_of_the_runtime_is_refused(tmp_path):
    path = tmp_path/'runtime.tgz'
    path.write_bytes(b'not what was locked')
    integrity = make_live.read_lock()[2]
    with pytest.raises(ValueError, match='package-lock.json'):
        make_live.check_integrity(path, integrity)


def test_no_other_folder_is_replaced(tmp_path):
    (tmp_path/'thesis.txt').write_text('mine')
    with pytest.raises(SystemExit, match='something else'):
        make_live.build(tmp_path)
    assert (tmp_path/'thesis.txt').read_text() == 'mine'


def test_the_sources_name_no_other_host():
    for path in (ROOT/'live').iterdir():
        text = path.read_text(encoding='utf-8').replace('http://www.w3.org/2000/svg', '')
        assert not re.search(r'(https?|wss?):|//[\w-]+\.\w+/', text), path.name
        assert not re.search(r'(src|href)="/', text), path.name


# ---- the page ----

@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "The page, built afresh and served on this machine; `asked` lists what was requested."
    if not CHROMIUM or not shutil.which('chromedriver'):
        pytest.skip('no chromium with chromedriver on the PATH')
    try: make_live.fetch_runtime()
    except SystemExit as reason: pytest.skip(f'no runtime for the browser: {reason}')
    folder, shared = tmp_path_factory.mktemp('site'), tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: shared = shared.parent  # one build for all processes
    with FileLock(shared/'live.lock'):
        if not (shared/'live').is_dir(): make_live.build(shared/'live')
    shutil.copytree(shared/'live', folder/'live')
    server = serve(folder)
    yield server
    server.shutdown()


@pytest.fixture(scope='module')
def driver(server, tmp_path_factory):
    pytest.importorskip('selenium', reason='selenium is not installed')
    driver = start_chromium(server, tmp_path_factory.mktemp('profile'))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, server): return Page(driver, server)


@pytest.fixture
def opened(page):
    "The page with the network started; one load serves all tests that leave it usable."
    if not page.driver.current_url.endswith('?shared'): page.open('?shared')
    return page


def model_of(pixels, model):
    with torch.no_grad(): return model(normalise(pixels[None, ..., :3].copy()))[0]


def test_the_network_is_loaded_only_when_asked_for(page, server):
    large = re.compile(r'runtime/|network\.onnx|weights|worker')
    server.asked.clear()
    page.open(start=False)
    assert not [path for path in server.asked if large.search(path)]
    assert 'Start the network' in page.text('start') and page.text('title').startswith('Test image')
    page.start()
    assert len([path for path in server.asked if large.search(path)]) == 6  # each once
    assert abs(sum(page.percentages()) - 100) < 1


def test_a_hundred_images_have_the_logits_of_pytorch(opened, sample, twin):
    model, logits = twin
    answers = opened.wait('''const out = []
        for (const pixels of args[0]) {
            const answer = await cifarCam.run(pixels)
            out.push([[...answer.logits], [...answer.maps]])
        }
        return out''', sample[0].reshape(100, -1).tolist())
    np.testing.assert_allclose([a[0] for a in answers], logits, rtol=0, atol=1e-4)
    said = np.argmax([a[0] for a in answers], 1)
    assert [int(digit) for digit in MEASURED['sample_predictions'][:100]] == said.tolist()
    expected, _ = grad_cam(model, model.layer4, sample[1][:20], torch.tensor(said[:20]))
    maps = np.array([a[1] for a in answers]).reshape(100, 10, 4, 4)[np.arange(20), said[:20]]
    np.testing.assert_allclose(np.maximum(maps, 0)/16, expected.detach(), rtol=0, atol=1e-5)


def test_a_chosen_image_has_its_own_pixels(opened, sample):
    index = sample_indices('test').tolist()
    opened.select('pick-which', 'all')  # turns to the first page
    for place in (0, 7):
        opened.thumb(place)
        wait_for(lambda name=f'Test image {index[place]}:': name in opened.text('title'))
        np.testing.assert_array_equal(opened.seen()[..., :3], sample[0][place])
    opened.select('pick-which', 'mistakes')
    labels = load_sample('test')[1]
    said = np.array([int(digit) for digit in MEASURED['sample_predictions']])
    assert opened.text('range').endswith(f'of {(said != labels).sum()}')
    opened.thumb(0)
    wait_for(lambda: 'which the network takes for' in opened.text('title'))
    opened.settle()
    taken = opened.text('title').split()[-1].strip('.')
    assert opened.run('return document.querySelector("#rows .top .name").textContent') == taken


def test_a_stroke_hides_pixels_and_moves_the_answer(opened, sample, twin):
    opened.select('pick-which', 'all')
    opened.thumb(0)
    wait_for(lambda: 'Test image 0:' in opened.text('title'))
    opened.settle()
    before = opened.percentages()
    opened.stroke((4, 16), (28, 16))
    opened.settle()
    seen = opened.seen()[..., :3]
    hidden = (seen != sample[0][0]).any(-1)
    assert hidden[14:18, 6:26].all() and not hidden[:12].any() and not hidden[21:].any()
    assert seen[16, 16].tolist() == [round(value*255) for value in MEAN]
    expected = model_of(seen, twin[0]).softmax(0)*100
    np.testing.assert_allclose(opened.percentages(), expected, rtol=0, atol=.06)
    assert opened.percentages() != before
    opened.find('undo').click()
    opened.settle()
    assert opened.percentages() == before
    assert opened.find('undo').get_property('disabled')


def test_what_is_hidden_may_be_blurred_and_uncovered(opened):
    opened.stroke((8, 8), (24, 24))
    grey = opened.seen()
    opened.select('cover', 'blur')
    assert (opened.seen() != grey).any()
    opened.find('uncover').click()
    opened.stroke((0, 0), (32, 32))
    assert opened.find('reveal').get_property('disabled')  # nothing is hidden any more
    opened.find('uncover').click()
    opened.select('cover', 'mean')


def test_a_fast_hand_is_answered_for_its_latest_stroke(opened, twin):
    opened.run('cifarCam.timing.strokes = cifarCam.timing.answers = 0')
    opened.stroke(*[(x/2, 20 + x % 3) for x in range(60)])
    opened.settle()
    timing = opened.run('return cifarCam.timing')
    assert timing['strokes'] > 50 and timing['answers'] < 10
    expected = model_of(opened.seen(), twin[0]).softmax(0)*100
    np.testing.assert_allclose(opened.percentages(), expected, rtol=0, atol=.06)


def test_each_of_several_strokes_is_answered(opened, twin):
    opened.run('cifarCam.timing.strokes = cifarCam.timing.answers = 0')
    for i in range(4):
        opened.stroke((4 + 6*i, 8))
        opened.settle()
    timing = opened.run('return cifarCam.timing')
    assert timing['strokes'] >= timing['answers'] >= 4 and timing['wait'] > 0
    expected = model_of(opened.seen(), twin[0]).softmax(0)*100
    np.testing.assert_allclose(opened.percentages(), expected, rtol=0, atol=.06)


def test_any_map_and_the_difference_of_two(opened):
    cat, dog = CLASSES.index('cat'), CLASSES.index('dog')
    maps = np.array(opened.run('return [...cifarCam.view.now.maps]')).reshape(10, 16)

    def shown():
        return [float(v.replace('−', '-')) for v in opened.cells().split(': ')[1].split(', ')]

    opened.select('map-of', cat)
    np.testing.assert_allclose(shown(), maps[cat], rtol=0, atol=.051)
    assert opened.find('rows').find_elements('css selector', 'input')[cat].is_selected()
    opened.select('minus', dog)
    np.testing.assert_allclose(shown(), maps[cat] - maps[dog], rtol=0, atol=.051)
    logits = opened.run('return [...cifarCam.view.now.logits]')
    odds = np.exp(abs(logits[cat] - logits[dog]))
    assert f'{odds:.{int(odds < 10)}f} times as probable' in opened.text('sum')
    opened.find('views').find_elements('css selector', 'input')[2].click()
    assert 'moved the logit of cat less that of dog' in opened.text('sum')
    opened.select('minus', '')
    opened.select('map-of', '')
    opened.find('reveal').click()


def test_the_overlay_is_upsampled_as_pytorch_does(opened):
    cells = torch.arange(16.).sin().view(1, 1, 4, 4)
    script = 'const {upsample} = await import("./maps.js"); return [...upsample(args[0], 32)]'
    ours = opened.wait(script, cells.flatten().tolist())
    expected = F.interpolate(cells, size=32, mode='bilinear')
    torch.testing.assert_close(torch.tensor(ours).view(32, 32), expected[0, 0], atol=1e-5, rtol=0)


def pictures(folder):
    "Files that a reader may bring, name -> pixels that the network should see; None: a message."
    left, right = (200, 40, 40), (40, 40, 200)
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :32], wide[:, 32:] = left, right
    wide[:, :8], wide[:, -8:] = 255, 0  # beyond the middle square
    middle = wide[:, 16:48]
    Image.fromarray(wide).save(folder/'wide.png')
    small = load_sample('test')[0][5]
    Image.fromarray(small).save(folder/'small.png')
    tall = Image.fromarray(np.kron(small, np.ones((20, 20, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held upright: turn by 90 degrees
    tall.rotate(90).save(folder/'turned.jpg', quality=100, subsampling=0, exif=exif)
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[:32] = [10, 200, 30, 255]
    Image.fromarray(clear).save(folder/'clear.png')
    Image.new('1', (8000, 6000), 1).save(folder/'huge.png')
    Image.new('RGBA', (40, 40), (0, 0, 0, 0)).save(folder/'nothing.png')
    (folder/'notes.txt').write_text('not a picture')
    flat = np.full((32, 32, 3), 255, np.uint8)
    flat[:16] = [10, 200, 30]
    return {'wide.png': middle, 'small.png': small, 'turned.jpg': small, 'clear.png': flat,
            'huge.png': np.full((32, 32, 3), 255, np.uint8), 'notes.txt': None, 'nothing.png': None}


def test_pictures_of_the_readers_own(opened, tmp_path):
    for name, expected in pictures(tmp_path).items():
        before = opened.seen()
        opened.upload(tmp_path/name)
        if expected is None:
            assert name in opened.text('problem')
            np.testing.assert_array_equal(opened.seen(), before)
        else:
            assert not opened.text('problem') and name in opened.text('title')
            atol = 8 if name.endswith('jpg') else 1
            seen = opened.seen()[..., :3].astype(int)
            np.testing.assert_allclose(seen, expected, rtol=0, atol=atol, err_msg=name)
    assert opened.find('own').is_displayed()


def test_a_dropped_picture_is_taken(opened):
    data = io.BytesIO()
    Image.new('RGB', (50, 50), (9, 99, 199)).save(data, 'PNG')
    opened.run('''const transfer = new DataTransfer()
        const bytes = Uint8Array.from(arguments[0])
        transfer.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}))
        const options = {bubbles: true, cancelable: true, dataTransfer: transfer}
        for (const type of ['dragover', 'drop']) {
            document.body.dispatchEvent(new DragEvent(type, options))
        }''', list(data.getvalue()))
    wait_for(lambda: 'dropped.png' in opened.text('title'))
    assert opened.seen()[3, 3].tolist() == [9, 99, 199, 255]
    assert not opened.find('drop').is_displayed()


def test_nothing_at_all_still_gets_a_hundred_percent(opened):
    for name in ('plain', 'noise'):
        opened.find(name).click()
        opened.settle()
        assert abs(sum(opened.percentages()) - 100) < 1


def test_no_picture_and_no_request_leaves_the_browser(opened, server):
    "The browser's proxy has heard of every request: all went to this page's own folder."
    before = len(server.asked)
    opened.stroke((5, 5), (20, 20))
    opened.settle()
    assert len(server.asked) == before  # painting asks for nothing
    assert {urlsplit(path).hostname for path in server.asked} == {'127.0.0.1'}
    assert all(urlsplit(path).path.startswith('/live/') for path in server.asked)
    sent = opened.wait('return fetch("http://example.com/?picture").then(() => true, () => false)')
    assert not sent and len(server.asked) == before  # the page's policy stops it in the browser
    log = [entry for entry in opened.driver.get_log('browser') if entry['level'] == 'SEVERE']
    assert not [entry for entry in log if 'example.com' not in entry['message']]


def test_the_keyboard_is_enough(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys): ActionChains(page.driver).send_keys(*keys).perform()

    def tab_to(condition, limit=25):
        for _ in range(limit):
            press(Keys.TAB)
            if page.run(f'const e = document.activeElement; return {condition}'): return
        raise AssertionError(f'no {condition}')

    page.open(start=False)
    tab_to('e.parentElement.id === "thumbs"')
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)  # choosing starts the network
    page.settle()
    assert page.run('return document.activeElement.getAttribute("aria-pressed")') == 'true'
    assert page.run('return document.activeElement.title') in page.text('title')
    before = page.percentages()
    tab_to('e.id === "easel"')
    press(' ', Keys.ARROW_DOWN, ' ')
    page.settle()
    assert page.seen()[17, 16, :3].tolist() == [round(value*255) for value in MEAN]
    assert page.percentages() != before
    press('u', 'u')
    page.settle()
    assert page.percentages() == before
    tab_to('e.name === "class"')
    press(Keys.ARROW_DOWN)
    value = page.run('return document.activeElement.value')
    assert value == page.find('map-of').get_property('value')
    tab_to('e.id === "minus"')
    outline = page.run('return getComputedStyle(document.activeElement).outlineStyle')
    assert outline == 'solid'


@pytest.mark.parametrize('query', ['', '?panel=1'])
def test_a_phone_scrolls_in_one_direction(page, query):
    page.open(query, start=False, width=390, height=844)
    assert page.run('return document.documentElement.scrollWidth') == 390
    small = page.run('''return [...document.querySelectorAll('button, select, .button')]
        .map(e => [e.outerHTML, e.getBoundingClientRect()])
        .filter(([html, box]) => box.width && Math.min(box.width, box.height) < 28)''')
    assert not small  # room for a thumb


def test_a_lesson_shows_the_panel_at_the_image_it_names(page):
    index = sample_indices('test')[3]
    page.open(f'?panel=1&image={index}&class=ship&minus=airplane', width=720, height=640)
    assert f'Test image {index}:' in page.text('title')
    assert not page.find('words').is_displayed() and page.find('easel').is_displayed()
    assert page.run('const {scrollWidth, clientWidth} = document.documentElement; return scrollWidth <= clientWidth')
    assert 'the logit of ship less that of airplane' in page.text('sum')


def lesson_page():
    "The lesson's cell with the panel as a page of the site, with the site's own style."
    markdown = pytest.importorskip('nbconvert.filters').markdown2html
    path = ROOT/'nbs'/'06_gradcam.ipynb'
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    cell, = [c for c in cells if 'live/index.html?panel=1' in ''.join(c['source'])]
    return ('<!doctype html><meta name="viewport" content="width=device-width">'
            '<link rel="stylesheet" href="site.css"><body style="margin:0"><main>'
            + markdown(''.join(cell['source'])) + '</main>')


@pytest.mark.parametrize('width', [1280, 390])
def test_a_lesson_runs_the_network_when_its_button_is_pressed(page, server, width):
    "As a reader does: the lesson loads nothing of the network until the panel is opened."
    site = server.folder.parent
    (site/'06_gradcam.html').write_text(lesson_page(), encoding='utf-8')
    shutil.copy(ROOT/'nbs'/'site.css', site)
    page.command('Emulation.setDeviceMetricsOverride', width=width, height=900,
                 deviceScaleFactor=1, mobile=width < 600)
    server.asked.clear()
    page.driver.get(f'http://127.0.0.1:{server.server_port}/06_gradcam.html')
    button = page.driver.find_element('tag name', 'summary')
    assert button.text == 'Run the network here'
    assert not [path for path in server.asked if '/live/' in path]
    button.click()
    wait_for(lambda: [path for path in server.asked if '/live/index.html' in path])
    fits = 'const e = document.documentElement; return e.scrollWidth <= e.clientWidth'
    assert page.run(fits)
    frame = page.driver.find_element('tag name', 'iframe')
    page.driver.switch_to.frame(frame)
    try:
        ship = sample_indices('test')[load_sample('test')[1] == CLASSES.index('ship')][0]
        wait_for(lambda: f'Test image {ship}: ship' in page.text('title'))
        height = 'const e = document.documentElement; return e.scrollHeight <= e.clientHeight'
        assert page.run(fits) and page.run(height)  # no page that scrolls within a page
        large = re.compile(r'runtime/|network\.onnx|weights|worker')
        assert not [path for path in server.asked if large.search(path)]
        page.start()
        assert abs(sum(page.percentages()) - 100) < 1
        assert page.run('return document.querySelector("#rows .top .name").textContent') == 'ship'
        before = page.percentages()
        page.stroke((4, 16), (28, 16))
        page.settle()
        assert page.percentages() != before
        assert page.run(fits) and page.run(height)
    finally:
        page.driver.switch_to.default_content()
        server.asked.clear()


def test_light_dark_and_stillness_are_as_the_system_asks(opened):
    def look(scheme, motion):
        opened.command('Emulation.setEmulatedMedia', features=[
            dict(name='prefers-color-scheme', value=scheme),
            dict(name='prefers-reduced-motion', value=motion)])
        return opened.run('''return [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector(".bar i")).transitionDuration]''')
    light, moving = look('light', 'no-preference')
    dark, still = look('dark', 'reduce')
    opened.command('Emulation.setEmulatedMedia', features=[])
    bright, dim = (sum(map(int, re.findall(r'\d+', colour)[:3])) for colour in (light, dark))
    assert bright > 600 and dim < 150
    assert (moving, still) == ('0.12s', '0s')


def test_a_browser_without_webassembly_is_told(page):
    source = 'delete window.WebAssembly'
    script = page.command('Page.addScriptToEvaluateOnNewDocument', source=source)
    page.open(start=False)
    page.find('start').click()
    page.command('Page.removeScriptToEvaluateOnNewDocument', **script)
    wait_for(lambda: 'WebAssembly is switched off or missing' in page.text('start-note'))


def test_a_broken_download_is_told_and_tried_again(page, server):
    network = server.folder/'network.onnx.gz'
    network.rename(away := network.with_suffix('.away'))
    try:
        page.open(start=False)
        page.find('start').click()
        wait_for(lambda: 'network.onnx.gz answered 404' in page.text('start-note'))
    finally: away.rename(network)
    page.start()
    assert abs(sum(page.percentages()) - 100) < 1


def test_every_address_of_the_page_is_relative_and_there(server):
    html = (server.folder/'index.html').read_text(encoding='utf-8')
    assert '{{' not in html
    for address in re.findall(r'(?:src|href)="([^"]+)"', html):
        if address == '../index.html' or address.startswith('data:'): continue
        assert (server.folder/address.split('?')[0]).is_file(), address
    facts = json.loads((server.folder/'facts.js').read_text().removeprefix('export default '))
    assert sum(facts[part]['bytes'] for part in ('network', 'weights', 'runtime')) < 16e6
