"The metrics agree with scikit-learn, and nothing of a model is changed."
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from cifar_cam.core import load_tensors, result_file, save_tensors
from cifar_cam.data import CLASSES, load_sample, sample_indices
from cifar_cam.mistakes import (calibration_error, choose_mistakes, class_maps, confused_pairs, confusion, doubtful_labels,
                                error_left, filter_mistakes, fingerprint, fit_temperature, foreground, hide_region, hiding_effect,
                                image_features, look_alikes, mark_doubtful, metrics, mistake_explorer, mistake_groups, mistake_view,
                                nearest_training, network_agreement, per_class, pixel_match, plot_gallery, prediction_table, reliability,
                                saved_analysis, second_network, share_difference, share_inside, table_from_logits, top_k, wilson_interval)
from cifar_cam.resnet import load_pretrained, pretrained_path, resnet18

needs_weights = pytest.mark.skipif(not pretrained_path().is_file(), reason='no embedded weights')


def made_up(n, kind, seed=0):
    "Logits and labels: random, all right, all wrong, one class only, all logits equal, one image."
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(n, 10))*3, random.integers(0, 10, n)
    if kind == 'all right': labels = logits.argmax(1)
    if kind == 'all wrong': labels = (logits.argmax(1) + 3) % 10
    if kind == 'one class': labels = np.full(n, 4)
    if kind == 'one prediction': logits[:, 7] += 100
    if kind == 'equal logits': logits[:] = 1.
    return torch.tensor(logits), labels


kinds = ['random', 'all right', 'all wrong', 'one class', 'one prediction', 'equal logits']


@pytest.mark.parametrize('kind', kinds)
@pytest.mark.parametrize('n', [1, 7, 500])
def test_metrics_agree_with_scikit_learn(kind, n):
    logits, labels = made_up(n, kind)
    table, classes = table_from_logits(logits, labels), range(10)
    scores, each = metrics(table, logits), per_class(table)
    assert scores['accuracy'] == pytest.approx(accuracy_score(labels, table.predicted))
    if kind != 'one prediction': # scikit-learn cuts probabilities off near 0, so it can not see a loss above 36
        assert scores['loss'] == pytest.approx(log_loss(labels, logits.softmax(1).numpy(), labels=list(classes)), abs=1e-9)
    assert (confusion(table) == confusion_matrix(labels, table.predicted, labels=list(classes))).all()
    precision, recall, f1, support = precision_recall_fscore_support(labels, table.predicted, labels=list(classes), zero_division=np.nan)
    np.testing.assert_allclose(each.precision, precision)
    np.testing.assert_allclose(each.accuracy, recall)
    assert each.images.tolist() == support.tolist()
    for k in (1, 2, 3, 5):
        theirs = top_k_accuracy_score(labels, logits.numpy(), k=k, labels=list(classes))
        assert kind == 'equal logits' or top_k(logits, labels, (k,))[k] == pytest.approx(theirs)
    assert top_k(logits, labels, (1,))[1] == pytest.approx(scores['accuracy'])


@pytest.mark.parametrize('kind', kinds)
def test_calibration_error_agrees_with_scikit_learns_curve(kind):
    logits, labels = made_up(400, kind)
    table = table_from_logits(logits, labels)
    right, confidence = (table.true == table.predicted).to_numpy(), table.confidence.clip(0, 1).to_numpy()
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy='uniform')
    images = np.histogram(np.ceil(confidence*15), bins=np.arange(.5, 16))[0]
    expected = (np.abs(accuracy - mean)*images[images > 0]).sum()/400
    assert calibration_error(reliability(confidence, right)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('right, n', [(0, 1), (1, 1), (0, 50), (50, 50), (7, 13), (9123, 10000)])
def test_the_interval_is_scipys(right, n):
    for level in (.8, .95, .99):
        theirs = binomtest(right, n).proportion_ci(level, 'wilson')
        assert wilson_interval(right, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize('scale', [.3, 1., 4.])
def test_the_temperature_is_where_the_loss_is_lowest(scale):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2000, 10, generator=generator)*2
    labels = torch.distributions.Categorical(logits=logits).sample()
    logits = (logits*scale).double()
    t = torch.tensor(1., dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([t], lr=.1, max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-12, line_search_fn='strong_wolfe')
    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits/t, labels)
        loss.backward()
        return loss
    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(t.item(), rel=1e-3)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=.15)


def test_shares_of_a_class_that_is_missing_are_not_a_number():
    table = table_from_logits(torch.eye(10)[:3]*5, np.array([0, 1, 2]))
    assert per_class(table).accuracy[3:].isna().all()
    assert np.isfinite(confusion(table, rows=True)).all()
    assert len(confused_pairs(table)) == 0


def test_fewer_mistakes_than_asked_for_are_all_of_them():
    table = table_from_logits(*made_up(40, 'random'))
    wrong = (table.true != table.predicted).sum()
    rows, words = choose_mistakes(table, n=500)
    assert len(rows) == wrong and words.startswith(f'{wrong} of {wrong} mistakes')


def test_other_tables_and_labels_are_refused():
    table = table_from_logits(*made_up(300, 'random'))
    with pytest.raises(ValueError, match='image 165 is a deer there'): mark_doubtful(table.assign(true=0))
    with pytest.raises(ValueError, match='labels of another data set'): prediction_table(resnet18(), np.zeros((2, 32, 32, 3), np.uint8), [3, 55])
    with pytest.raises(ValueError, match='same images in the same order'): network_agreement(table, table[:10])
    with pytest.raises(ValueError, match="Did you mean 'ship'"): choose_mistakes(table, true='ships')


def test_every_doubtful_label_in_the_sample_is_marked_and_carries_the_given_class():
    labels, indices = load_sample('test')[1], sample_indices('test')
    table = mark_doubtful(table_from_logits(torch.eye(10)[labels]*5, labels, indices))
    doubts = doubtful_labels()
    inside = doubts[doubts.test_index.isin(indices)]
    assert table.doubtful.sum() == len(inside) > 0
    assert [CLASSES[c] for c in table.set_index('index').true[inside.test_index]] == inside.given.tolist()


def test_a_pass_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    model, (images, labels) = resnet18(), load_sample('test')
    model.layer2.eval()
    before = [m.training for m in model.modules()], fingerprint(model), torch.get_rng_state().clone()
    table, _ = prediction_table(model, images[:12], labels[:12], batch_size=5)
    class_maps(model, images[:3], table[:3])
    with pytest.raises((RuntimeError, ValueError)): image_features(model, images[:2], prepare=lambda x: torch.zeros(1, 5, 2, 2))
    assert [m.training for m in model.modules()] == before[0] and fingerprint(model) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_an_exact_copy_a_mirror_and_a_shift_are_found_and_strangers_are_not():
    images, _ = load_sample('test')
    some = images[:40]
    assert pixel_match(some, some).min() > .999
    assert pixel_match(some, some[:, :, ::-1]).min() > .999
    assert pixel_match(some, np.roll(some, (2, -3), (1, 2))).median() > .95
    assert pixel_match(some, np.roll(some, 7, 0)).max() < .5


def test_hiding_paints_the_asked_share_and_nothing_else():
    images, _ = load_sample('test')
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(1))
    for share in (.1, .5):
        changed = (hide_region(images[:6], maps, share) != images[:6]).any(-1).mean((1, 2))
        assert (changed <= share + .01).all() and (changed > .8*share).all()
    assert foreground(images[:6]).shape == (6, 32, 32)


def test_two_seeds_are_compared_and_one_is_not(tmp_path):
    from cifar_cam.core import finish_run, new_run
    torch.manual_seed(1)
    model = resnet18()
    assert second_network(tmp_path, model) == (None, 'not run')
    epochs, card = pd.DataFrame({'epoch': [1]}), dict(train_images=45_000)
    finish_run(new_run('same', tmp_path), model.state_dict(), epochs, card)
    finish_run(new_run('trial', tmp_path), resnet18().state_dict(), epochs, dict(train_images=128))
    assert second_network(tmp_path, model)[1] == 'not run'
    torch.manual_seed(2)
    other = resnet18()
    finish_run(new_run('twin', tmp_path), other.state_dict(), epochs, card)
    found, name = second_network(tmp_path, model)
    assert name == 'twin' and fingerprint(found) == fingerprint(other)
    images, labels = load_sample('test')
    tables = [prediction_table(m, images[:50], labels[:50])[0] for m in (model, found)]
    agreement = network_agreement(*tables)
    wrong = [set(np.flatnonzero(t.true != t.predicted)) for t in tables]
    assert agreement['both_wrong'] == len(wrong[0] & wrong[1]) and agreement['mistakes'] == len(wrong[0])


@pytest.fixture(scope='module')
def judged():
    images, labels = load_sample('test')
    model = load_pretrained() if pretrained_path().is_file() else resnet18()
    table, logits = prediction_table(model, images[:300], labels[:300], sample_indices('test')[:300])
    return model, images[:300], mark_doubtful(table)


def find(box, kind, word):
    import ipywidgets as widgets
    inside = [w for row in box.children for w in (row.children if isinstance(row, widgets.Box) else [row])]
    return next(w for w in inside if type(w).__name__ == kind and (not word or w.description == word))


def test_the_explorer_turns_pages_and_filters(judged):
    model, images, table = judged
    box = mistake_explorer(model, images, table)
    note, view = find(box, 'Label', ''), find(box, 'Image', '')
    count = len(filter_mistakes(table))
    assert note.value == f'1 of {count} mistakes' and view.value[:4] == b'\x89PNG'
    first = view.value
    find(box, 'Button', 'next').click()
    assert note.value == f'2 of {count} mistakes' and view.value != first
    find(box, 'Button', 'previous').click()
    find(box, 'Button', 'previous').click()
    assert note.value == f'{count} of {count} mistakes'
    true = table[table.true != table.predicted].true.iloc[0]
    find(box, 'Dropdown', 'true').value = int(true)
    assert note.value == f'1 of {len(filter_mistakes(table, true=int(true)))} mistakes'
    find(box, 'FloatRangeSlider', 'confidence').value = (0., 0.)
    assert (note.value, view.value) == ('no mistake passes these filters', b'')
    find(box, 'Button', 'next').click()
    assert note.value == 'no mistake passes these filters'


def test_a_view_of_the_last_page_is_the_mistake_with_the_lowest_loss(judged):
    model, images, table = judged
    rows = filter_mistakes(table)
    assert rows.loss.is_monotonic_decreasing
    assert mistake_view(model, images, table, len(rows) - 1)[1] == f'{len(rows)} of {len(rows)} mistakes'


@needs_weights
def test_the_kept_long_run_belongs_to_the_embedded_weights():
    kept, facts = saved_analysis(model=load_pretrained())
    table = table_from_logits(kept['logits'].float(), kept['labels'].long().numpy())
    assert len(table) == 10_000 and np.bincount(table.true).tolist() == [1000]*10
    indices, labels = sample_indices('test'), load_sample('test')[1]
    assert (table.true[indices].to_numpy() == labels).all()
    mine, _ = prediction_table(load_pretrained(), load_sample('test')[0][:200], labels[:200])
    same = mine.predicted.to_numpy() == table.predicted[indices[:200]].to_numpy()
    assert same.mean() > .98 and not math.isnan(facts['seconds']['test pass'])


def test_the_kept_long_run_has_the_pixels_of_every_mistake():
    kept, _ = saved_analysis()
    table = table_from_logits(kept['logits'].float(), kept['labels'].long().numpy())
    place = {int(i): k for k, i in enumerate(kept['pictures_index'])}
    assert sorted(place) == kept['pictures_index'].tolist() and len(place) == len(kept['pictures'])
    assert set(table[table.true != table.predicted]['index']) | set(doubtful_labels().test_index) | set(kept['pairs'].tolist()) <= set(place)
    images, indices = load_sample('test')[0], sample_indices('test')
    both = [k for k, i in enumerate(indices) if int(i) in place]
    assert len(both) > 50 and all((kept['pictures'][place[int(indices[k])]].numpy() == images[k]).all() for k in both)
    assert kept['twin_pictures'].shape == (len(kept['pairs']), 32, 32, 3)


def test_an_analysis_in_the_working_folder_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'logits' in saved_analysis()[0]
    save_tensors('results/test_analysis.safetensors', {'mine': torch.zeros(1)}, dict(fingerprint='mine'))
    assert saved_analysis()[1] == dict(fingerprint='mine')


@needs_weights
def test_an_analysis_is_shipped_only_if_it_is_whole_and_of_the_embedded_weights(tmp_path):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tools'))
    try: from embed_analysis import embed
    finally: sys.path.pop(0)
    target, source, tensors = tmp_path/'shipped.safetensors', tmp_path/'new.safetensors', dict(a=torch.zeros(1), b=torch.ones(1))
    mine = dict(fingerprint=fingerprint(load_pretrained()))
    save_tensors(target, tensors, mine)
    for wrong, facts, words in ((tensors, dict(fingerprint='other'), 'was made with the weights other'), (dict(a=torch.ones(1)), mine, 'lacks b')):
        save_tensors(source, wrong, facts)
        with pytest.raises(SystemExit, match=words): embed(source, target)
        assert source.is_file() and not load_tensors(target)[0]['a'].any()
    save_tensors(source, dict(tensors, a=torch.ones(1)), mine)
    embed(source, target)
    assert not source.exists() and load_tensors(target)[0]['a'].all()
    assert load_tensors(result_file('test_analysis.safetensors'))[1]['fingerprint'] == mine['fingerprint']


@pytest.mark.parametrize('p, q, n, m', [(.08, .03, 400, 90), (.5, .5, 60, 60), (.02, .01, 780, 780)])
def test_the_interval_of_a_difference_holds_the_true_one_19_times_in_20(p, q, n, m):
    random, hits = np.random.default_rng(5), 0
    for k, j in zip(random.binomial(n, p, 2000), random.binomial(m, q, 2000), strict=True):
        difference, low, high = share_difference(int(k), n, int(j), m)
        assert low <= difference <= high and share_difference(int(j), m, int(k), n) == pytest.approx((-difference, -high, -low))
        hits += low <= p - q <= high
    assert .93 < hits/2000 < .985


def test_a_gallery_under_maps_says_what_its_colours_mean_and_which_image_is_which():
    images, labels, indices = *load_sample('test'), sample_indices('test')
    rows = mark_doubtful(table_from_logits(torch.eye(10)[(labels[:7] + 1) % 10]*3, labels[:7], indices[:7]))
    axes = plot_gallery(images[:7], rows, 'seven of them', heat='Grad-CAM at layer4')
    axes.flat[0].figure.canvas.draw() # the bar's numbers are made when it is drawn
    texts = ' '.join(t.get_text() for t in axes.flat[0].figure.findobj(match=lambda artist: hasattr(artist, 'get_text')))
    assert 'Grad-CAM at layer4' in texts and '100%' in texts and 'seven of them' in texts
    assert all(f'test {index}\n' in ax.get_title() for index, ax in zip(indices[:7], axes.flat, strict=False))
    assert 'test' not in plot_gallery(images[:7], rows.drop(columns='doubtful'), 'r').flat[0].get_title()


@needs_weights
def test_a_long_run_of_other_weights_is_refused():
    with pytest.raises(ValueError, match='Run notebook 07 with LONG = True'): saved_analysis(model=resnet18())


@pytest.fixture
def by_hand():
    "Six images: two cats right, a cat as a dog, a dog as a cat, a bird as a frog, a ship right."
    return pd.DataFrame(dict(index=range(6), true=[3, 3, 3, 5, 2, 8], predicted=[3, 3, 5, 3, 6, 8], doubtful=[False, True, True, False, False, False],
                             duplicate=[True, False, False, False, True, False], area=[.5, .5, .5, .01, .5, .5], sides=[0, 0, 2, 0, 1, 4],
                             likeness=[.9, .9, .9, .9, .1, .9], inside_said=[.6, .6, .2, .5, .6, np.nan]))


def test_what_is_left_of_the_error_by_hand(by_hand):
    left = error_left(by_hand).set_index('choice')
    assert left.images.tolist() == [6, 4, 4, 2] and left.mistakes.tolist() == [3, 2, 2, 1]
    assert np.allclose(left.error, [.5, .5, .5, .5]) and (left.low < left.error).all() and (left.error < left.high).all()
    assert np.isnan(error_left(by_hand.assign(doubtful=True)).error[1])


def test_groups_of_mistakes_by_hand(by_hand):
    assert look_alikes(by_hand)[0] == frozenset((3, 5)) and len(look_alikes(by_hand)) == 2
    groups = mistake_groups(by_hand)
    assert groups.index.tolist() == [2, 3, 4]
    assert groups['doubtful label'].tolist() == [True, False, False]
    assert groups['near-duplicate in training'].tolist() == [False, False, True]
    assert groups['look-alike classes'].tolist() == [True, True, True]
    assert groups['background over object'].tolist() == [True, False, False]
    assert groups['small object'].tolist() == [False, True, False]
    assert groups['cropped object'].tolist() == [True, False, False]
    assert groups['unusual view'].tolist() == [False, False, True]
    with pytest.raises(ValueError, match='it lacks area'): mistake_groups(by_hand.drop(columns='area'))


def test_nearest_training_images_are_those_of_a_naive_loop():
    torch.manual_seed(0)
    a, b = torch.randn(7, 5), torch.randn(30, 5)
    near, place = nearest_training(a, b, k=2, chunk=3)
    for i in range(7):
        cosines = [float((a[i] - b.mean(0)) @ (row - b.mean(0)) / (a[i] - b.mean(0)).norm() / (row - b.mean(0)).norm()) for row in b]
        best = np.argsort(cosines)[::-1][:2]
        assert place[i].tolist() == best.tolist() and np.allclose(near[i], np.array(cosines)[best], atol=1e-5)


def test_hiding_what_a_model_looks_at_takes_its_confidence():
    "A model that answers by the brightness of the left half: hiding the left half must hurt, hiding the right half must not."
    class Left(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(1, 10)
            with torch.no_grad(): self.head.weight.copy_(torch.eye(10)[:, :1] * 5)
        def forward(self, x): return self.head(x[:, :, :, :16].amax((1, 2, 3))[:, None])
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[:, 8:16, 4:12] = 255
    table, _ = prediction_table(Left(), images, [1, 1])
    left = torch.zeros(2, 2, 2)
    left[0, :, 0] = left[1, :, 1] = 1 # the first map points left, the second right
    effect = hiding_effect(Left(), images, table, left, share=.5)
    assert effect.hidden[0] < table.confidence[0] - .1 and abs(effect.control[0] - table.confidence[0]) < 1e-4
    assert abs(effect.hidden[1] - table.confidence[1]) < 1e-4 and effect.control[1] < table.confidence[1] - .1
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, :, :16] = True
    inside = share_inside(left, masks)
    assert inside.tolist() == pytest.approx([.875, .125])  # the resized map falls off over the middle


def test_numbers_of_another_model_are_refused():
    logits, labels = made_up(50, 'random')
    table = table_from_logits(logits, labels)
    with pytest.raises(ValueError, match='Are they those of another model'): metrics(table, -logits)
    with pytest.raises(ValueError, match='one row a label; got'): fit_temperature(logits, labels[:4])
    with pytest.raises(ValueError, match='labels of another data set'): table_from_logits(logits, labels + 10)
