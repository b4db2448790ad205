"""Prints the lowest versions that settings.ini allows to be installed, one a line: `python tools/lowest.py > lowest.txt`."""
import re
import shlex
from configparser import ConfigParser
from pathlib import Path


def lowest(requirements):
    "Such as ['torch==2.6.0']; a package without a lower bound stays free."
    found = [re.match(r'([A-Za-z0-9_.-]+)(?:>=|==)([0-9.]+)', spec) for spec in shlex.split(requirements)]
    return [f'{match[1]}=={full(match[2])}' for match in found if match]


def full(version):
    "The first release of a series: 2.6 -> 2.6.0."
    return version if version.count('.') > 1 else '.'.join((version.split('.') + ['0', '0'])[:3])


if __name__ == '__main__':
    parser = ConfigParser(delimiters=['='])
    parser.read(Path(__file__).resolve().parent.parent/'settings.ini', encoding='utf-8')
    print('\n'.join(lowest(parser['DEFAULT']['requirements'])))
