"""Opens the page with the network in a headless Chromium and does what a reader does: for its tests, and for measuring.

Needs chromium and chromedriver on the PATH, and selenium.
"""
import re
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
         'disable-background-networking', 'disable-component-update', 'disable-sync',
         'window-size=1280,900', 'proxy-bypass-list=<-loopback>')

# Hosts that Chromium asks on its own account
ERRANDS = re.compile(r'(^|\.)(google|googleapis|gstatic|gvt1|duckduckgo)\.com$')


class Handler(SimpleHTTPRequestHandler):
    "Serves the page; as the browser's proxy it hears of every request to any host."
    def translate_path(self, path): return super().translate_path(urlsplit(path).path)
    def log_message(self, *args): pass

    def end_headers(self):
        self.send_header('Cache-Control', 'no-store')  # a worker's cache cannot be switched off
        super().end_headers()

    def do_GET(self):
        if self.note(self.path) in (None, '127.0.0.1'): super().do_GET()
        else: self.send_error(403)

    def do_CONNECT(self):
        self.note(f'https://{self.path}/')
        self.send_error(403)

    def note(self, url):
        host = urlsplit(url).hostname
        if not ERRANDS.search(host or ''): self.server.asked.append(url)
        return host


def serve(folder):
    "A server of `folder`, which holds the page in live/; `asked` lists what was requested."
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=folder))
    server.asked, server.folder = [], folder/'live'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def start_chromium(server, profile):
    "A headless Chromium whose every request goes through `server`; `profile` is an empty folder."
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    proxy = f'proxy-server=http://127.0.0.1:{server.server_port}'
    for flag in (*FLAGS, proxy, f'user-data-dir={profile}'): options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    driver.set_script_timeout(300)
    return driver


def wait_for(found, explain=lambda: '', seconds=300):
    "What `found` returns once it is true; a page that hangs is an error in the end."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found(): return value
        time.sleep(.02)
    raise AssertionError(f'nothing after {seconds} s {explain()}')


class Page:
    "What a reader sees and does."
    def __init__(self, driver, server):
        self.driver, self.server = driver, server

    def open(self, query='', start=True, width=1280, height=900):
        self.command('Emulation.setDeviceMetricsOverride', width=width, height=height,
                     deviceScaleFactor=1, mobile=width < 600)
        self.driver.get(f'http://127.0.0.1:{self.server.server_port}/live/index.html{query}')
        wait_for(lambda: self.text('title'))
        if start: self.start()
        return self

    def start(self):
        self.find('start').click()
        self.settle()

    def command(self, name, **options): return self.driver.execute_cdp_cmd(name, options)
    def run(self, script, *args): return self.driver.execute_script(script, *args)
    def wait(self, script, *args): # `script` is the body of an async function
        answer = self.driver.execute_async_script(
            'const done = arguments[arguments.length - 1];'
            f'(async (...args) => {{{script}}})(...arguments)'
            '.then(value => done({value}), error => done({error: String(error)}))', *args)
        assert 'error' not in answer, answer['error']
        return answer['value']

    def find(self, id): return self.driver.find_element('id', id)
    def text(self, id): return self.find(id).text

    def settle(self):
        wait_for(lambda: self.run('return cifarCam.settled()'), lambda: self.text('answer'))

    def seen(self):
        "The picture (32,32,4) that the network is shown."
        pixels = self.run('return [...cifarCam.easel.seen]')
        return np.array(pixels, dtype=np.uint8).reshape(32, 32, 4)

    def thumb(self, place):
        "Choose one of the thumbnails shown."
        self.run('document.querySelectorAll("#thumbs button")[arguments[0]].click()', place)

    def cells(self): return self.find('cells').get_attribute('aria-label')
    def select(self, id, value):
        self.run('const list = document.getElementById(arguments[0]); list.value = arguments[1];'
                 'list.dispatchEvent(new Event("change", {bubbles: true}))', id, value)

    def percentages(self):
        texts = self.find('rows').find_elements('css selector', '.percent')
        return [float(text.text.strip('<% ')) for text in texts]

    def stroke(self, *points):
        "Press, move over `points` and release, all at once."
        self.run('''const easel = document.getElementById('easel')
            const box = document.getElementById('picture').getBoundingClientRect()
            const send = (type, [x, y]) => easel.dispatchEvent(new PointerEvent(type, {
                bubbles: true, pointerId: 1,
                clientX: box.left + x/32*box.width, clientY: box.top + y/32*box.height}))
            send('pointerdown', arguments[0][0])
            for (const point of arguments[0]) send('pointermove', point)
            send('pointerup', arguments[0].at(-1))''', points)

    def upload(self, path):
        self.find('file').send_keys(str(path))
        wait_for(lambda: path.name in self.text('title') + self.text('problem'))
