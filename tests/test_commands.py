"The commands as a person types them, on the embedded sample, without network."
import json
import subprocess
import sys
from pathlib import Path

bin_folder = Path(sys.executable).parent


def run(folder, command, *options):
    return subprocess.run([bin_folder/command, *options], cwd=folder, capture_output=True, text=True, timeout=300)


def test_train_then_report(tmp_path):
    trained = run(tmp_path, 'cifar_cam_train', 'layernorm-fast', '--sample', '--images', '128', '--epochs', '1', '--device', 'cpu', '--run', 'short')
    assert trained.returncode == 0, trained.stderr
    assert 'on 1,000 images (128 train' in trained.stdout
    card = json.loads((tmp_path/'runs'/'short'/'run.json').read_text())
    assert (card['recipe']['name'], card['seed'], card['test_images']) == ('layernorm-fast', 42, 1000)
    reported = run(tmp_path, 'cifar_cam_report', 'runs/short', '--data', 'sample')
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path/'runs'/'short'/'report.html').stat().st_size > 50_000
    again = run(tmp_path, 'cifar_cam_train', 'layernorm-fast', '--sample', '--run', 'short')
    assert again.returncode == 2 and 'finished already' in again.stderr and 'Traceback' not in again.stderr


def test_mistakes_at_the_command_line_get_one_line(tmp_path):
    wrong = [('cifar_cam_train', 'layernorm-fats'), ('cifar_cam_train', 'layernorm-fast', '--sample', '--images', '5000'),
             ('cifar_cam_train', 'layernorm-fast', '--sample', '--epochs', '0'), ('cifar_cam_train', 'layernorm-fast', '--sample', '--device', 'tpu'),
             ('cifar_cam_report', 'runs/nothing'), ('cifar_cam_data', '--source', str(tmp_path/'nothing'), '--root', str(tmp_path/'cache'))]
    for command in wrong:
        done = run(tmp_path, *command)
        assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1, (command, done.stderr)
        assert 'Traceback' not in done.stderr
    assert not list((tmp_path).glob('runs/*/run.json'))


def test_help_names_every_option(tmp_path):
    for command in ('cifar_cam_data', 'cifar_cam_train', 'cifar_cam_report', 'cifar_cam_demo'):
        done = run(tmp_path, command, '--help')
        assert done.returncode == 0 and 'usage' in done.stdout
