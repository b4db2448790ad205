"The metrics agree with scikit-learn, and nothing of a model is changed."
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support, top_k_accuracy_score

import cifar_cam.causes as causes
from cifar_cam.causes import (
    add_votes,
    candidate_causes,
    compare_groups,
    energy_in_mask,
    hide_region,
    hiding_effect,
    look_alikes,
    near_duplicates,
    people_tables,
    verdicts,
)
from cifar_cam.core import load_tensors, result_file, save_tensors
from cifar_cam.data import CLASSES, load_sample, sample_indices
from cifar_cam.explorers import filter_mistakes, plot_methods
from cifar_cam.metrics import (
    calibration_error,
    error_by_subset,
    error_overlap,
    fit_temperature,
    reliability,
    scores,
    share_difference,
    table_from_logits,
    top_k,
    wilson_interval,
)
from cifar_cam.mistakes import (
    choose_mistakes,
    class_maps,
    confused_pairs,
    confusion,
    fingerprint,
    image_logits,
    per_class,
    plot_evidence,
    plot_gallery,
    plot_per_class,
    prediction_table,
    saved_analysis,
)
from cifar_cam.people import check_votes, doubtful_labels, favourites, human_votes, mark_doubtful, rank_correlation, votes_text
from cifar_cam.pictures import foreground, image_facts, images_of, max_cross_correlation, nearest_training
from cifar_cam.pretrained import pretrained_path
from cifar_cam.report import second_network
from cifar_cam.resnet import load_pretrained, resnet18

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
    found, each = scores(table, logits), per_class(table)
    assert found['accuracy'] == pytest.approx(accuracy_score(labels, table.predicted))
    if kind != 'one prediction': # scikit-learn cuts probabilities off near 0, so it can not see a loss above 36
        assert found['loss'] == pytest.approx(log_loss(labels, logits.softmax(1).numpy(), labels=list(classes)), abs=1e-9)
    assert (confusion(table) == confusion_matrix(labels, table.predicted, labels=list(classes))).all()
    precision, recall, f1, support = precision_recall_fscore_support(labels, table.predicted, labels=list(classes), zero_division=np.nan)
    np.testing.assert_allclose(each.precision, precision)
    np.testing.assert_allclose(each.accuracy, recall)
    assert each.images.tolist() == support.tolist()
    for k in (1, 2, 3, 5):
        theirs = top_k_accuracy_score(labels, logits.numpy(), k=k, labels=list(classes))
        assert kind == 'equal logits' or top_k(logits, labels, (k,))[k] == pytest.approx(theirs)
    assert top_k(logits, labels, (1,))[1] == pytest.approx(found['accuracy'])


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
    with pytest.raises(ValueError, match='same images in the same order'): error_overlap(table, table[:10])
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
    with pytest.raises((RuntimeError, ValueError)): image_logits(model, images[:2], prepare=lambda x: torch.zeros(1, 5, 2, 2))
    assert [m.training for m in model.modules()] == before[0] and fingerprint(model) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_an_exact_copy_a_mirror_and_a_shift_are_found_and_strangers_are_not():
    images, _ = load_sample('test')
    some = images[:40]
    assert max_cross_correlation(some, some).min() > .999
    assert max_cross_correlation(some, some[:, :, ::-1]).min() > .999
    assert max_cross_correlation(some, np.roll(some, (2, -3), (1, 2))).median() > .95
    assert max_cross_correlation(some, np.roll(some, 7, 0)).max() < .5


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
    tables = [prediction_table(m, images[:20], labels[:20])[0] for m in (model, found)]
    agreement = error_overlap(*tables)
    wrong = [set(np.flatnonzero(t.true != t.predicted)) for t in tables]
    assert agreement['both_wrong'] == len(wrong[0] & wrong[1]) and agreement['mistakes'] == len(wrong[0])


@pytest.fixture(scope='module')
def judged():
    images, labels = load_sample('test')
    model = load_pretrained() if pretrained_path().is_file() else resnet18()
    table, logits = prediction_table(model, images[:120], labels[:120], sample_indices('test')[:120])
    return model, images[:120], mark_doubtful(table)


def test_filters_of_the_explorer(judged):
    _, _, table = judged
    rows = filter_mistakes(table)
    assert rows.loss.is_monotonic_decreasing and (rows.true != rows.predicted).all()
    assert set(filter_mistakes(table, true='dog').true) <= {5} and len(filter_mistakes(table, confidence=(0., 0.))) == 0
    with pytest.raises(ValueError, match='mark_doubtful'): filter_mistakes(table.drop(columns='doubtful'), doubtful=True)
    with pytest.raises(ValueError, match='0 <= low <= high <= 1'): filter_mistakes(table, confidence=(.9, .1))


@needs_weights
def test_the_kept_long_run_belongs_to_the_embedded_weights():
    kept, facts = saved_analysis(model=load_pretrained())
    table = table_from_logits(kept['logits'].float(), kept['labels'].long().numpy())
    assert len(table) == 10_000 and np.bincount(table.true).tolist() == [1000]*10
    indices, labels = sample_indices('test'), load_sample('test')[1]
    assert (table.true[indices].to_numpy() == labels).all()
    mine, _ = prediction_table(load_pretrained(), load_sample('test')[0][:80], labels[:80])
    same = mine.predicted.to_numpy() == table.predicted[indices[:80]].to_numpy()
    assert same.mean() > .97 and not math.isnan(facts['seconds']['test pass'])
    assert {'neighbour', 'match', 'twin_label', 'area', 'sides', 'valid_logits', 'pictures', 'pair_pictures'} <= set(kept)
    maps, notes = load_tensors(result_file('test_maps.safetensors'))
    wrong, overlap = int((table.true != table.predicted).sum()), pd.read_csv(result_file('error_overlap.csv')).iloc[0]
    assert notes['fingerprint'] == overlap.fingerprint == facts['fingerprint'] and overlap.mistakes == wrong
    assert maps['inside'].shape == maps['studied'].shape and len(maps['hiding_hidden']) == wrong
    assert maps['studied'][:wrong].tolist() == table.index[table.true != table.predicted].tolist()


def test_the_kept_long_run_has_the_pixels_of_every_mistake():
    kept, _ = saved_analysis()
    table = table_from_logits(kept['logits'].float(), kept['labels'].long().numpy())
    place = {int(i): k for k, i in enumerate(kept['pictures_index'])}
    assert sorted(place) == kept['pictures_index'].tolist() and len(place) == len(kept['pictures'])
    assert set(table[table.true != table.predicted]['index']) == set(place)
    images, indices = load_sample('test')[0], sample_indices('test')
    both = [k for k, i in enumerate(indices) if int(i) in place]
    assert len(both) > 40 and all((kept['pictures'][place[int(indices[k])]].numpy() == images[k]).all() for k in both)
    assert kept['pair_pictures'].shape == (len(kept['pairs']), 2, 32, 32, 3)


def test_an_analysis_in_the_working_folder_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'logits' in saved_analysis()[0]
    save_tensors('results/test_analysis.safetensors', {'mine': torch.zeros(1)}, dict(fingerprint='mine'))
    assert saved_analysis()[1] == dict(fingerprint='mine')


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
    with pytest.raises(ValueError, match='Run lesson 09 with LONG = True'): saved_analysis(model=resnet18())


@pytest.fixture
def by_hand():
    "Six images: two cats right, a cat as a dog, a dog as a cat, a bird as a frog, a ship right."
    return pd.DataFrame(dict(index=range(6), true=[3, 3, 3, 5, 2, 8], predicted=[3, 3, 5, 3, 6, 8], doubtful=[False, True, True, False, False, False],
                             duplicate=[True, False, False, False, True, False], area=[.5, .5, .5, .01, .5, .5], sides=[0, 0, 2, 0, 1, 4],
                             match=[.9, .1, .1, .1, .75, .1], twin_label=[3, 0, 0, 0, 5, 0], inside=[.6, .6, .2, .5, .6, np.nan],
                             stands_out=[1, 2, 3, 4, 5, 6], contrast=[6, 5, 4, 3, 2, 1], detail=[1, 1, 1, 1, 1, 0], odd_brightness=[0, 9, 0, 0, 0, 0],
                             odd_colour=[0, 0, 0, 0, 0, 9], cosine=[.9, .8, .7, .6, .5, .4], same_class=[1, 1, 0, 1, 1, 1],
                             confidence=[.9, .8, .7, .6, .5, .9]))


def test_what_is_left_of_the_error_by_hand(by_hand):
    left = error_by_subset(by_hand).set_index('choice')
    assert left.images.tolist() == [6, 4, 4, 2] and left.mistakes.tolist() == [3, 2, 2, 1]
    assert np.allclose(left.error, [.5, .5, .5, .5]) and (left.low < left.error).all() and (left.error < left.high).all()
    assert np.isnan(error_by_subset(by_hand.assign(doubtful=True)).error[1])


def test_candidate_causes_by_hand(by_hand):
    assert look_alikes(by_hand)[0] == frozenset((3, 5)) and len(look_alikes(by_hand)) == 2
    groups = candidate_causes(by_hand)
    held = {name: groups.index[groups[name].fillna(False).astype(bool)].tolist() for name in groups}
    assert groups['background over object'].isna().tolist() == [False]*5 + [True], 'a map that was not made says nothing'
    assert held == {'label not confirmed': [1, 2], 'twin with the same label': [0], 'twin with another label': [4], 'small object': [3],
                    'cut off': [2, 5], 'object coloured like the rest': [0], 'low contrast': [5], 'little detail': [5],
                    'odd brightness for its class': [1], 'odd colour for its class': [5], 'nothing alike in training': [5],
                    'alike in training: other classes': [2], 'background over object': [2]}


def test_no_group_is_made_of_the_answers_that_it_shall_explain(by_hand):
    other = by_hand.assign(predicted=[9, 8, 7, 6, 5, 4], confidence=.3)
    assert candidate_causes(other).equals(candidate_causes(by_hand))


def test_a_group_is_compared_with_right_answers_of_its_class_and_confidence():
    "A property that only follows class and confidence is no reason; one that follows the mistakes is."
    random = np.random.default_rng(0)
    true, confidence = random.integers(0, 10, 20_000), random.uniform(.3, 1, 20_000)
    wrong = random.random(20_000) < .5*(1 - confidence) + .1*(true == 3)
    table = pd.DataFrame(dict(true=true, predicted=np.where(wrong, (true + 1) % 10, true), confidence=confidence))
    groups = pd.DataFrame({'unsure': random.random(20_000) < 1 - confidence, 'cats': true == 3, 'reason': random.random(20_000) < .1 + .2*wrong})
    rows = compare_groups(groups, table).set_index('group')
    assert rows.clear.tolist() == [False, False, True] and rows.difference.cats == 0
    assert abs(rows.difference.unsure) < .03 and rows.low.reason < .2 < rows.high.reason
    loose = compare_groups(groups, table, confidence=False).set_index('group')
    assert loose.clear.unsure, 'without matching the confidence it looks like a reason'
    slow = [((true == c) & (np.digitize(confidence, np.quantile(confidence[wrong], np.arange(.1, 1, .1))) == b)) for c in range(10) for b in range(10)]
    cells = [cell for cell in slow if wrong[cell].any() and not wrong[cell].all()]
    reason, n = groups.reason.to_numpy(), sum(wrong[cell].sum() for cell in cells)
    expected = sum(wrong[cell].sum()*reason[cell & ~wrong].mean() for cell in cells)/n
    assert rows.of_right.reason == pytest.approx(expected)


def test_intervals_of_a_group_without_effect_hold_zero_19_times_in_20():
    random, hits = np.random.default_rng(1), 0
    for _ in range(200):
        true, wrong = random.integers(0, 10, 3000), random.random(3000) < .15
        table = pd.DataFrame(dict(true=true, predicted=np.where(wrong, (true + 1) % 10, true), confidence=random.random(3000)))
        row = compare_groups(pd.DataFrame({'g': random.random(3000) < .2}), table, confidence=False, draws=400).iloc[0]
        hits += row.low <= 0 <= row.high
    assert .9 <= hits/200 <= .99


def test_votes_of_people_are_verified(tmp_path):
    with pytest.raises(FileNotFoundError, match='github.com/jcpeterson/cifar-10h'): human_votes(tmp_path/'none.npy')
    np.save(tmp_path/'votes.npy', np.ones((10_000, 10), int))
    with pytest.raises(ValueError, match='another checksum'): human_votes(tmp_path/'votes.npy')
    with pytest.raises(ValueError, match='Take the counts, not the shares'): check_votes(np.full((3, 10), .1), 3)
    with pytest.raises(ValueError, match='image 1 does not'): check_votes(np.array([[1]*10, [0]*10]), 2)


def test_each_mistake_gets_one_verdict_by_hand(by_hand):
    votes = np.zeros((6, 10), int)
    votes[range(6), by_hand.true] = 50
    table = by_hand.assign(doubtful=False, match=0.)
    judge = lambda **changed: verdicts(table.assign(**changed), votes).tolist()
    assert judge() == ["the network's own"]*3
    assert judge(doubtful=[False, False, True, False, False, False]) == ['label doubtful', *["the network's own"]*2]
    assert judge(match=[0, 0, 0, .75, 0, 0])[1] == 'twin in training'
    votes[2, 5], votes[3, 3], votes[4, 6] = 60, 50, 5 # more for the other class; a tie; 91 % agree
    assert judge() == ['label doubtful', 'people unsure', 'in between']
    assert favourites(votes, table.true.to_numpy())[1].tolist() == [3, 3, 5, 5, 2, 8]
    assert verdicts(by_hand).tolist() == ['label doubtful', 'not judged', 'twin in training']


def test_votes_stand_beside_each_mistake_of_any_part_of_the_test_set(by_hand):
    votes = np.zeros((6, 10), int)
    votes[range(6), by_hand.true] = 50
    votes[3] = 0
    votes[3, [5, 3, 8, 0]] = 31, 20, 2, 1
    table = by_hand.assign(doubtful=False, match=0.)
    marked = add_votes(table, votes)
    wrong = (table.true != table.predicted).to_numpy()
    assert (marked.verdict[~wrong] == '').all() and (marked.people[~wrong] == '').all() and list(marked.columns[-2:]) == ['people', 'verdict']
    assert marked.verdict[wrong].tolist() == verdicts(table, votes).tolist() and 'people' not in table
    mistake = marked[wrong].set_index('index')
    assert mistake.people[3] == 'dog 31, cat 20, ship 2 of 54' == votes_text(votes[3], CLASSES) and mistake.verdict[3] == 'people unsure'
    some = table[3:].sample(frac=1, random_state=0) # a part, in another order: the votes follow the official index
    assert add_votes(some, votes).set_index('index').people[3] == mistake.people[3]
    with pytest.raises(ValueError, match='the 3 images that votes speak of'): add_votes(table, votes[:3])
    with pytest.raises(ValueError, match='lacks match'): add_votes(table.drop(columns='match'), votes)


def test_sums_over_people_speak_of_no_single_image():
    random = np.random.default_rng(2)
    logits, labels = made_up(3000, 'random')
    votes = random.multinomial(51, np.full(10, .02) + np.eye(10)[labels]*.8)
    n = len(labels)
    columns = dict.fromkeys(('area', 'stands_out', 'contrast', 'detail', 'odd_brightness', 'odd_colour', 'cosine', 'inside', 'same_class', 'match'))
    table = table_from_logits(logits, labels).assign(doubtful=False, sides=0, twin_label=0, **{k: random.random(n)*.5 for k in columns})
    tables = people_tables(table, logits, votes)
    assert max(map(len, tables.values())) <= 10
    wrong = (table.true != table.predicted).to_numpy()
    assert tables['verdicts'].mistakes.sum() == wrong.sum() and tables['agreement'].mistakes.sum() == wrong.sum()
    assert tables['facts']['one person right'][0] == pytest.approx(.82, abs=.01)
    assert tables['classes'].one_person.mean() == pytest.approx(.82, abs=.02)
    for name in tables: assert list(pd.read_csv(result_file(f'people_{name}.csv')).columns) == list(tables[name].columns)


def test_rank_correlation_is_scipys():
    from scipy.stats import spearmanr
    a, b = np.random.default_rng(3).integers(0, 9, (2, 400))
    r, low, high = rank_correlation(a, a + b)
    assert r == pytest.approx(spearmanr(a, a + b).statistic) and low < r < high


def test_facts_of_an_image_by_hand():
    images = np.full((4, 32, 32, 3), 60, np.uint8)
    images[0, 10:22, 12:24] = 220 # a bright square in the middle
    images[1, :, 16:] = 200       # half bright
    images[2] = 120
    facts = image_facts(images, [0, 0, 0, 0])
    assert facts.area[0] == pytest.approx(144/1024, rel=.5) and facts.sides[0] == 0 and facts.stands_out[0] > .5
    assert facts.brightness[2] == pytest.approx(120/255, abs=1e-3) and facts.contrast[2] == pytest.approx(0, abs=1e-4)
    assert facts.contrast[1] == pytest.approx(70/255, rel=.01) and facts.odd_brightness.idxmin() in range(4)
    assert np.isfinite(facts.to_numpy(float)).all()


def test_copies_are_found_among_many_and_an_image_is_no_twin_of_itself():
    images, _ = load_sample('test')
    pool = images[:300]
    changed = np.roll(pool[:5, :, ::-1], 2, axis=1)
    match, place, _ = near_duplicates(changed, pool, k=3)
    assert (place.gather(1, match.argmax(1, keepdim=True))[:, 0] == torch.arange(5)).all() and match.amax(1).min() > .9
    assert near_duplicates(pool[:50], pool[:50], k=2)[0].max() > .99, 'other arrays are compared as they are'
    some = pool[:50]
    assert near_duplicates(some, some, k=2)[0].max() < .6


def test_nearest_training_images_are_those_of_a_naive_loop():
    torch.manual_seed(0)
    a, b = torch.randn(7, 5), torch.randn(30, 5)
    near, place = nearest_training(a, b, k=2, chunk=3)
    for i in range(7):
        cosines = [float((a[i] - b.mean(0)) @ (row - b.mean(0)) / (a[i] - b.mean(0)).norm() / (row - b.mean(0)).norm()) for row in b]
        best = np.argsort(cosines)[::-1][:2]
        assert place[i].tolist() == best.tolist() and np.allclose(near[i], np.array(cosines)[best], atol=1e-5)
    versions = torch.stack([torch.randn(7, 5), a])
    near, place = nearest_training(versions, b, k=1)
    each = [nearest_training(version, b, k=1) for version in versions]
    assert torch.allclose(near, torch.maximum(each[0][0], each[1][0]), atol=1e-6)
    with pytest.raises(ValueError, match='Describe both alike'): nearest_training(torch.zeros(2, 3), torch.zeros(4, 5))


def test_hiding_what_a_model_looks_at_takes_its_confidence():
    "A model that answers by the brightness of the left half: hiding the left half must hurt, hiding the right half must not."
    class Left(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(1, 10)
            with torch.no_grad(): self.head.weight.copy_(torch.eye(10)[:, :1] * 5), self.head.bias.zero_()
        def forward(self, x): return self.head(x[:, :, :, :16].amax((1, 2, 3))[:, None])
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[:, 8:16, 4:12] = 255
    model = Left()
    table, _ = prediction_table(model, images, [1, 1])
    left = torch.zeros(2, 2, 2)
    left[0, :, 0] = left[1, :, 1] = 1 # the first map points left, the second right
    effect = hiding_effect(model, images, table, left, share=.5)
    assert effect.hidden[0] < table.confidence[0] - .1 and abs(effect.control[0] - table.confidence[0]) < 1e-4
    assert abs(effect.hidden[1] - table.confidence[1]) < 1e-4 and effect.control[1] < table.confidence[1] - .1
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, :, :16] = True
    inside = energy_in_mask(left, masks)
    assert inside.tolist() == pytest.approx([.875, .125])  # the resized map falls off over the middle


def test_numbers_of_another_model_are_refused():
    logits, labels = made_up(50, 'random')
    table = table_from_logits(logits, labels)
    with pytest.raises(ValueError, match='Are they those of another model'): scores(table, -logits)
    with pytest.raises(ValueError, match='one row per label; got'): fit_temperature(logits, labels[:4])
    with pytest.raises(ValueError, match='labels of another data set'): table_from_logits(logits, labels + 10)


def test_helpers_of_the_gallery_refuse_what_does_not_fit(judged):
    model, images, table = judged
    rows, rule = choose_mistakes(table, n=3)
    pictures = images_of(rows, table, images)
    with pytest.raises(ValueError, match='must have one row per image, 10; got'): images_of(rows, table, images[:10])
    with pytest.raises(ValueError, match='image 1000000 is not in it'): images_of(rows.assign(index=10**6), table, images)
    with pytest.raises(ValueError, match="got 'Magic'"): class_maps(model, pictures, rows, method='Magic')
    with pytest.raises(ValueError, match='rows must have one row per image'): class_maps(model, pictures, rows[:2])
    with pytest.raises(ValueError, match="got 'best'"): choose_mistakes(table, 'best')
    with pytest.raises(ValueError, match='n must be a whole number above 0; got 0'): choose_mistakes(table, n=0)
    with pytest.raises(ValueError, match='at least one image'): plot_per_class(table[:0])
    nothing, words = choose_mistakes(table.assign(predicted=table.true))
    for axes in (plot_gallery(images[:0], nothing, words), plot_evidence(images[:0], nothing, torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))):
        assert axes.flat[0].texts[0].get_text().startswith('No mistakes to show')
    assert plot_methods(model, pictures[:1], rows[:1], methods=('Grad-CAM', 'LayerCAM')).size >= 3


def test_an_empty_pass(judged):
    model, images, table = judged
    assert len(prediction_table(model, images[:0], table.true[:0])[0]) == 0


def test_old_names_are_found_with_a_warning():
    import cifar_cam.mistakes as mistakes
    for old, new in {'metrics': scores, 'pixel_match': max_cross_correlation, 'share_inside': energy_in_mask, 'error_left': error_by_subset}.items():
        with pytest.warns(DeprecationWarning, match=old): assert getattr(mistakes, old) is new
    with pytest.raises(AttributeError): mistakes.nothing_of_that_name # noqa: B018
    assert mistakes.wilson_interval is wilson_interval


def test_an_analysis_of_few_images_holds_what_the_lessons_read(monkeypatch):
    import cifar_cam.mistakes as mistakes
    sample = {split: [part[:40] for part in load_sample(split)] for split in ('train', 'test')}
    monkeypatch.setattr(mistakes, 'load_cifar10', lambda split: sample[split])
    monkeypatch.setattr(mistakes, 'split_train_valid', lambda labels: (np.arange(20, 40), np.arange(20)))
    torch.manual_seed(0)
    model = resnet18()
    found = mistakes.analyse_network(model)
    images, labels = sample['test']
    table, logits = prediction_table(model, images, labels)
    wrong = np.flatnonzero(table.true != table.predicted)
    assert set(found) <= set(saved_analysis()[0]) and found['logits'].amax(1).abs().max() == 0
    assert found['pictures_index'].tolist() == wrong.tolist() and (found['pictures'].numpy() == images[wrong]).all()
    valid, _ = prediction_table(model, sample['train'][0][:20], sample['train'][1][:20])
    against = valid[valid.true != valid.predicted].nlargest(10, 'confidence')
    assert found['audit'].tolist()[0] == against.index[0] and set(found['audit'].tolist()) == set(against.index)
    maps = causes.map_facts(model, images, table)
    assert maps['inside'].shape == maps['studied'].shape and maps['studied'][:len(wrong)].tolist() == wrong.tolist()
    assert len(maps['hiding_hidden']) == len(wrong)
