"Faithfulness measures: equal to pytorch-grad-cam's, and nothing left behind."
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cifar_cam.faithfulness import (auc, average_drop, brightest, centre_blob, confidence, deletion, evidence_left, insertion, layer_report, linear_impute,
                                    paired_interval, pixel_order, plot_layer_report, road, seen_side, stage_layers)
from cifar_cam.gradcam import grad_cam, resize_maps, scale_maps
from cifar_cam.layers import fix_statistics
from cifar_cam.ground_truth import Disconnected, agreement, cell_share, join_cells, mosaic, shuffled_weights, split_cells
from cifar_cam.hooks import predict
from cifar_cam.resnet import resnet18


@pytest.fixture(scope='module')
def case():
    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(4, 3, 32, 32)
    with torch.no_grad(): model.fc.weight.mul_(5)  # confident, so that something can be lost
    maps, logits = grad_cam(model, 'layer3', x)
    return model, x, maps, logits.argmax(1)


def test_linear_filling_equals_that_of_pytorch_grad_cam(case):
    road_module = pytest.importorskip('pytorch_grad_cam.metrics.road', reason='pytorch-grad-cam is not installed')
    _, x, maps, _ = case
    imputer = road_module.NoisyLinearImputer(noise=0.)
    for share in (.1, .3, .5):
        hidden = brightest(pixel_order(maps, (32, 32)), share, (32, 32))
        inner = hidden.clone()
        inner[..., 0, :] = inner[..., -1, :] = inner[..., 0] = inner[..., -1] = False  # the rival's indices wrap around at the border
        theirs = torch.stack([imputer(image, (~mask[0]).long()) for image, mask in zip(x, inner, strict=True)])
        assert_close(linear_impute(x, inner), theirs, atol=2e-3, rtol=0)


def test_drop_and_increase_equal_those_of_pytorch_grad_cam(case):
    metrics = pytest.importorskip('pytorch_grad_cam.metrics.cam_mult_image', reason='pytorch-grad-cam is not installed')
    targets_module = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
    model, x, maps, predicted = case
    targets = [targets_module.ClassifierOutputSoftmaxTarget(int(i)) for i in predicted]
    masks = scale_maps(resize_maps(maps, (32, 32))).numpy()
    drop, rise = average_drop(model, x, maps, predicted)
    assert_close(drop * confidence(model, x, predicted), torch.tensor(np.ravel(metrics.DropInConfidence()(x, masks, targets, model))), atol=1e-5, rtol=1e-4)
    assert_close(rise.float(), torch.tensor(np.ravel(metrics.IncreaseInConfidence()(x, masks, targets, model))))


def test_curves_start_and_end_where_they_must(case):
    model, x, maps, predicted = case
    low, high = deletion(model, x, maps, predicted, (0, .5, 1)), insertion(model, x, maps, predicted, (0, .5, 1))
    assert_close(low[:, 0], confidence(model, x, predicted))
    assert_close(low[:, 2], confidence(model, torch.zeros_like(x), predicted))
    assert_close(high[:, 2], confidence(model, x, predicted))
    assert_close(auc(low, (0, .5, 1)), (low[:, 0] + 2 * low[:, 1] + low[:, 2]) / 4)


class FirstRow(torch.nn.Module):
    "Two classes; the first one's score is the sum of the image's first row."
    def forward(self, x): return torch.stack([x[:, 0, 0].sum(1), torch.zeros(len(x))], 1)


def test_road_is_what_hiding_takes_away_worked_out_by_hand():
    x = torch.zeros(1, 1, 8, 8)
    x[:, :, 0] = 1.  # sum 8, all the score there is
    row = torch.zeros(1, 8, 8)
    row[:, 0] = 1.
    whole, gone = torch.sigmoid(torch.tensor([8., 0.]))  # a hidden first row is filled from the zeros below it
    wanted = (whole - gone) / 2
    assert_close(road(FirstRow(), x, row, 0, shares=(1 / 8,), steps=200), wanted[None], atol=1e-4, rtol=0)
    assert_close(road(FirstRow(), x, -row, 0, shares=(1 / 8,), steps=200), -wanted[None], atol=1e-4, rtol=0)
    last = row.flip(1) + row / 2  # the last row is brightest, the first is not among the darkest
    assert road(FirstRow(), x, last, 0, shares=(1 / 8,)) == 0


def test_a_constant_map_scores_by_the_random_order_alone():
    x = torch.zeros(3, 1, 8, 8)
    x[:, :, 0] = torch.tensor([0., 1., 2.])[:, None, None]
    flat = torch.zeros(3, 8, 8)
    order = pixel_order(flat, (8, 8))
    assert (order == order[0]).all() and order[0].tolist() != list(range(64))  # the same for every image, and no rows from the top
    assert_close(road(FirstRow(), x, flat, 0), road(FirstRow(), x, flat + 5, 0))
    assert road(FirstRow(), x, flat, 0)[0] == 0  # nothing to hide
    assert float(road(FirstRow(), x, flat, 0, shares=(1.,)).abs().max()) == 0  # all hidden, whichever comes first


def test_random_weights_go_back_after_an_exception_and_draw_from_a_generator_of_their_own(case):
    model = case[0]
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(RuntimeError, match='stop'), shuffled_weights(model, ['fc', 'layer1', 'norm1']):
        raise RuntimeError('stop')
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    with shuffled_weights(model, ['fc']): first = model.fc.weight.clone()
    with shuffled_weights(model, ['fc']): assert torch.equal(first, model.fc.weight)
    assert all(p.requires_grad for p in model.parameters())


def test_agreement_equals_spearman_of_scipy():
    stats = pytest.importorskip('scipy.stats', reason='scipy is not installed')
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (3, 8, 8), generator=generator).float() for _ in range(2))  # many ties
    wanted = [stats.spearmanr(p.ravel(), q.ravel()).statistic for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert_close(agreement(a, b), torch.tensor(wanted, dtype=torch.float32), atol=1e-5, rtol=0)
    assert agreement(torch.rand(2, 32, 32), torch.rand(2, 4, 4)).shape == (2,)


def test_measures_leave_the_model_in_its_mode(case):
    model, x, maps, predicted = case
    model.train()
    confidence(model, x, predicted)
    assert model.training and predict(model, x).requires_grad is False
    model.eval()


def naive_impute(image, hidden):
    "One colour (H, W): build all equations, solve them."
    height, width = image.shape
    A, b = torch.eye(height * width), image.flatten().clone()
    steps = [(i, j, 1/6 if 0 in (i, j) else 1/12) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    for p in hidden.flatten().nonzero()[:, 0].tolist():
        row, column = divmod(p, width)
        weights = {p + i * width + j: w for i, j, w in steps if 0 <= row + i < height and 0 <= column + j < width}
        A[p, list(weights)], b[p] = -torch.tensor(list(weights.values())), 0
        A[p, p] = sum(weights.values())
    return torch.linalg.solve(A, b).view(height, width)


def test_linear_filling_solves_its_equations_at_every_size():
    generator = torch.Generator().manual_seed(0)
    x, hidden = torch.rand(2, 1, 32, 32, generator=generator), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    hidden[:, :, 4:20, 6:30] = True
    filled = linear_impute(x, hidden, steps=200)
    assert_close(filled[0, 0], naive_impute(x[0, 0], hidden[0, 0]), atol=1e-3, rtol=0)
    assert float((linear_impute(x, hidden) - filled).abs().mean()) < .01  # 40 steps are enough for pictures
    large = torch.nn.functional.interpolate(x, size=160, mode='bilinear')
    hole = torch.zeros(2, 1, 160, 160, dtype=torch.bool)
    hole[:, :, 20:100, 30:150] = True
    wanted = linear_impute(large, hole, steps=1000)
    assert float((linear_impute(large, hole) - wanted).abs().max()) < .05  # from a coarse guess; from zeros 40 steps do not reach the middle
    assert_close(linear_impute(large, hole).masked_fill(hole, 0), large.masked_fill(hole, 0))


def test_deletion_shows_no_preference_among_ties_and_options_are_checked(case):
    model, x, maps, predicted = case
    with pytest.raises(ValueError, match='share must be a finite number, at least 0 and at most 1; got 2'): brightest(pixel_order(maps, (32, 32)), 2, (32, 32))
    with pytest.raises(ValueError, match='map 0 holds NaN'): pixel_order(torch.full((2, 4, 4), float('nan')), (32, 32))
    with pytest.raises(ValueError, match=r'got \(4, 4\)'): pixel_order(torch.zeros(4, 4), (32, 32))
    with pytest.raises(ValueError, match=r'one class per image, shape \(4,\)'): confidence(model, x, [0, 1])
    with pytest.raises(ValueError, match=r"names must be submodules of the model; got 'layer9'"), shuffled_weights(model, ['layer9']): pass
    with pytest.raises(ValueError, match=r'maps must be a tensor \(4, h, w\)'): agreement(maps, maps[:1])


def small_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Identity(), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1), torch.nn.ReLU(),
                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)).eval()


def test_the_layer_report_holds_what_its_parts_say():
    model, x = small_net(), torch.randn(6, 3, 16, 16)
    assert stage_layers(model, x) == ['2', '4']  # 8x8 and 4x4; what the pooling returns does not count
    modes = [m.training for m in model.modules()]
    table = layer_report(model, x, batch_size=4, progress=False)
    assert table.layer.tolist() == ['2', '4'] and table.grid.tolist() == ['8x8', '4x4']
    predicted, blob = predict(model, x).argmax(1), road(model, x, centre_blob(x), predict(model, x).argmax(1))
    for layer, row in zip(('2', '4'), table.to_dict('records'), strict=True):
        maps = grad_cam(model, layer, x)[0]
        own = road(model, x, maps, predicted)
        gain = paired_interval(own, blob)
        assert np.allclose([row['ROAD'], row['gain'], row['low'], row['high']], [float(own.mean()), *gain.values()], atol=1e-5)
        pooled = paired_interval(road(model, x, torch.nn.functional.adaptive_avg_pool2d(maps[:, None], 4)[:, 0], predicted), blob)
        assert np.allclose(row['pooled gain'], pooled['difference'], atol=1e-5)
        assert np.isclose(row['evidence left'], float(evidence_left(model, layer, x).mean()), atol=1e-5)
        assert row['sees'] == seen_side(model, layer, x[:4]) and 'the blob' in row['finding']
    assert [m.training for m in model.modules()] == modes and not any(m._forward_hooks for m in model.modules())
    assert len(plot_layer_report(table).get_yticklabels()) == 2
    assert layer_report(model, x[:2], ['4'], 1, progress=False).layer.tolist() == ['4']


@pytest.mark.parametrize('kind, wanted', [('resnet50', ['relu', 'layer1', 'layer2', 'layer3', 'layer4']),
    ('densenet121', ['features.relu0', 'features.denseblock1', 'features.denseblock2', 'features.denseblock3', 'features'])])
def test_the_stages_of_a_network_are_found(kind, wanted):
    model = getattr(pytest.importorskip('torchvision.models'), kind)().eval()
    assert stage_layers(model, torch.randn(1, 3, 96, 96)) == wanted


def test_the_layer_report_takes_a_transformer_by_name():
    vit = pytest.importorskip('torchvision.models').VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16,
                                                                      num_classes=3).eval()
    torch.nn.init.normal_(vit.heads.head.weight)
    from cifar_cam.hooks import tokens_to_maps
    names = ['encoder.layers.encoder_layer_0', 'encoder.layers.encoder_layer_1.ln_1']
    table = layer_report(vit, torch.randn(2, 3, 32, 32), names, reshape=tokens_to_maps, progress=False)
    assert table.grid.tolist() == ['4x4', '4x4'] and table.sees.between(1, 32).all()


def test_what_a_place_sees_is_counted_in_pixels():
    one, two = (torch.nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2))
    with torch.no_grad(): one.weight.fill_(1.), two.weight.fill_(1.)
    model = torch.nn.Sequential(one, torch.nn.Identity(), two, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    x = torch.rand(2, 1, 16, 16)
    assert seen_side(model, '1', x) == 3
    assert seen_side(model, '2', x, share=1.) == 5 and seen_side(model, '2', x, share=.8) == 4  # 1 2 3 2 1 of 9
    with pytest.raises(ValueError, match='layers must be named'): layer_report(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2)), x)


def test_evidence_cancels_below_a_layer_norm_and_not_with_constant_statistics():
    "Bias-free convolution, then a norm: the score does not change with the size of what is below."
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(1, 8, eps=0.)
    head = [torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)]
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, bias=False), norm, *head).eval()
    x = torch.randn(8, 3, 12, 12)
    twin = fix_statistics(model, x)
    assert float(evidence_left(model, '1', x).max()) < 1e-4 and float(evidence_left(twin, '1', x).mean()) > .05
    one = fix_statistics(model, x[:1])  # of one image the constants are its own statistics
    assert_close(predict(one, x[:1]), predict(model, x[:1]), atol=1e-5, rtol=1e-4)
    assert isinstance(model[3], torch.nn.GroupNorm), 'the model is left as found'


def test_the_pointing_game_gives_known_answers():
    colours = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 6, 6)
    last = torch.nn.Linear(4, 4, bias=False)
    with torch.no_grad(): last.weight.copy_(torch.eye(4))
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), last)
    four = mosaic(colours, [[2, 0, 3, 1]]).expand(4, -1, -1, -1)
    for method in ('Grad-CAM', 'HiResCAM', 'LayerCAM'):
        from cifar_cam.cam_methods import METHODS
        maps = METHODS[method](model, '0', four, [2, 0, 3, 1])[0]
        assert_close(cell_share(maps, range(4)), torch.ones(4))
        assert_close(cell_share(maps, [1, 0, 0, 0]), torch.zeros(4))
    mass = torch.tensor([[[1., 1., 3., -9.], [1., 1., 3., 0.], [0., 0., 2., 0.], [0., 2., 2., 0.]]])
    assert_close(torch.stack([cell_share(mass, i)[0] for i in range(4)]), torch.tensor([4., 6., 2., 4.]) / 16)  # what is negative does not count
    assert_close(cell_share(torch.zeros(2, 3, 3), 0), torch.full((2,), .25))
    assert_close(cell_share(torch.ones(1, 5, 7), 8, grid=3), torch.tensor([1 / 9]))
    with pytest.raises(ValueError, match=r'rows must be \(M, 4\)'): mosaic(colours, [0, 1, 2, 3])


def test_disconnected_cells_cannot_see_each_other_and_methods_show_it():
    x = torch.randn(8, 3, 16, 16)
    assert_close(split_cells(join_cells(x)), x)
    assert torch.equal(join_cells(x)[0, :, :16, 16:], x[1]) and torch.equal(join_cells(x)[1, :, 16:, :16], x[6])
    net = small_net()
    whole = Disconnected(net[:5], net[5:]).eval()
    assert_close(predict(whole, mosaic(x, [range(4), range(4, 8)])).view(8, 4), predict(net, x), atol=1e-5, rtol=1e-4)
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad(): head[2].weight.fill_(1.)
    alone, values = Disconnected(torch.nn.Identity(), head), torch.arange(1., 5.).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    from cifar_cam.cam_methods import hires_cam, layer_cam
    for cell in range(4):
        asked = mosaic(values, [range(4)])
        for method in (hires_cam, layer_cam): assert_close(cell_share(method(alone, 'grid', asked, cell * 2)[0], cell), torch.ones(1))
        assert_close(cell_share(grad_cam(alone, 'grid', asked, cell * 2)[0], cell), torch.tensor([(cell + 1) / 10]))


def test_old_names_still_work():
    from cifar_cam import faithfulness
    for name, new in {'area': auc, 'fill_linear': linear_impute, 'confidence_change': average_drop, 'randomised': shuffled_weights}.items():
        with pytest.warns(DeprecationWarning): assert getattr(faithfulness, name) is new
