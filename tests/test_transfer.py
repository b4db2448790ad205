"The transfer networks in the training loop, in files and under Grad-CAM; ImageNet's own weights where they are at hand."
import copy
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights

from cifar_cam.core import load_tensors, save_tensors
from cifar_cam.data import load_sample, normalise
from cifar_cam.gradcam import grad_cam
from cifar_cam.optimizer import make_optimizer
from cifar_cam.train import Batches, fit
from cifar_cam.transfer import finetune_all, freeze_6, freeze_10, imagenet_resnet18, mini_dropout

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


@pytest.mark.parametrize('make', [finetune_all, freeze_6, freeze_10, lambda weights: mini_dropout()],
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


def test_imagenet_weights_know_a_thing_or_two():
    file = Path(torch.hub.get_dir())/'checkpoints'/Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    if not file.exists(): pytest.skip(f'{file.name} is not on this machine; imagenet_resnet18() would download it')
    model = imagenet_resnet18(num_classes=10)
    assert model.bn1.running_var.std() > 0.1 and model.fc.out_features == 10
