"Faithfulness measures: equal to pytorch-grad-cam's, and nothing left behind."
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cifar_cam.believe import agreement, area, brightest, confidence, confidence_change, deletion, fill_linear, insertion, pixel_order, randomised, road
from cifar_cam.gradcam import grad_cam, predict, resize_maps, scale_maps
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
        assert_close(fill_linear(x, inner), theirs, atol=2e-3, rtol=0)


def test_drop_and_increase_equal_those_of_pytorch_grad_cam(case):
    metrics = pytest.importorskip('pytorch_grad_cam.metrics.cam_mult_image', reason='pytorch-grad-cam is not installed')
    targets_module = pytest.importorskip('pytorch_grad_cam.utils.model_targets')
    model, x, maps, said = case
    targets = [targets_module.ClassifierOutputSoftmaxTarget(int(i)) for i in said]
    masks = scale_maps(resize_maps(maps, (32, 32))).numpy()
    drop, rise = confidence_change(model, x, maps, said)
    assert_close(drop * confidence(model, x, said), torch.tensor(np.ravel(metrics.DropInConfidence()(x, masks, targets, model))), atol=1e-5, rtol=1e-4)
    assert_close(rise.float(), torch.tensor(np.ravel(metrics.IncreaseInConfidence()(x, masks, targets, model))))


def test_curves_start_and_end_where_they_must(case):
    model, x, maps, said = case
    low, high = deletion(model, x, maps, said, (0, .5, 1)), insertion(model, x, maps, said, (0, .5, 1))
    assert_close(low[:, 0], confidence(model, x, said))
    assert_close(low[:, 2], confidence(model, torch.zeros_like(x), said))
    assert_close(high[:, 2], confidence(model, x, said))
    assert_close(area(low, (0, .5, 1)), (low[:, 0] + 2 * low[:, 1] + low[:, 2]) / 4)


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
    with pytest.raises(RuntimeError, match='stop'), randomised(model, ['fc', 'layer1', 'norm1']):
        raise RuntimeError('stop')
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    with randomised(model, ['fc']): first = model.fc.weight.clone()
    with randomised(model, ['fc']): assert torch.equal(first, model.fc.weight)
    assert all(p.requires_grad for p in model.parameters())


def test_agreement_equals_spearman_of_scipy():
    stats = pytest.importorskip('scipy.stats', reason='scipy is not installed')
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 9, (3, 8, 8), generator=generator).float() for _ in range(2))  # many ties
    wanted = [stats.spearmanr(p.ravel(), q.ravel()).statistic for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert_close(agreement(a, b), torch.tensor(wanted, dtype=torch.float32), atol=1e-5, rtol=0)
    assert agreement(torch.rand(2, 32, 32), torch.rand(2, 4, 4)).shape == (2,)


def test_measures_leave_the_model_in_its_mode(case):
    model, x, maps, said = case
    model.train()
    confidence(model, x, said)
    assert model.training and predict(model, x).requires_grad is False
    model.eval()
