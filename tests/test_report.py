"The report: one file, no network, readable at 390 and 1280 pixels, checked in a real browser where there is one."
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from markupsafe import escape
from matplotlib.figure import Figure
from torch import nn

import cifar_cam.people
import cifar_cam.recipes
import cifar_cam.report
from cifar_cam.core import file_hash, finish_run, new_run, read_run
from cifar_cam.data import CLASSES, load_sample, sample_indices, split_train_valid
from cifar_cam.people import VERDICTS, votes_text
from cifar_cam.recipes import find_recipe, recipe_data, run_recipe, train_command
from cifar_cam.report import (
    compare_runs,
    demo_command,
    demo_run,
    held_back,
    history_charts,
    judge,
    keep_predictions,
    kept_predictions,
    line_chart,
    paired_gain,
    people_chart,
    report_command,
    report_data,
    run_names,
    tidy_history,
    write_page,
    write_report,
)
from cifar_cam.pretrained import pretrained_path
from cifar_cam.resnet import david_resnet, load_pretrained, resnet18

chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
chromedriver = shutil.which('chromedriver')
needs_browser = pytest.mark.skipif(not (chromium and chromedriver), reason='no Chromium with chromedriver on this machine')
needs_weights = pytest.mark.skipif(not pretrained_path().is_file(), reason='no embedded weights')
history = pd.DataFrame(dict(epoch=[1, 2, 3], train_loss=[2., 1.2, .9], train_accuracy=[.3, .6, .7], valid_loss=[1.8, 1.1, 1.],
                            valid_accuracy=[.4, .6, .65], lr=[.1, .05, .01], size=[16, 24, 32], seconds=[4., 5., 6.]))


def text_of(path): return path.read_text(encoding='utf-8').replace('\xa0', ' ')


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    "Two finished runs of different networks, their reports on 60 and 8 images, and their comparison."
    root = tmp_path_factory.mktemp('runs')
    torch.manual_seed(0)
    images, labels, indices = *load_sample('test'), sample_indices('test')
    some = np.r_[0:50, np.isin(indices, (165, 792, 882, 1227)).nonzero()[0], 50:60][:60]
    runs = []
    fast = dict(name='layernorm-fast', model='layernorm', pipeline='fast')
    for name, model, recipe in (('layer', resnet18(), fast), ('other', resnet18(norm='batch'), None)):
        card = dict(recipe=recipe, seed=1, started='2026-11-20T11:04:50+00:00', hardware='a <b>machine</b>', note='<script>alert(1)</script>')
        run = finish_run(new_run(name, root), model.state_dict(), history, card)
        write_report(run, images[some], labels[some], indices[some])
        some = some[:8]
        runs.append(run)
    compare_runs(runs, root/'comparison.html')
    return runs, root/'comparison.html'


@pytest.fixture
def tiny(monkeypatch):
    "A network that is trained and judged within a second, as `tiny` in the registry."
    make = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
    monkeypatch.setitem(cifar_cam.recipes.MODELS, 'tiny', make)
    torch.manual_seed(0)
    return make


@pytest.fixture
def no_charts(monkeypatch):
    "For pages whose charts do not matter."
    monkeypatch.setattr(cifar_cam.report, 'draw_chart', lambda draw, height=0: dict(title='a chart', svg='<svg></svg>'))


def tiny_run(root, make, name='tiny', history=history, **card):
    return finish_run(new_run(name, root), make().state_dict(), history, dict(recipe=dict(model='tiny'), **card))


def test_a_page_is_one_small_file_that_fetches_nothing_and_runs_nothing(pages):
    runs, comparison = pages
    for page in [run/'report.html' for run in runs] + [comparison]:
        text = page.read_text(encoding='utf-8')
        assert len(text) < 3_000_000
        fetched = re.findall(r'(?:src|href)="(.*?)"', text)
        assert fetched and all(f.startswith(('data:', '#')) for f in fetched)
        assert not re.search(r'http:|https:|<script|url\((?!#)|@import', text)
        assert """content="default-src 'none'; img-src data:; style-src 'unsafe-inline'\"""" in text


def test_a_page_has_all_its_parts(pages):
    text = text_of(pages[0][0]/'report.html')
    assert re.findall('<h2.*?>(.*?)</h2>', text) == ['Classes', 'Confusion', 'Calibration', 'Misclassified images', 'The same images with Grad-CAM',
                                                     'What people say', 'Doubtful labels', 'Training', 'Run card']
    for link in re.findall('<a href="#(.*?)">', text): assert text.count(f'<h2 id="{link}">') == 1
    for words in ('true class down, predicted class across', 'also called recall', 'T below 1', 'the other way round',
                  'raters: 1 deer, 1 bird, 3 neither', 'share right'):
        assert words in text
    charts = re.findall('<figcaption>([^<]*)</figcaption>\\s*<svg', text)
    for chart in ('Hardest', 'Most often', 'As it is: ECE', 'After scaling: ECE', 'Accuracy on the most', 'loss: 1.000', 'accuracy: 0.650',
                  'Learning rate', 'Image width'):
        assert sum(title.startswith(chart) for title in charts) == 1, (chart, charts)
    assert len(charts) == 9


def test_each_picture_has_its_test_index_and_four_tiles_of_32_pixels(pages):
    text, (table, _) = text_of(pages[0][0]/'report.html'), kept_predictions(pages[0][0])
    maps = text[text.index('id="maps"'):text.index('id="people"')]
    shown = list(map(int, re.findall(r'<span class="soft">test (\d+)</span>', maps)))
    assert len(shown) == len(set(shown)) == 20 and set(shown) <= set(table[table.true != table.predicted]['index'])
    assert all(maps.count(f'alt="test {i}, {tile}"') == 1 for i in shown for tile in ('image', 'predicted', 'true', 'difference'))
    assert not re.search(r'alt="(image|said|true|)"', text)


@pytest.fixture
def votes(tmp_path, monkeypatch):
    "A file of made-up votes that passes for CIFAR-10H, and the votes."
    random = np.random.default_rng(0)
    counts = random.multinomial(51, random.dirichlet(np.full(10, .2), 10_000))
    np.save(tmp_path/'votes.npy', counts)
    monkeypatch.setattr(cifar_cam.people, 'VOTES_SHA256', file_hash(tmp_path/'votes.npy'))
    return tmp_path/'votes.npy', counts


def test_each_mistake_shows_what_people_said_and_its_verdict_with_the_rule(tmp_path, tiny, no_charts, votes):
    images, labels, indices = (a[:100] for a in (*load_sample('test'), sample_indices('test')))
    run, (file, counts) = tiny_run(tmp_path, tiny), votes
    judged = judge(run, images, labels, indices, votes=file)
    text, found = text_of(write_page(judged)), judged.table[judged.table.true != judged.table.predicted].verdict
    for row in judged.rows.itertuples():
        assert f'people: {votes_text(counts[row.index], CLASSES)}\n' in text and row.people == votes_text(counts[row.index], CLASSES)
    gallery = text[text.index('id="mistakes"'):text.index('id="maps"')]
    for verdict in set(judged.rows.verdict): assert gallery.count(f'<b>{escape(verdict)}</b><span class="soft">: {VERDICTS[verdict]}') > 0
    part = text[text.index('id="people"'):text.index('id="doubtful"')]
    for verdict, rule in VERDICTS.items():
        assert f'<td>{escape(verdict)}</td><td>{rule}</td><td>{(found == verdict).sum()}</td>' in part
    assert 'Peterson' in part and 'CC BY-NC-SA 4.0' in part
    kept = pd.read_csv(run/'predictions.csv')
    assert not {'people', 'verdict', 'match', 'doubtful'} & set(kept), 'votes stay with the page'


def test_the_network_is_drawn_beside_people():
    drawn = people_chart((.949, .98), 184, 200)
    assert drawn['title'] == 'The network beside people'
    for text in ('the network', 'one person', 'most people', '92.0%', '94.9%', '98.0%'): assert text in drawn['svg'], text


def test_without_votes_the_page_says_so(tmp_path, tiny, no_charts, votes, capsys):
    images, labels, indices = (a[:60] for a in (*load_sample('test'), sample_indices('test')))
    run = tiny_run(tmp_path, tiny)
    text = text_of(write_report(run, images, labels, indices))
    assert 'Votes of people are not at hand: fetch data/cifar10h-counts.npy from github.com/jcpeterson/cifar-10h' in text
    assert 'people: ' not in text and '--votes cifar10h-counts.npy' in text
    assert 'it is not known which these are' in text_of(write_report(run, images, labels))
    with pytest.raises(ValueError, match='Pass indices, or leave votes out'): write_report(run, images, labels, votes=votes[0])
    (tmp_path/'other.npy').write_bytes(b'no votes')
    for file, words in (('none.npy', 'does not exist'), ('other.npy', 'another checksum')):
        with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample', '--votes', str(tmp_path/file)])
        assert leaving.value.code == 2 and words in capsys.readouterr().err
    report_command([str(run), '--data', 'sample', '--votes', str(votes[0])])
    assert 'One person agrees with the label on' in text_of(run/'report.html')


def test_names_and_notes_of_a_stranger_stay_text(pages, tmp_path, tiny, no_charts):
    runs, comparison = pages
    text, compared = text_of(runs[0]/'report.html'), text_of(comparison)
    for page in (text, compared): assert 'a &lt;b&gt;machine' in page and '<b>machine' not in page
    assert '&lt;script&gt;alert(1)' in text and '<script' not in text
    evil = '"><img src=x onerror=alert(1)>'
    run = tiny_run(tmp_path, tiny, **{evil: evil, 'deep': {evil: {evil: [evil]}}, 'started': evil, 'seed': {evil: 1}})
    run = run.rename(tmp_path/'<i>&name')
    images, labels = (a[:8] for a in load_sample('test'))
    page = write_report(run, images, labels)
    compare_runs([run], tmp_path/'c.html')
    for text in (text_of(page), text_of(tmp_path/'c.html')):
        assert '<img src=x' not in text and '<i>' not in text and '&lt;i&gt;&amp;name' in text


def test_the_head_tells_data_network_date_machine_and_one_conclusion(pages):
    head = re.search('<header>(.*?)</header>', text_of(pages[0][0]/'report.html'), re.S)[1]
    right = kept_predictions(pages[0][0])[0].eval('true == predicted').mean()
    assert head.count(f'{100*right:.2f} %') == 1 and head.count('95 % confidence interval') == 1
    for words in ('60 test images of CIFAR-10', 'ResNet with 11,173,962 parameters', 'LayerNorm', 'recipe layernorm-fast', 'date 2026-11-20',
                  'Most frequent mistake', f'torch {torch.__version__}'): assert words in head
    assert re.search(r'<dt>Written</dt><dd>20\d\d-\d\d-\d\d</dd>', head)
    assert 'On all 10,000' not in head # nobody knows, for these weights


def test_a_table_is_read_once_for_a_page(tmp_path, tiny, no_charts, monkeypatch):
    passes, judge_images = [], cifar_cam.report.prediction_table
    monkeypatch.setattr(cifar_cam.report, 'prediction_table', lambda *args, **options: passes.append(1) or judge_images(*args, **options))
    for name in ('scores', 'class_maps', 'saved_analysis'):
        real = getattr(cifar_cam.report, name)
        monkeypatch.setattr(cifar_cam.report, name, lambda *args, real=real, name=name, **options: passes.append(name) or real(*args, **options))
    judged = judge(tiny_run(tmp_path, tiny), *(a[:40] for a in load_sample('test')), sample_indices('test')[:40])
    write_page(judged)
    sheet = Figure().add_subplot()
    monkeypatch.setattr(cifar_cam.report, 'plot_gallery', lambda tiles, rows, rule, **options: np.array([sheet]))
    cifar_cam.report.save_galleries(judged)
    assert sorted(map(str, passes)) == ['1', 'class_maps', 'saved_analysis', 'scores']


def test_charts_take_what_a_history_has():
    odd = pd.DataFrame(dict(train_loss=[np.inf, 2, 'x'], valid_accuracy=[.1, .2, .3], lr=[1e-3, -np.inf, 1e300]))
    assert [chart['title'].split()[0] for chart in history_charts(odd)] == ['loss:', 'accuracy:', 'Learning']
    assert tidy_history(odd).epoch.tolist() == [1, 2, 3] and tidy_history(odd).train_loss.tolist()[1] == 2
    assert np.isnan(tidy_history(odd).to_numpy()[:, 1:]).sum() == 18 - 1 - 3 - 1
    long = pd.DataFrame(dict(epoch=np.arange(90_000), valid_loss=1.))
    assert len(tidy_history(long)) == 500 and tidy_history(long).epoch.iloc[[0, -1]].tolist() == [0, 89_999]
    assert history_charts(pd.DataFrame({'epoch': []})) == history_charts(pd.DataFrame()) == []


def test_a_chart_can_be_read_without_a_style_sheet_on_white_and_on_black():
    chart = line_chart([([1, 2], [.5, .7])], 'Loss <&')
    assert chart['title'] == 'Loss <&' and 'aria-label="Loss &lt;&amp;"' in chart['svg']
    frame = re.search('<svg[^>]*>', chart['svg'])[0]
    assert 'fill="currentColor"' in frame and 'stroke: currentColor' in chart['svg'] and '>epoch</text>' in chart['svg']
    assert not re.search('#000000|font-family|white|<style|<metadata', chart['svg'])
    used = set(re.findall('(?:url\\(|href=")#([^")]*)', chart['svg']))
    assert used and used == set(re.findall(' id="(.*?)"', chart['svg']))


def test_a_paired_difference_counts_images_that_changed():
    first = pd.DataFrame(dict(index=range(100), true=0, predicted=[0]*80 + [1]*20))
    table = first.assign(predicted=[1]*5 + [0]*90 + [1]*5) # 5 lost, 15 won
    gain = paired_gain(table, first)
    half = 1.96*((20 - 10**2/100)/100)**.5/10 # Wald: (b + c - (b - c)^2/n)/n^2
    assert gain['gain'] == pytest.approx(.1) and gain['gain_high'] - gain['gain'] == pytest.approx(half)
    assert paired_gain(table.assign(index=range(1, 101)), first) == {}


def test_predictions_stay_with_their_model(pages):
    run = pages[0][0]
    table, logits = kept_predictions(run)
    assert list(table)[:5] == ['index', 'true', 'predicted', 'confidence', 'true_confidence'] and len(logits) == len(table) == 60
    assert len(pd.read_csv(run/'predictions.csv')) == 60
    with pytest.raises(ValueError, match='Write the report again'): kept_predictions(run, resnet18())


def test_a_comparison_shows_every_run_and_says_what_is_not_judged(pages, tmp_path, tiny, no_charts):
    runs, comparison = pages
    text = text_of(comparison)
    assert all(f'<td>{run.name}</td>' in text for run in runs) and 'layernorm-fast' in text and 'Accuracy per class' in text
    bare = tiny_run(tmp_path, tiny, 'bare', pd.DataFrame({'epoch': []}))
    table = compare_runs([runs[0], bare], tmp_path/'c.html')
    assert 'not judged' in text_of(tmp_path/'c.html')
    assert table.judged.tolist() == [True, False] and table.images[0] == 60 and table.accuracy.isna().tolist() == [False, True]
    compare_runs([bare], tmp_path/'d.html')
    assert 'No history was kept' in text_of(tmp_path/'d.html') and 'per class' not in text_of(tmp_path/'d.html')
    with pytest.warns(DeprecationWarning, match='compare_runs'): assert cifar_cam.report.write_comparison is compare_runs


def test_a_comparison_counts_epochs_itself_and_refuses_stale_predictions(pages, tmp_path, tiny):
    bare = tiny_run(tmp_path, tiny, 'bare', history.drop(columns='epoch'))
    compare_runs([pages[0][0], bare], tmp_path/'c.html')
    assert 'Validation loss' in text_of(tmp_path/'c.html')
    keep_predictions(bare, *kept_predictions(pages[0][0]), tiny())
    with pytest.raises(ValueError, match='Write the report again'): compare_runs([bare], tmp_path/'d.html')
    assert not (tmp_path/'d.html').exists()


def test_names_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_names([tmp_path/'first'/'seed42', 'second/seed42']) == ['first/seed42', 'second/seed42']
    assert run_names(['a', 'a/a']) == ['a', 'a/a'] and run_names(['.']) == [tmp_path.name]
    with pytest.raises(ValueError, match='different folders'): run_names(['a', './a/'])


def test_the_title_is_the_folder_that_a_dot_stands_for(tmp_path, tiny, no_charts, monkeypatch):
    monkeypatch.chdir(tiny_run(tmp_path, tiny, 'david'))
    images, labels = (a[:6] for a in load_sample('test'))
    assert '<title>cifar_cam: david</title>' in write_report('.', images, labels).read_text(encoding='utf-8')


def test_a_wrong_choice_is_found_before_the_pass_and_harms_nothing(pages, monkeypatch, capsys):
    run, passes = pages[0][0], []
    monkeypatch.setattr(cifar_cam.report, 'prediction_table', lambda *_, **options: passes.append(1))
    before = {path.name: path.read_bytes() for path in run.glob('predictions.*')}
    for arguments, words in (([run, '--rule', 'best'], "got 'best'"), ([run, '--images', '201'], 'at most 200'), ([run, f'{run}/.'], 'different folders')):
        with pytest.raises(SystemExit) as leaving: report_command([str(a) for a in arguments])
        assert leaving.value.code == 2 and words in capsys.readouterr().err
    images, labels = load_sample('test')
    for wrong, words in ((dict(images=images), 'labels must be given'), (dict(labels=labels), 'images must be given'),
                         (dict(images=images[:0], labels=labels[:0]), 'at least one image'), (dict(valid=(images, labels[:9])), 'valid must be'),
                         (dict(rule='best'), 'rule must be')):
        with pytest.raises(ValueError, match=words): write_report(run, **wrong)
    assert not passes and before == {path.name: path.read_bytes() for path in run.glob('predictions.*')}


def test_predictions_are_kept_only_with_their_page(pages, monkeypatch):
    run = pages[0][0]
    def fails(*_): raise OSError('no fonts')
    monkeypatch.setattr(cifar_cam.report, 'report_facts', fails)
    before, (images, labels) = (run/'predictions.csv').read_bytes(), (a[:8] for a in load_sample('test'))
    with pytest.raises(OSError, match='no fonts'): write_report(run, images, labels)
    assert (run/'predictions.csv').read_bytes() == before


@pytest.mark.parametrize('file, text, words', [
    ('run.json', '[1]', 'no JSON object'), ('run.json', 'null', 'no JSON object'), ('run.json', '{', 'is not JSON'),
    ('history.csv', '', 'history.csv is no table'), ('history.csv', 'epoch\n1\n2,3\n', 'history.csv is no table'),
    ('history.csv', 'epoch,train_loss\n1,2.0\n2,high\n', "column train_loss, not 'high'"), ('history.csv', 'size\nbig\n', "column size, not 'big'"),
    ('history.csv', 'epoch,seconds\n1,inf\n', 'column seconds, not inf'), ('history.csv', f'epoch\n1{"0"*400}\n', 'column epoch'),
    ('run.json', '['*100_000, 'run.json is not JSON'), ('run.json', '{"a":'*400 + '1' + '}'*400, 'more than 20 levels deep'),
    ('run.json', '{"a": "' + 'x'*20_000_000 + '"}', 'run.json has 20,000,009 bytes'), ('history.csv', 'epoch\n' + '1\n'*600_000, 'history.csv has')])
def test_damaged_run_files_are_named(tmp_path, file, text, words):
    run = finish_run(new_run('damaged', tmp_path), {'w': torch.ones(1)}, history, {})
    (run/file).write_text(text)
    with pytest.raises(ValueError) as error: read_run(run)
    assert words in str(error.value) and str(run) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['run.json', 'history.csv', 'weights.safetensors'])
def test_a_file_of_30_gigabytes_is_not_read(tmp_path, capsys, name):
    run = finish_run(new_run('huge', tmp_path), {'w': torch.ones(1)}, history, {})
    with open(run/name, 'rb+') as file: file.truncate(30_000_000_000) # sparse: it takes no room
    with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and f'{run/name} has 30,000,000,000 bytes' in said and len(said.strip().splitlines()) == 1


def test_foreign_notes_in_the_weights_are_one_line(tmp_path, capsys):
    from safetensors.torch import save_file
    run = finish_run(new_run('foreign', tmp_path), {'w': torch.ones(1)}, history, {})
    for notes in ({'facts': 'no JSON'}, {'facts': '['*100_000}):
        save_file({'w': torch.ones(1)}, run/'weights.safetensors', metadata=notes)
        with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
        said = capsys.readouterr().err
        assert leaving.value.code == 2 and str(run/'weights.safetensors') in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize('recipe, words', [(dict(model=['x']), 'do not fit'), (dict(pipeline={'a': 1}), 'must name a known pipeline'),
                                           (dict(pipeline='none such'), 'must name a known pipeline'), ([1], 'do not fit')])
def test_a_strange_recipe_in_a_card_is_one_line(tmp_path, capsys, recipe, words):
    run = finish_run(new_run('strange', tmp_path), {'w': torch.ones(1)}, history, dict(recipe=recipe, seed=[1], trained=3))
    with pytest.raises(SystemExit) as leaving: report_command([str(run), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and words in said and str(run) in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize('name', ['report.html', 'predictions.csv', 'predictions.safetensors', '../comparison.html'])
def test_a_folder_in_the_place_of_a_page_is_found_before_the_pass(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(cifar_cam.report, 'prediction_table', lambda *_, **options: pytest.fail('it began'))
    runs = [finish_run(new_run(kind, tmp_path), {'w': torch.ones(1)}, history, {}) for kind in ('a', 'b')]
    (runs[0]/name).mkdir()
    with pytest.raises(SystemExit) as leaving: report_command([*map(str, runs), '--data', 'sample'])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and 'there is a folder of that name' in said and Path(name).name in said


def test_predictions_of_somebody_else_are_refused_by_name(tmp_path):
    from safetensors.torch import save_file
    path = tmp_path/'predictions.safetensors'
    three = dict(logits=torch.ones(2, 10), true=torch.zeros(2), index=torch.zeros(2))
    for tensors, notes in (({'logits': torch.ones(1, 10)}, {}), ({'x': torch.ones(1)}, {'facts': '[1]'}), ({'x': torch.ones(1)}, {'facts': 'no'}),
                           (three, {'facts': '['*100_000}), (three | dict(logits=torch.ones(2, 9)), {}), (three | dict(true=torch.full((2,), 77.)), {}),
                           (three | dict(index=torch.zeros(5)), {}), (three | dict(logits=torch.full((2, 10), torch.nan)), {})):
        save_file(tensors, path, metadata=notes)
        with pytest.raises(ValueError, match='predictions.safetensors does not') as error: kept_predictions(tmp_path)
        assert '\n' not in str(error.value)
    with open(path, 'rb+') as file: file.truncate(30_000_000_000) # sparse: it takes no room
    with pytest.raises(ValueError, match='30,000,000,000 bytes'): kept_predictions(tmp_path)


def test_a_card_and_a_history_as_large_as_allowed_make_no_large_page(tmp_path, tiny):
    deep = {'x': 'y'}
    for _ in range(15): deep = {'part': deep, 'n': 1.5}
    many = {f'fact {k}': '<'*400 for k in range(500)} | {'long': '&'*500_000, 'deep': deep}
    run = tiny_run(tmp_path, tiny, **many)
    card = json.loads((run/'run.json').read_text())
    card.pop('sha256', None) # a stranger's, of an older version
    (run/'run.json').write_text(json.dumps(card))
    (run/'history.csv').write_text('epoch,valid_loss,lr\n' + ''.join(f'{n},{"-" * (n % 2)}inf,1\n' for n in range(70_000)))
    images, labels = (a[:8] for a in load_sample('test'))
    with np.errstate(all='raise'): page = write_report(run, images, labels)
    assert 100_000 < page.stat().st_size < 1_000_000 and '70000 epochs' in text_of(page)


def test_links_prepared_in_a_run_folder_cannot_redirect_a_write(tmp_path, tiny, no_charts):
    run, victim = tiny_run(tmp_path, tiny), tmp_path/'victim.txt'
    victim.write_text('mine')
    names = ('report.html', 'predictions.csv', 'predictions.safetensors', 'mistakes.png', 'mistakes_gradcam.png')
    for name in names: (run/name).symlink_to(victim)
    for name in names: # every name that a process id could give
        for number in range(0, 70_000, 700): (run/f'.{name}.{number}.part').symlink_to(victim)
    (tmp_path/'comparison.html').symlink_to(victim)
    judged = judge(run, *(a[:3] for a in load_sample('test')))
    write_page(judged)
    cifar_cam.report.save_galleries(judged)
    compare_runs([run], tmp_path/'comparison.html')
    assert victim.read_text() == 'mine'
    assert not any((run/name).is_symlink() for name in names) and not (tmp_path/'comparison.html').is_symlink()


def test_a_finished_run_without_weights_gets_one_advice(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finish_run(new_run('lost', 'runs'), {'w': torch.ones(1)}, history, {})
    (run/'weights.safetensors').unlink()
    said = []
    for start in (lambda: report_command([str(run), '--data', 'sample']), lambda: train_command('layernorm-fast', run='lost', sample=True)):
        with pytest.raises(SystemExit) as leaving: start()
        assert leaving.value.code == 2
        said.append(capsys.readouterr().err)
    for words in said: assert 'finished' in words and 'remove' in words and 'resumes' not in words
    assert 'lacks weights.safetensors' in said[0]


def test_training_and_report_say_one_number(tmp_path, tiny, no_charts):
    "Training may run in bfloat16; what it says of the test images is what float32 says, as in the report."
    data = recipe_data(300, True)
    recipe = find_recipe('layernorm-fast', model='tiny', epochs=2, batch_size=32)
    card = run_recipe(recipe, new_run('short', tmp_path), data, precision='bfloat16', progress=False)
    write_report(tmp_path/'short', *data['test'])
    table, _ = kept_predictions(tmp_path/'short')
    assert card['test_accuracy'] == pytest.approx(table.eval('true == predicted').mean(), abs=1e-7)
    assert card['test_loss'] == pytest.approx(table.loss.mean(), abs=1e-6) # bfloat16 is right to two or three digits


def test_the_temperature_is_fitted_on_what_the_run_held_back(monkeypatch):
    whole = dict(train_images=45_000, valid_images=5000)
    assert [held_back(card) for card in ({}, whole, dict(trained=whole), dict(train_images=40_000, valid_images=10_000, recipe=dict(valid=10_000)))] \
        == [5000, 5000, 5000, 10_000]
    assert [held_back(card) for card in (dict(train_images=128, valid_images=100), dict(recipe=dict(valid=0)), dict(recipe=dict(valid='x')))] == [0, 0, 0]
    labels = np.arange(50_000) % 10
    monkeypatch.setattr('cifar_cam.report.load_cifar10', lambda split, root: (np.arange(50_000)[:, None], labels))
    for valid, images in ((5000, 5000), (10_000, 5000), (100, 100)):
        found = report_data('test', valid=valid)['valid'][0][:, 0]
        assert len(found) == images and set(found) <= set(split_train_valid(labels, valid=valid)[1])
    assert 'valid' not in report_data('test', valid=0)


@pytest.mark.parametrize('make', [david_resnet])
def test_a_network_for_other_classes_is_told_apart(tmp_path, make):
    run = finish_run(new_run('hundred', tmp_path), make(num_classes=100).state_dict(), history, {})
    with pytest.raises(ValueError, match=r'10 outputs.*\(100, .*\(10, '): write_report(run)


@pytest.mark.parametrize('arguments, words', [
    (['nothing'], 'does not exist'), (['half'], 'lacks weights.safetensors'), (['good', '--data', 'all'], "got 'all'"),
    (['good', '--data', 'sample', '--rule', 'best'], "got 'best'"), (['good', '--data', 'sample', '--images', '0'], 'above 0; got 0')])
def test_a_wrong_command_is_one_line_and_leaves_no_page(tmp_path, tiny, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    new_run('half', '.')
    tiny_run('.', tiny, 'good')
    monkeypatch.setattr('cifar_cam.report.load_sample', lambda split: tuple(a[:8] for a in load_sample(split)))
    monkeypatch.setattr('cifar_cam.report.sample_indices', lambda split: sample_indices(split)[:8])
    with pytest.raises(SystemExit) as leaving: report_command(arguments)
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and words in said and len(said.strip().splitlines()) == 1
    assert not list(tmp_path.glob('*/report.html'))


@needs_weights
def test_the_demo_writes_page_and_pictures(tmp_path, capsys, monkeypatch):
    "On 100 of its 1,000 images; the notebook runs the whole of it."
    drawn, draw = [], cifar_cam.report.plot_gallery
    def gallery(tiles, rows, rule, heat, **size):
        drawn.append((rows, heat))
        return draw(tiles, rows, rule, heat=heat, **size)
    monkeypatch.setattr(cifar_cam.report, 'plot_gallery', gallery)
    monkeypatch.setattr(cifar_cam.report, 'load_sample', lambda split: tuple(a[::10] for a in load_sample(split)))
    monkeypatch.setattr(cifar_cam.report, 'sample_indices', lambda split: sample_indices(split)[::10])
    demo_command(['--root', str(tmp_path)])
    said = capsys.readouterr().out
    assert '1,000 embedded test images' in said and str(tmp_path/'demo'/'report.html') in said
    for name in ('mistakes.png', 'mistakes_gradcam.png'): assert (tmp_path/'demo'/name).read_bytes()[:4] == b'\x89PNG'
    table, _ = kept_predictions(tmp_path/'demo', load_pretrained())
    assert len(table) == 100 and .8 < table.eval('true == predicted').mean() < .98
    assert len(drawn) == 2 and all('doubtful' in rows for rows, _ in drawn)
    assert [heat for _, heat in drawn] == ['', 'Grad-CAM of the predicted class at layer4, 4x4 values']
    head = re.search('<header>(.*?)</header>', text_of(tmp_path/'demo'/'report.html'), re.S)[1]
    assert 'On all 10,000 test images: 92.17 %' in head and 'embedded test images of CIFAR-10' in head
    assert json.loads((tmp_path/'demo'/'run.json').read_text())['trained']['recipe']['name'] == 'layernorm-fast'


@needs_weights
def test_the_demo_leaves_a_run_of_that_name_alone(tmp_path, monkeypatch, capsys):
    for part in ('judge', 'write_page', 'save_galleries'): monkeypatch.setattr(cifar_cam.report, part, lambda run: run)
    assert demo_run(tmp_path/'free') == demo_run(tmp_path/'free') == tmp_path/'free'/'demo' # the second over the first
    mine = finish_run(new_run('demo', tmp_path), {'w': torch.ones(1)}, history, dict(seed=1))
    for card in ('{"seed": 1}', '[1]', '{'):
        (mine/'run.json').write_text(card)
        with pytest.raises(SystemExit) as leaving: demo_command(['--root', str(tmp_path)])
        assert leaving.value.code == 2 and '--root' in capsys.readouterr().err
        assert (mine/'run.json').read_text() == card and (mine/'weights.safetensors').stat().st_size < 1000


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
        texts = '[...document.querySelectorAll("p,dd,td,th,figcaption,.names span")]'
        sizes = browser.execute_script(f'return {texts}.map(e => parseFloat(getComputedStyle(e).fontSize))')
        assert min(sizes) >= 10
        # text in a drawing grows and shrinks with it
        assert browser.execute_script("""return Math.min(...[...document.querySelectorAll("svg text")].map(t => parseFloat(getComputedStyle(t).fontSize)
            * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width))""") >= 9.5
        outside = """return [...document.querySelectorAll("svg text")].filter(t => {
            const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect()
            return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2}).map(t => t.textContent)"""
        assert browser.execute_script(outside) == [], 'text of a chart is cut off'
        pale = """const inks = ["rgb(255, 255, 255)", "rgb(17, 17, 17)", getComputedStyle(document.body).color]
            return [...document.querySelectorAll("svg text")].filter(t => !inks.includes(getComputedStyle(t).fill)).length"""
        assert browser.execute_script(pale) == 0 # the ink of the page, or black and white on a coloured field
        if page.name == 'report.html':
            assert not browser.execute_script("""return [...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth)
                .map(e => e.textContent.slice(0, 60))""")
            assert browser.execute_script('return Math.min(...[...document.querySelectorAll("img")].map(i => i.getBoundingClientRect().width))') >= 96
    asked = [entry['message'] for entry in browser.get_log('performance') if '"Network.requestWillBeSent"' in entry['message']]
    assert not [m for m in asked if re.search(r'"url":"https?:', m)]
    assert not [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']


@needs_browser
def test_the_page_can_be_printed(pages, browser):
    browser.get((pages[0][0]/'report.html').as_uri())
    assert len(browser.execute_cdp_cmd('Page.printToPDF', dict(printBackground=True))['data']) > 20_000
