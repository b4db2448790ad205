"Installs cifar_cam; everything it says is read from settings.ini."
from configparser import ConfigParser
from pathlib import Path
import re
import runpy
import shlex

from setuptools import setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
readme = (here/'README.md').read_text(encoding='utf-8')  # its links lead to files beside it; on PyPI there are none
readme = re.sub(r'\]\((?!https?:|#)', f"]({cfg['git_url']}/blob/{cfg['branch']}/", readme)
readme = re.sub(r'src="(?!https?:)', f"src=\"{cfg['git_url']}/raw/{cfg['branch']}/", readme)


class BuildWithHashes(build_py):
    "Adds the hashes of the measured results, which lie beside the package in a checkout and inside it in a wheel."
    def run(self):
        super().run()
        if not getattr(self, 'editable_mode', False):
            runpy.run_path(here/'tools'/'data_hashes.py')['write_hashes'](Path(self.build_lib)/cfg['lib_name'])


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme,
    long_description_content_type='text/markdown',
    url=cfg['git_url'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    python_requires='>=' + cfg['min_python'],
    packages=[cfg['lib_name'], cfg['lib_name'] + '.results'],
    package_dir={cfg['lib_name'] + '.results': 'results'},  # the measured tables travel with the package
    package_data={cfg['lib_name']: ['data_hashes.json', 'sample/*', 'templates/*', 'weights/*'], cfg['lib_name'] + '.results': ['*.json', '*.csv', '*.md', '*.png', '*.safetensors']},
    install_requires=shlex.split(cfg['requirements']),
    extras_require={'dev': shlex.split(cfg['dev_requirements'])},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    cmdclass={'build_py': BuildWithHashes},
    zip_safe=False,
)
