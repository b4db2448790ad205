"The transfer networks in the training loop, in files and under Grad-CAM; ImageNet's own weights where they are at hand."
import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock, ResNet

from cifar_cam import transfer
from cifar_cam.core import load_tensors, save_tensors
from cifar_cam.data import load_sample, normalise
from cifar_cam.gradcam import grad_cam
from cifar_cam.optimizer import make_optimizer
from cifar_cam.train import Batches, fit, predict_images
from cifar_cam.transfer import TransferResNet, fit_head, freeze, freeze_6, freeze_10, imagenet_resnet18, mini_dropout, small_head

images, labels = (a[::20] for a in load_sample('train'))
backbone = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')


def changed_by_fit(model):
    "Names of the tensors that one epoch of `fit` changes."
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, 'adam', 1e-3)
    fit(model, Batches(images, labels, 25, 'none'), (images, labels), optimizer, 1, precision='float32', progress=False)
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize('make, frozen', [(lambda: freeze_6(weights=False, statistics=True), ('conv1', 'bn1', 'layer1')),
                                          (lambda: freeze_10(weights=False, statistics=True), backbone)], ids=['freeze-6', 'freeze-10'])
def test_a_still_part_is_the_same_bit_for_bit_after_training(make, frozen):
    changed = changed_by_fit(make())
    assert not [name for name in changed if name.startswith(frozen)]
    assert 'fc.3.weight' in changed


def test_as_published_frozen_weights_stay_and_their_statistics_move():
    changed = changed_by_fit(freeze_10(weights=False))
    assert {name.rsplit('.', 1)[1] for name in changed if name.startswith(backbone)} == {'running_mean', 'running_var', 'num_batches_tracked'}


@pytest.mark.parametrize('make', [imagenet_resnet18, freeze_6, freeze_10, lambda weights: mini_dropout()],
                         ids=['finetune-all', 'freeze-6', 'freeze-10', 'mini-dropout'])
def test_weights_go_through_a_file_into_the_same_builder(make, tmp_path):
    model = make(weights=False).eval()
    save_tensors(tmp_path/'weights.safetensors', model.state_dict())
    again = make(weights=False).eval()
    again.load_state_dict(load_tensors(tmp_path/'weights.safetensors')[0])
    x = normalise(images[:4])
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_mini_dropout_trains_everything_and_drops_before_its_last_layer_in_training_only():
    model = mini_dropout(0.5)
    assert not model.still and all(p.requires_grad for p in model.parameters()) and model.fc[0].p == 0.5
    features = torch.ones(4, 512)
    assert set(model.fc[0].train()(features).unique().tolist()) == {0.0, 2.0} and torch.equal(model.fc[0].eval()(features), features)
    with pytest.raises(ValueError, match='dropout must be'): mini_dropout(1.0)


def test_grad_cam_works_on_a_frozen_network_and_leaves_it_frozen():
    model = freeze_10(weights=False, statistics=True)
    maps, logits = grad_cam(model, model.layer2, normalise(images[:4]))
    assert maps.shape == (4, 4, 4) and logits.shape == (4, 10)
    assert not model.layer2.training and not any(p.requires_grad for p in model.layer2.parameters())


def headless(model):
    "A copy of `model` that returns the 512 numbers before the head."
    model = copy.deepcopy(model)
    model.fc = nn.Identity()
    return model


def test_a_head_on_stored_features_is_the_head_of_the_whole_network_trained():
    slow = freeze(imagenet_resnet18(weights=False), 9)
    features = predict_images(headless(slow), images, precision='float32')
    fast = fit_head(copy.deepcopy(slow.fc), features, labels, 2, 0.1, 16, 3, 'sgd')
    fit(slow, Batches(images, labels, 16, 'none', seed=3), (images, labels), make_optimizer(slow, 'sgd', 0.1), 2,
        precision='float32', progress=False)
    torch.testing.assert_close(fast.state_dict(), slow.fc.state_dict(), rtol=1e-3, atol=1e-4)
    assert not fast.training


def test_frozen_parts_stay_still_whatever_mode_is_asked_for():
    model = freeze(imagenet_resnet18(weights=False), 5)
    def modes(): return [m.training for m in (model, model.bn1, model.layer1, model.layer2)]
    assert modes() == [True, False, False, True]
    assert not any(m.training for m in model.eval().modules())
    model.train()
    assert modes() == [True, False, False, True] and not copy.deepcopy(model).train().layer1.training
    freeze(model, 0)
    assert all(p.requires_grad for p in model.parameters()) and all(m.training for m in model.modules())
    freeze(model.eval(), 9)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ['fc.weight', 'fc.bias'] and not model.training


@pytest.mark.parametrize('make, trainable, frozen', [
    (imagenet_resnet18, 11_181_642, 0), (freeze_6, 11_152_906, 157_504),
    (freeze_10, 512*256 + 256 + 256*10 + 10, 11_176_512), (lambda weights: mini_dropout(), 11_181_642, 0)])
def test_so_many_weights_train(make, trainable, frozen):
    sizes = {True: 0, False: 0}
    for p in make(weights=False).parameters(): sizes[p.requires_grad] += p.numel()
    assert sizes == {True: trainable, False: frozen}


def test_the_small_head_drops_in_training_only():
    head, ones = small_head(dropout=0.4), torch.ones(1000, 256)
    assert (head[2].eval()(ones) == 1).all()
    assert abs((head[2].train()(ones) > 0).float().mean() - 0.6) < 0.01


@pytest.mark.parametrize('call, message', [
    *[(lambda wrong=wrong: freeze(imagenet_resnet18(weights=False), wrong), 'children must be a whole number from 0 to 9')
      for wrong in (10, -1, 2.5, True)],
    (lambda: freeze(nn.Linear(2, 2), 1), 'model must be a TransferResNet; got Linear'),
    *[(lambda wrong=wrong: small_head(dropout=wrong), 'dropout must be') for wrong in (1, -0.1, 2)],
    (lambda: imagenet_resnet18(0, weights=False), 'num_classes must be')])
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message): call()


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    def fails(*args, **options): raise OSError('no network')
    with monkeypatch.context() as offline:
        offline.setattr('torch.hub.download_url_to_file', fails)
        with pytest.raises(OSError, match='no network. Either connect to the network once, or copy the file there, or use'): imagenet_resnet18()
    place = tmp_path/'checkpoints'/Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b'cut off')
    with pytest.raises(OSError, match='delete it and try again'): imagenet_resnet18()


def test_imagenet_features_tell_our_classes_apart_better_than_random_ones():
    file = Path(torch.hub.get_dir())/'checkpoints'/Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    if not file.exists(): pytest.skip(f'{file.name} is not on this machine; imagenet_resnet18() would download it')
    def share(model): # of images that lie nearest to the mean feature of their own class, found on other images
        features = nn.functional.normalize(predict_images(headless(model.eval()), some, size=64, precision='float32'))
        means = torch.stack([features[::2][kinds[::2] == c].mean(0) for c in range(10)])
        return (torch.cdist(features[1::2], means).argmin(1) == kinds[1::2]).float().mean().item()
    some, kinds = load_sample('train')
    some, kinds = some[:400], torch.tensor(kinds[:400])
    torch.manual_seed(0)
    known, random = share(imagenet_resnet18()), share(imagenet_resnet18(weights=False))
    assert known > 0.45 and random < 0.35, (known, random)


@pytest.mark.parametrize('size', [32, 33, 48])
def test_products_with_padding_that_are_left_out_change_neither_logits_nor_gradients(size):
    torch.manual_seed(size)
    ours, theirs = TransferResNet(10).train(), ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10).train()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(8, 3, size, size).contiguous(memory_format=torch.channels_last)
    logits = [model(x) for model in (ours, theirs)]
    for found in logits: found.logsumexp(1).sum().backward()
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_the_old_name_of_a_network_still_works():
    with pytest.warns(DeprecationWarning, match='is now cifar_cam.transfer.imagenet_resnet18'): assert transfer.finetune_all is imagenet_resnet18
