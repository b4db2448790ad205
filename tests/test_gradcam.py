"Grad-CAM and its family: equal to pytorch-grad-cam and captum where those are right, and nothing left behind."
import contextlib
import copy
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import nn
from torch.testing import assert_close

from cifar_cam import cam_methods, channels as channel_loop, explorers, gradcam, hooks as engine
from cifar_cam.cam_methods import METHODS, fuse_layers
from cifar_cam.explorers import explorer_layers
from cifar_cam.gradcam import grad_cam, resize_maps, scale_maps
from cifar_cam.hooks import ClassDifference, default_layer, predict, tokens_to_maps
from cifar_cam.resnet import resnet18

pgc = pytest.importorskip('pytorch_grad_cam', reason='pytorch-grad-cam is not installed')
captum = pytest.importorskip('captum.attr', reason='captum is not installed')


def settle(model, seed=0):
    "Random weights, and BatchNorm statistics that are not the trivial ones."
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * .1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) * .5 + .2)
    return model.eval()


def small_vgg():
    layers = zoo.vgg.make_layers([16, 'M', 32, 'M', 48, 48])
    with torch.device('meta'): model = zoo.VGG(layers, num_classes=5, init_weights=False, dropout=0.)  # its head of 120 million weights is replaced
    for module in model.features:
        if isinstance(module, nn.Conv2d): nn.init.kaiming_normal_(module.weight)
    model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(2), nn.Sequential(nn.Linear(48 * 4, 32), nn.ReLU(True), nn.Linear(32, 5))
    return model


def small_convnext():
    block = zoo.convnext.CNBlockConfig
    return zoo.ConvNeXt([block(16, 32, 1), block(32, None, 2)], num_classes=5, layer_scale=1.)


def small_vit():
    torch.manual_seed(3)
    model = zoo.VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5)
    nn.init.normal_(model.heads.head.weight, std=.1)  # torchvision starts at zero: no gradient at all
    return model


ZOO = {  # name -> (make, layer that ends in a ReLU or at the end, reshape)
    'ResNet': (lambda: zoo.ResNet(zoo.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), 'layer3', None),
    'VGG': (small_vgg, 'features.9', None),
    'DenseNet': (lambda: zoo.DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=5), 'features.transition1', None),
    'MobileNet': (lambda: zoo.mobilenet_v2(num_classes=5, width_mult=.25), 'features.6', None),
    'ConvNeXt': (small_convnext, 'features.3', None),
    'ViT': (small_vit, 'encoder.layers.encoder_layer_1.ln_1', tokens_to_maps),
}


@pytest.fixture(scope='module', params=ZOO)
def case(request):
    torch.manual_seed(0)
    make, layer, reshape = ZOO[request.param]
    model, x = settle(make()), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return request.param, model, layer, x, reshape


class Scaled:
    "The logit of a class times a factor that lifts tiny maps of random networks above the rivals' hidden epsilon."
    def __init__(self, ids, factor): self.ids, self.factor = ids, factor
    def __call__(self, logits): return logits.gather(1, self.ids[:len(logits), None])[:, 0] * self.factor
    def one(self, i): return lambda row: row[self.ids[i]] * self.factor


def shown(maps, size):
    "What pytorch-grad-cam does to a raw map: scale, resize, scale again."
    return scale_maps(resize_maps(scale_maps(maps), size))


def rival_maps(kind, model, layer, x, targets, reshape, **options):
    twin = copy.deepcopy(model)  # the rival changes what it is given
    with kind(model=twin, target_layers=[twin.get_submodule(layer)], reshape_transform=reshape, **options) as cam:
        return torch.tensor(cam(input_tensor=x.clone(), targets=targets))


def lift(model, layer, x, ids, reshape):
    "A factor that brings the raw maps to about 1."
    return 1. / float(grad_cam(model, layer, x, ids, reshape=reshape)[0].amax().clamp(min=1e-12))


RIVALS = {'Grad-CAM': pgc.GradCAM, 'Grad-CAM++': pgc.GradCAMPlusPlus, 'XGrad-CAM': pgc.XGradCAM, 'HiResCAM': pgc.HiResCAM, 'LayerCAM': pgc.LayerCAM}


@pytest.mark.parametrize('name', RIVALS)
def test_gradient_methods_equal_pytorch_grad_cam_on_every_kind_of_network(case, name):
    kind, model, layer, x, reshape = case
    ids = torch.tensor([1, 4, 2])
    target = Scaled(ids, lift(model, layer, x, ids, reshape))
    mine = shown(METHODS[name](model, layer, x, target, reshape=reshape)[0], x.shape[2:])
    theirs = rival_maps(RIVALS[name], model, layer, x, [target.one(i) for i in range(3)], reshape)
    assert float((mine - theirs).abs().max()) < 1e-5, kind


def test_grad_cam_equals_captum_on_every_convolutional_network(case):
    kind, model, layer, x, reshape = case
    if reshape is not None: pytest.skip('captum has no reshape for tokens')
    ids = torch.tensor([1, 4, 2])
    theirs = captum.LayerGradCam(model, model.get_submodule(layer)).attribute(x.clone(), ids, relu_attributions=True)[:, 0].detach()
    mine = grad_cam(model, layer, x, ids)[0]
    assert_close(mine / mine.max(), theirs / mine.max(), atol=1e-5, rtol=0)


def test_grad_cam_equals_pytorch_grad_cam_on_the_layernorm_network_at_every_stage():
    torch.manual_seed(0)
    model, x = resnet18().eval(), torch.randn(4, 3, 32, 32)
    ids = torch.tensor([0, 3, 5, 9])
    for layer in ('layer1', 'layer2', 'layer3', 'layer4', 'layer4.1.conv2'):
        target = Scaled(ids, lift(model, layer, x, ids, None))
        mine = shown(grad_cam(model, layer, x, target)[0], (32, 32))
        assert float((mine - rival_maps(pgc.GradCAM, model, layer, x, [target.one(i) for i in range(4)], None)).abs().max()) < 1e-5, layer


def test_eigen_cam_equals_pytorch_grad_cam_up_to_the_sign_that_the_rival_leaves_to_chance(case):
    kind, model, layer, x, reshape = case
    mine = shown(cam_methods.eigen_cam(model, layer, x, reshape=reshape)[0], (32, 32))
    with torch.no_grad(), engine.record_output(model.get_submodule(layer), gradients=False) as kept: model(x)
    raw = torch.tensor(pgc.utils.svd_on_activations.get_2d_projection(engine.as_maps(kept[0], reshape).numpy()))
    both = torch.stack([shown(sign * raw.clamp(min=0) if sign > 0 else (-raw).clamp(min=0), (32, 32)) for sign in (1, -1)])
    assert float((both - mine).abs().amax((2, 3)).amin(0).max()) < 1e-5, kind  # one of the two signs, image by image
    assert (cam_methods.eigen_cam(model, layer, x, reshape=reshape)[0].amax((1, 2)) >= (raw.abs().amax((1, 2)) * .9999)).all()


@pytest.fixture
def positive(case):
    "Scores from 1 upwards that differ by about 1, in float64: the paper of Ablation-CAM divides by the score, and the rival rounds to float32."
    kind, model, layer, x, reshape = case
    model, x, layer = copy.deepcopy(model).double(), x.double(), 'layer1' if kind == 'ResNet' else layer  # 64 channels, not 256
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    head.weight.data /= predict(model, x).std(0).mean()
    head.bias.data += 1. - predict(model, x).min()
    return kind, model, layer, x[:2], reshape


def one_each(ids): return [lambda row, i=i: row[i] for i in ids]


def test_score_cam_equals_pytorch_grad_cam_on_every_kind_of_network(positive):
    kind, model, layer, x, reshape = positive
    found = cam_methods.score_cam(model, layer, x, [1, 3], reshape=reshape)[0]
    theirs = rival_maps(pgc.ScoreCAM, model, layer, x, one_each([1, 3]), reshape)
    assert float(found.max()) > 0 and float((shown(found, (32, 32)) - theirs).abs().max()) < 1e-5, kind


class Zeroed(pgc.ablation_layer.AblationLayer):
    "The rival's layer, told to switch a map off with 0 as in the paper."
    def __init__(self, tokens):
        super().__init__()
        self.axis = -1 if tokens else 0

    def set_next_batch(self, input_batch_index, activations, num_channels_to_ablate):
        self.activations = activations[input_batch_index][None].repeat(num_channels_to_ablate, *[1] * (activations.ndim - 1))

    def __call__(self, x):
        for row, channel in zip(self.activations, self.indices, strict=False): row.select(self.axis, int(channel)).zero_()  # indices: those left
        return self.activations


def test_ablation_cam_equals_pytorch_grad_cam_on_every_kind_of_network(positive):
    kind, model, layer, x, reshape = positive
    target = one_each([1, 3])
    found = cam_methods.ablation_cam(model, layer, x, [1, 3], reshape=reshape)[0]
    theirs = rival_maps(pgc.AblationCAM, model, layer, x, target, reshape, ablation_layer=Zeroed(reshape is not None))
    assert float(found.max()) > 0 and float((shown(found, (32, 32)) - theirs).abs().max()) < 1e-5, kind
    if kind in ('ResNet', 'VGG'):  # elsewhere the layer does not end in a ReLU, and the rival as it is subtracts ten million
        theirs = rival_maps(pgc.AblationCAM, model, layer, x, target, reshape, ablation_layer=pgc.ablation_layer.AblationLayer())
        assert float((shown(found, (32, 32)) - theirs).abs().max()) < 1e-5, kind


def test_ablation_cam_runs_where_a_skip_connection_concatenates():
    torch.manual_seed(0)
    model, x = settle(ZOO['DenseNet'][0]()), torch.randn(2, 3, 32, 32)
    layer = 'features.denseblock2.denselayer1'
    maps, logits = cam_methods.ablation_cam(model, layer, x, 1)
    score = logits[:, 1]
    with torch.no_grad(), engine.record_output(model.get_submodule(layer), gradients=False) as kept: model(x)
    A, drops = kept[0], []
    for k in range(A.shape[1]):  # the slow way: one hook, one channel, one pass
        def off(module, args, out, k=k): return out * (torch.arange(out.shape[1]) != k)[:, None, None]
        handle = model.get_submodule(layer).register_forward_hook(off)
        with torch.no_grad(): drops.append((score - model(x)[:, 1]) / score.abs())
        handle.remove()
    assert_close(maps, (torch.stack(drops, 1)[:, :, None, None] * A).sum(1).relu(), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize('reshape', [lambda t: t, lambda t: t[:, :, 1:-1]], ids=['the same', 'a part of it'])
def test_ablation_cam_switches_off_the_channels_that_reshape_says(awkward, reshape):
    model, x = awkward
    assert_close(cam_methods.ablation_cam(model, 'conv2', x, 1, reshape=reshape)[0], reshape(cam_methods.ablation_cam(model, 'conv2', x, 1)[0][:, None])[:, 0])
    with pytest.raises(ValueError, match='reshape must lay whole channels of the output'):
        cam_methods.ablation_cam(model, 'conv2', x, 1, reshape=lambda t: t - t.mean())


class SharedReLU(nn.Module):
    "One ReLU module after a layer of 6 and after a layer of 8 channels."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Linear(8, 4)
        self.last = nn.Identity()
    def forward(self, x): return self.fc(self.last(self.relu(self.b(self.relu(self.a(x))))).mean((2, 3)))


@pytest.mark.parametrize('name', ['Ablation-CAM', 'Score-CAM', 'EigenCAM', 'Grad-CAM'])
def test_a_module_used_twice_with_other_channels_is_explained_at_its_last_use(name):
    torch.manual_seed(0)
    model, x = SharedReLU().eval(), torch.randn(3, 3, 8, 8)
    assert_close(METHODS[name](model, 'relu', x, 1)[0], METHODS[name](model, 'last', x, 1)[0])


@pytest.mark.parametrize('name', ['Score-CAM', 'Ablation-CAM'])
def test_changed_images_of_several_images_share_a_batch(awkward, name, capfd):
    model, _ = awkward
    x, rows = torch.randn(4, 3, 8, 8), []
    wanted = torch.cat([METHODS[name](model, 'conv2', x[i:i+1], [i], channels=2)[0] for i in range(4)])
    handle = model.fc.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    assert_close(METHODS[name](model, 'conv2', x, [0, 1, 2, 3], channels=2)[0], wanted)
    assert rows == [4, 8]  # the images, then two channels of each
    rows.clear()
    assert_close(METHODS[name](model, 'conv2', x, [0, 1, 2, 3], channels=2, batch_size=3, progress=True)[0], wanted)
    assert rows == [3, 3, 3, 1, 2]
    assert '4/4' in capfd.readouterr().err
    handle.remove()


def test_images_of_one_batch_keep_their_own_skip_connection():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1), nn.Linear(5, 4)
        def forward(self, x):
            y = self.a(x)
            return self.fc((y + self.b(y)).relu().mean((2, 3)))

    torch.manual_seed(0)
    model, x = Skip().eval(), torch.randn(3, 3, 8, 8)
    for channels in (1, 2, 5):
        wanted = torch.cat([cam_methods.ablation_cam(model, 'b', x[i:i+1], 2, channels=channels)[0] for i in range(3)])
        assert_close(cam_methods.ablation_cam(model, 'b', x, 2, channels=channels)[0], wanted)


def same(mine, theirs):
    theirs = theirs.detach().float()
    assert_close(mine / theirs.abs().max(), theirs / theirs.abs().max(), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings('ignore:Input Tensor')
def test_saliency_and_integrated_gradients_equal_captum_on_every_kind_of_network(case):
    kind, model, _, x, _ = case
    ids = torch.tensor([1, 4, 2])
    same(cam_methods.saliency(model, None, x, ids, signed=True)[0], captum.Saliency(model).attribute(x.clone(), ids, abs=False))
    start = x.roll(1, 0)  # another image for each image
    for baseline in (0., start):
        mine = cam_methods.integrated_gradients(model, None, x, ids, 2, signed=True, steps=6, baseline=baseline)[0]
        same(mine, captum.IntegratedGradients(model).attribute(x.clone(), baseline, ids, n_steps=6, method='riemann_middle'))


@pytest.mark.filterwarnings('ignore:Setting', 'ignore:Input Tensor')  # captum says what it does
@pytest.mark.parametrize('name', ['ResNet', 'VGG'])  # DenseNet ends in F.relu, which captum misses; the others have no ReLU
def test_guided_methods_equal_captum(name):
    torch.manual_seed(0)
    make, layer, _ = ZOO[name]
    model, x, ids = settle(make()), torch.randn(2, 3, 32, 32), torch.tensor([1, 3])
    for module in model.modules():
        if isinstance(module, nn.ReLU): module.inplace = False  # captum's guided backpropagation fails on in-place ReLUs
    same(cam_methods.guided_backprop(model, None, x, ids, signed=True)[0], captum.GuidedBackprop(model).attribute(x.clone(), ids))
    theirs = captum.GuidedGradCam(model, model.get_submodule(layer)).attribute(x.clone(), ids, interpolate_mode='bilinear')
    same(cam_methods.guided_grad_cam(model, layer, x, ids, signed=True)[0], theirs)


def test_guided_backpropagation_sees_functional_relus_that_swapped_modules_miss():
    class Functional(nn.Module):
        def __init__(self, relu):
            super().__init__()
            self.a, self.b, self.relu = nn.Linear(12, 8), nn.Linear(8, 3), relu
        def forward(self, x): return self.b(self.relu(self.a(x.flatten(1))))

    torch.manual_seed(0)
    model, x = Functional(nn.ReLU()), torch.randn(2, 3, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        wanted = captum.GuidedBackprop(model).attribute(x.clone(), 1).detach()
    ways = [F.relu, torch.relu, torch.Tensor.relu, lambda v: F.relu(v, inplace=True), lambda v: torch.relu_(v), lambda v: (v.relu_(), v)[1]]
    for way in ways:
        model._modules.pop('relu', None)
        model.relu = way
        assert_close(cam_methods.guided_backprop(model, None, x, 1, signed=True)[0], wanted)


def test_smooth_grad_without_noise_is_saliency():
    model, x = settle(small_vgg()), torch.randn(2, 3, 32, 32)
    assert_close(cam_methods.smooth_grad(model, None, x, samples=2, noise=0.)[0], cam_methods.saliency(model, None, x)[0])


def test_an_in_place_relu_after_the_layer_changes_nothing():
    class InPlace(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            self.conv, self.inplace, self.fc = nn.Conv2d(3, 6, 3), inplace, nn.Linear(6, 4)
        def forward(self, x): return self.fc(F.relu(self.conv(x), inplace=self.inplace).mean((2, 3)))

    torch.manual_seed(0)
    safe, model, x = InPlace(False), InPlace(True), torch.randn(2, 3, 12, 12)
    model.load_state_dict(safe.state_dict())
    assert_close(grad_cam(model, 'conv', x, 1, relu=False)[0], grad_cam(safe, 'conv', x, 1, relu=False)[0])
    target = Scaled(torch.tensor([1, 1]), lift(safe, 'conv', x, 1, None))
    right = rival_maps(pgc.GradCAM, safe, 'conv', x, [target.one(0), target.one(1)], None)
    assert_close(shown(grad_cam(model, 'conv', x, target)[0], (12, 12)), right, atol=1e-5, rtol=0)


class Awkward(nn.Module):
    "Dropout, batch norm, an in-place ReLU, one ReLU used twice; can be told to fail."
    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.relu, self.drop = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(.5)
        self.conv2, self.fc = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        self.fail = None

    def forward(self, x):
        y = self.conv2(self.relu(self.bn(self.conv1(x))))
        if self.fail and self.fail(): raise RuntimeError('the model broke')
        return self.fc(self.drop(self.relu(y)).mean((2, 3)))


@pytest.fixture
def awkward():
    torch.manual_seed(0)
    model = settle(Awkward())
    return model, torch.randn(3, 3, 8, 8)


QUICK = {'SmoothGrad': dict(samples=2), 'Integrated gradients': dict(steps=2)}


def traces(model, x):
    "All that a call could leave behind."
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks', '_forward_hooks_with_kwargs')
    return {
        'modes': [m.training for m in model.modules()], 'modules': [id(m) for m in model.modules()],
        'hooks': [[(k, id(v)) for k, v in getattr(m, h).items()] for m in model.modules() for h in hooks],
        'weights': [(n, v.clone(), v.data_ptr()) for n, v in model.state_dict().items()],
        'versions': [v._version for v in model.state_dict().values() if not v.is_inference()],
        'gradients': [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        'frozen': [p.requires_grad for p in model.parameters()],
        'images': (x.clone(), x.requires_grad, x.grad),
        'flags': (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled(), torch.is_autocast_enabled('cpu')),
        'random': (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()),
        'function modes': len(torch.overrides._get_current_function_mode_stack()),
        'calls inside': [engine._mode_users.get(id(m), [0])[0] for m in model.modules()],
    }


def assert_same(a, b, path=''):
    if isinstance(a, torch.Tensor): assert torch.equal(a, b), path
    elif isinstance(a, dict): [assert_same(a[k], b[k], f'{path}/{k}') for k in a]
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (p, q) in enumerate(zip(a, b, strict=True)): assert_same(p, q, f'{path}/{i}')
    else: assert a == b, path


SITUATIONS = {
    'evaluation mode': lambda model: None,
    'training mode in parts': lambda model: (model.train(), model.bn.eval()),
    'frozen': lambda model: [p.requires_grad_(False) for p in model.parameters()],
    'gradients and hooks of the caller': lambda model: (
        [setattr(p, 'grad', torch.ones_like(p)) for p in model.parameters()],
        model.conv2.register_forward_hook(lambda *a: None), model.fc.register_full_backward_hook(lambda *a: None)),
}


@pytest.mark.filterwarnings('ignore:the model is in training mode')
@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('name', METHODS)
def test_every_method_leaves_everything_as_found(awkward, name, situation):
    model, x = awkward
    method, options = METHODS[name], QUICK.get(name, {})
    wanted = method(model, 'conv2', x, **options)[0]
    SITUATIONS[situation](model)
    before = traces(model, x)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            inside = traces(model, x)
            maps, logits = method(model, 'conv2', x, **options)
            assert_same(inside, traces(model, x), context.__name__)
        assert_close(maps, wanted, msg=f'{name} under {context.__name__}')
        assert not (maps.requires_grad or logits.requires_grad or maps.is_inference())
    assert_same(before, traces(model, x))


@pytest.mark.filterwarnings('ignore:the model is in training mode')
@pytest.mark.parametrize('name', METHODS)
def test_every_method_leaves_everything_as_found_after_an_exception(awkward, name):
    model, x = awkward
    model.train()
    calls = iter(range(100))
    before = traces(model, x)
    model.fail = lambda: next(calls) >= (1 if name in ('Score-CAM', 'Ablation-CAM', 'SmoothGrad', 'Integrated gradients', 'Guided Grad-CAM') else 0)
    with torch.no_grad(), pytest.raises(RuntimeError, match='the model broke'): METHODS[name](model, 'conv2', x, **QUICK.get(name, {}))
    model.fail = None
    if name != 'EigenCAM':  # it asks for no target
        with pytest.raises(ZeroDivisionError): METHODS[name](model, 'conv2', x, lambda logits: 1 / 0, **QUICK.get(name, {}))
    assert_same(before, traces(model, x))


@pytest.mark.filterwarnings('ignore:the model is in training mode')
def test_two_threads_explain_one_model_in_training_mode_and_the_modes_come_back(awkward):
    model, x = awkward
    alone = {name: METHODS[name](model, 'conv2', x, **QUICK.get(name, {}))[0] for name in METHODS}
    model.train()
    before, gate = traces(model, x), threading.Barrier(4)

    def work(shift):
        gate.wait()
        names = [*METHODS][shift:] + [*METHODS][:shift]
        return {name: METHODS[name](model, 'conv2', x, **QUICK.get(name, {}))[0] for _ in range(3) for name in names}

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, (0, 3, 7, 10)):
            for name, maps in result.items(): assert_close(maps, alone[name], msg=name)
    assert_same(before, traces(model, x))


def test_training_mode_is_said_aloud_only_where_it_matters(awkward):
    model, x = awkward
    model.train()
    with pytest.warns(UserWarning, match='the maps are made in evaluation mode'): grad_cam(model, 'conv2', x)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        grad_cam(resnet18('layer').train(), 'layer4', torch.randn(1, 3, 32, 32))
        grad_cam(small_vit().train(), ZOO['ViT'][1], torch.randn(1, 3, 32, 32), reshape=tokens_to_maps)  # Dropout(p=0)
    deep = zoo.ConvNeXt([zoo.convnext.CNBlockConfig(16, None, 2)], stochastic_depth_prob=.5, num_classes=5).train()
    with pytest.warns(UserWarning, match='the maps are made in evaluation mode'): grad_cam(deep, 'features.1', torch.randn(1, 3, 32, 32))


@pytest.mark.filterwarnings('ignore:the model is in training mode')
def test_a_model_and_a_part_of_it_may_be_explained_at_the_same_time(awkward):
    model, _ = awkward
    whole = nn.Sequential(model, nn.Dropout(.5)).train()
    found = [m.training for m in whole.modules()]
    def counts(): return [engine._mode_users.get(id(m), [0])[0] for m in whole.modules()]  # of this test's modules: others may be at work
    with contextlib.ExitStack() as all_of_it:
        with engine.evaluating(model): all_of_it.enter_context(engine.evaluating(whole))
        assert not any(m.training for m in whole.modules())
        assert counts() == [1] * len(found)
    assert [m.training for m in whole.modules()] == found
    assert counts() == [0] * len(found)


def test_a_map_under_autocast_does_not_spoil_the_training_step_around_it():
    model, x = resnet18().train(), torch.randn(2, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        maps, _ = grad_cam(model, 'layer3', x)
        model(x).float().sum().backward()
    assert maps.dtype == torch.float32
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-4), (torch.bfloat16, .1), (torch.float16, .02)])
def test_any_precision_gives_nearly_the_same_maps(dtype, tolerance):
    torch.manual_seed(0)
    model, x = settle(small_vgg()), torch.randn(3, 3, 32, 32)
    wanted = grad_cam(model, 'features.9', x, 2)[0]
    maps, _ = grad_cam(copy.deepcopy(model).to(dtype), 'features.9', x.to(dtype), 2)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float((maps - wanted).abs().max() / wanted.max()) < tolerance


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', METHODS)
def test_every_method_takes_every_precision_and_returns_float32_or_float64(awkward, name, dtype):
    model, x = awkward
    options = QUICK.get(name, {})
    target = torch.stack([METHODS[name](model, 'conv2', x, k, **options)[0].amax((1, 2)) for k in range(4)]).argmax(0)
    wanted = METHODS[name](model, 'conv2', x, target, **options)[0]
    assert (wanted.amax((1, 2)) > 0).all(), 'a map of zeros has nothing to compare'
    maps, _ = METHODS[name](model.to(dtype), 'conv2', x.to(dtype), target, **options)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert maps.isfinite().all()
    assert F.cosine_similarity(maps.float().flatten(1), wanted.flatten(1)).min() > .9


@pytest.mark.parametrize('name', METHODS)
def test_any_batch_gives_the_same_maps_and_none_gives_none(awkward, name):
    model, x = awkward
    method, options = METHODS[name], QUICK.get(name, {})
    ids = torch.tensor([3, 0, 1])
    wanted, logits = method(model, 'conv2', x, ids, **options)
    assert_close(method(model, 'conv2', x, ids, batch_size=2, **options)[0], wanted)
    assert_close(method(model, 'conv2', x[1:2], 0, **options)[0], wanted[1:2])
    none, no_logits = method(model, 'conv2', x[:0], ids[:0], **options)
    assert none.shape == (0, *wanted.shape[1:]) and no_logits.shape == (0, 4)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_takes_every_kind_of_target(awkward, name):
    model, x = awkward
    method, options = METHODS[name], QUICK.get(name, {})
    said = predict(model, x).argmax(1)
    assert_close(method(model, 'conv2', x, **options)[0], method(model, 'conv2', x, said.numpy(), **options)[0])
    assert_close(method(model, 'conv2', x, 2, **options)[0], method(model, 'conv2', x, [2, 2, 2], **options)[0])
    assert_close(method(model, 'conv2', x, 2, **options)[0], method(model, 'conv2', x, lambda logits: logits[:, 2], **options)[0])
    assert_close(method(model, 'conv2', x, ClassDifference(None, 2), **options)[0],
                 method(model, 'conv2', x, ClassDifference(said, torch.tensor([2, 2, 2])), **options)[0])
    if name == 'EigenCAM': return
    for wrong, message in ((4, 'classes from 0 to 3'), (torch.tensor([1]), r'shape \(3,\); got \(1,\)'), (1.5, 'whole numbers'),
                           ('cat', r"CLASSES.index\('cat'\)"), (ClassDifference(1, None), 'Only first may be None')):
        with pytest.raises((ValueError, TypeError), match=message): method(model, 'conv2', x, wrong, **options)


def test_a_layer_that_runs_twice_is_read_where_it_runs_last(awkward):
    model, x = awkward
    with torch.no_grad(): last = F.relu(model.conv2(F.relu(model.bn(model.conv1(x)))))
    weights = model.fc.weight[predict(model, x).argmax(1)].detach() / 64
    assert_close(grad_cam(model, 'relu', x)[0], torch.einsum('bd,bdhw->bhw', weights, last).relu())


@pytest.mark.parametrize('compiled', ['torch.compile(model)', 'model.compile()', 'a compiled block', 'a compiled forward'])
def test_a_compiled_model_is_explained_as_plain_python_and_the_compiler_is_left_as_found(compiled):
    torch.manual_seed(0)
    model, x = settle(small_vgg()), torch.randn(2, 3, 32, 32)
    names = ('Grad-CAM', 'Ablation-CAM', 'Saliency')
    wanted = [METHODS[name](model, 'features.9', x)[0] for name in names]
    if compiled == 'torch.compile(model)': model = torch.compile(model, backend='eager')
    elif compiled == 'model.compile()': model.compile(backend='eager')
    elif compiled == 'a compiled block': model.features.compile(backend='eager')
    else: model.features.forward = torch.compile(model.features.forward, backend='eager')
    with torch.no_grad(): before = model(x)
    for stance in ('default', 'eager_on_recompile'):
        with torch.compiler.set_stance(stance):
            assert_close(predict(model, x), before)
            for name, maps in zip(names, wanted, strict=True): assert_close(METHODS[name](model, 'features.9', x)[0], maps)
            with pytest.raises(ZeroDivisionError): grad_cam(model, 'features.9', x, lambda logits: 1 / 0)
            with ThreadPoolExecutor(3) as pool:
                for maps, _ in pool.map(lambda _: grad_cam(model, 'features.9', x), range(9)): assert_close(maps, wanted[0])
            assert torch._dynamo.eval_frame._stance.stance == stance and not engine._eager_users
    with torch.no_grad(): assert_close(model(x), before)  # still compiled, still right


def test_parallel_wrappers_are_opened():
    model, x = settle(small_vgg()), torch.randn(2, 3, 32, 32)
    assert_close(grad_cam(nn.DataParallel(model), 'features.9', x)[0], grad_cam(model, 'features.9', x)[0])


def test_a_scripted_model_says_that_hooks_cannot_reach_its_layers():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)).eval())
    with pytest.raises(TypeError, match='got a scripted one'): grad_cam(model, '0', torch.randn(1, 3, 8, 8))


def test_a_quantised_head_has_no_gradient_path_and_methods_without_gradients_still_work(awkward):
    quantization = pytest.importorskip('torch.ao.quantization', reason='this PyTorch has no torch.ao.quantization')
    model, x = awkward
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: small = quantization.quantize_dynamic(model, {nn.Linear})
        except RuntimeError as error: pytest.skip(f'no quantised engine here: {error}')
        with pytest.raises(ValueError, match='layer must have a gradient path'): grad_cam(small, 'conv2', x)
        assert cam_methods.score_cam(small, 'conv2', x)[0].shape == (3, 8, 8)


def test_a_quantised_layer_is_refused():
    class Quantised(nn.Module):
        def forward(self, x): return torch.quantize_per_tensor(x, .1, 0, torch.qint8)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = Quantised()
        def forward(self, x): return self.q(x).dequantize().mean((2, 3))

    with pytest.raises(TypeError, match='returns quantised tensors'): grad_cam(Model(), 'q', torch.randn(1, 3, 8, 8))


def test_layers_below_the_chosen_one_run_without_a_graph(awkward):
    model, x = awkward
    seen = {}
    def note(name): return lambda module, args, out: None if seen.setdefault(name, out.requires_grad) else None
    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    grad_cam(model, 'conv2', x)
    for handle in handles: handle.remove()
    assert seen == {'conv1': False, 'bn': False, 'relu': False, 'conv2': False, 'drop': True, 'fc': True}  # conv2: before the hook


def test_fused_layers_equal_pytorch_grad_cam_with_several_layers():
    torch.manual_seed(0)
    model, x, ids = resnet18().eval(), torch.randn(2, 3, 32, 32), torch.tensor([1, 7])
    layers = ['layer1', 'layer3']  # layer1 has the size of the image, where the rival takes the mean
    target = Scaled(ids, 1e3 * lift(model, 'layer1', x, ids, None))
    twin = copy.deepcopy(model)
    with pgc.GradCAM(model=twin, target_layers=[twin.get_submodule(name) for name in layers]) as cam:
        theirs = torch.tensor(cam(input_tensor=x.clone(), targets=[target.one(0), target.one(1)]))
    assert_close(scale_maps(fuse_layers(model, layers, x, target)[0]), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ['Score-CAM', 'Ablation-CAM'])
def test_slow_methods_show_progress_when_asked_and_are_silent_else(awkward, name, capfd):
    model, x = awkward
    METHODS[name](model, 'conv2', x)
    assert capfd.readouterr() == ('', '')
    METHODS[name](model, 'conv2', x, progress=True)
    assert '3/3' in capfd.readouterr().err  # images


def test_the_module_imports_torch_alone():
    import ast
    for module in (gradcam, engine, channel_loop, cam_methods):
        nodes = [node for node in ast.parse(open(module.__file__).read()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name if isinstance(node, ast.Import) else '.'*node.level + node.module for node in nodes for alias in node.names}
        allowed = {'contextlib', 'copy', 'dataclasses', 'difflib', 'threading', 'torch', 'warnings', '.hooks', '.channels', '.gradcam'}
        assert {name if name[0] == '.' else name.split('.')[0] for name in names} <= allowed


def test_maps_with_nan_are_refused_and_a_top_of_zero_is_defined():
    pixels, bad = np.full((2, 4, 4, 3), 100, np.uint8), torch.zeros(2, 2, 2)
    flat = gradcam.overlay(pixels, bad)
    for top in (0., -1.):
        assert torch.equal(gradcam.overlay(pixels, bad, top=top), flat)
        assert torch.equal(gradcam.overlay(pixels, bad + .1, top=top), gradcam.overlay(pixels, bad + .1, top=.1))
    bad[1, 0, 0] = float('nan')
    for call in (lambda: scale_maps(bad), lambda: gradcam.overlay(pixels, bad), lambda: gradcam.overlay(pixels, bad, top=1.)):
        with pytest.raises(ValueError, match='maps must be finite; map 1 of 2 holds NaN'): call()
    with pytest.raises(ValueError, match='strength must be from 0 to 1'): gradcam.overlay(pixels, bad.nan_to_num(), strength=2.)


@pytest.mark.parametrize('name, wrong, message', [
    ('SmoothGrad', dict(samples=0), 'samples must be 1 or more'), ('SmoothGrad', dict(samples=2.5), 'samples must be 1 or more'),
    ('SmoothGrad', dict(noise=-1.), 'noise must be 0 or more'), ('Integrated gradients', dict(steps=0), 'steps must be 1 or more'),
    ('Integrated gradients', dict(baseline=torch.zeros(2, 3, 8, 8)), r'baseline must be .* got \(2, 3, 8, 8\)'),
    ('Integrated gradients', dict(baseline='black'), "baseline must be .* got 'black'"), ('Score-CAM', dict(channels=True), 'channels must be 1 or more'),
    ('Grad-CAM', dict(batch_size=1.5), 'batch_size must be 1 or more')])
def test_wrong_options_are_named(awkward, name, wrong, message):
    model, x = awkward
    with pytest.raises(ValueError, match=message): METHODS[name](model, 'conv2', x, **wrong)


@pytest.mark.parametrize('size', [1, 2, 3])
def test_a_baseline_is_cut_with_its_images(awkward, size):
    model, x = awkward
    start = torch.randn(3, 3, 8, 8)
    wanted = torch.cat([cam_methods.integrated_gradients(model, None, x[i:i+1], 1, steps=3, baseline=start[i:i+1])[0] for i in range(3)])
    assert_close(cam_methods.integrated_gradients(model, None, x, 1, size, steps=3, baseline=start)[0], wanted)
    assert cam_methods.integrated_gradients(model, None, x[:0], [], size, steps=3, baseline=start[:0])[0].shape == (0, 8, 8)


@pytest.mark.parametrize('kind, name, end', [
    ('resnet50', 'layer4', 'avgpool'), ('densenet121', 'features', None), ('convnext_tiny', 'features', 'avgpool'),
    ('efficientnet_b0', 'features', 'avgpool'), ('vgg11', 'features', 'avgpool')])
def test_the_default_layer_is_the_deepest_map_before_the_pooling(kind, name, end):
    if kind == 'vgg11':  # its head of 124 million weights is replaced
        with torch.device('meta'): model = zoo.vgg11(init_weights=False)
        model.features.to_empty(device='cpu')
        for module in model.features:
            if isinstance(module, nn.Conv2d): nn.init.kaiming_normal_(module.weight), nn.init.zeros_(module.bias)
        model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(3), nn.Linear(512 * 9, 10)  # its output is no single place
    else: model = getattr(zoo, kind)()
    model, x = model.eval(), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert default_layer(model, x) == name
    pooled = []  # what the pooling was given
    if end: model.get_submodule(end).register_forward_pre_hook(lambda module, args: pooled.append(args[0].detach()))
    with engine.record_output(model.get_submodule(name), gradients=False) as kept, torch.no_grad(): model(x)
    assert kept[0].shape[2:] == (7, 7)
    if end: assert_close(pooled[0], kept[0])
    else:  # a DenseNet pools in a function, after a ReLU
        assert_close(model.classifier(kept[0].relu().mean((2, 3))).detach(), predict(model, x))
    assert len(explorer_layers(model, x)) > 3  # finer ones too
    assert cam_methods.eigen_cam(model, None, x)[0].shape == (1, 7, 7)


def test_what_stands_in_the_way_is_named(awkward):
    model, x = awkward
    for wrong, message in ((3, 'got int, 3. The model has conv1, bn'), ('', "got ''. The model has conv1, bn"), ('conv', 'Close matches: conv')):
        with pytest.raises((ValueError, TypeError), match=message): grad_cam(model, wrong, x)
    for layer in ('conv2', None):
        with pytest.raises(TypeError, match='dtype of the model, torch.float32; got torch.float64'): grad_cam(model, layer, x.double())
    assert grad_cam(model, 'conv2', x[:0], target=[])[0].shape == (0, 8, 8)
    model.bn.running_mean[2] = float('nan')
    with pytest.raises(ValueError, match='its buffer bn.running_mean holds NaN'): grad_cam(model, 'conv2', x)


def test_a_layer_above_which_only_the_class_token_is_read_has_no_gradient_path():
    model, x = settle(small_vit()), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match='exactly zero at every place of every image'): grad_cam(model, 'encoder.ln', x, reshape=tokens_to_maps)
    assert grad_cam(model, 'encoder.ln', x[:0], reshape=tokens_to_maps)[0].shape == (0, 4, 4)
    line = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        for weight in line.parameters(): weight.fill_(1.)
    maps, _ = grad_cam(line, '0', -torch.ones(2, 3, 4, 4), 0)  # all evidence is against: a map of zeros, and rightly
    assert maps.eq(0).all()


def test_the_explorer_offers_layers_that_exist_and_says_what_goes_wrong():
    pytest.importorskip('ipywidgets', reason='ipywidgets is not installed')
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    images, names = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8), ['a', 'b', 'c']
    x = torch.tensor(images).permute(0, 3, 1, 2) / 255.
    box = explorers.explorer(model, images, [0, 1, 2, 0], x, names)
    controls = {w.description: w for row in box.children for w in row.children if getattr(w, 'description', '')}
    note, view = box.children[3].children[0], box.children[4].children[0]
    assert controls['layer'].options == ('3', '0', '1', '2')  # the default first; the pooled 1x1 map is left out
    assert note.value == '4 of 4 images' and view.value[:4] == b'\x89PNG'
    controls['method'].value = 'Guided backprop'
    assert 'model must call a ReLU' in note.value and view.value == b''
    controls['method'].value = 'Score-CAM'
    assert note.value == '4 of 4 images' and view.value[:4] == b'\x89PNG'
    controls['true class'].value = 1
    assert note.value == '1 of 4 images'


@pytest.mark.parametrize('method, wanted', [('Score-CAM', 'Score-CAM (at most 32 channels) at conv2 for b'), ('Saliency', 'Saliency for b'),
                                            ('Grad-CAM', 'Grad-CAM at drop for b')])
def test_the_picture_says_how_it_was_made(awkward, monkeypatch, method, wanted):
    model, x = awkward
    titles, draw = [], explorers.draw_explanation
    def note(image, grid, chances, classes, title, true_class):
        titles.append(title)
        return draw(image, grid, chances, classes, title, true_class)
    monkeypatch.setattr(explorers, 'draw_explanation', note)
    explorers.explorer_png(model, np.zeros((8, 8, 3), np.uint8), x[0], 0, 'abcd', method, 'conv2' if method == 'Score-CAM' else None, 1)
    assert wanted in titles[0]


def test_a_vision_transformer_has_one_layer_of_maps_and_its_blocks_by_name():
    torch.manual_seed(0)
    model, x = zoo.VisionTransformer(image_size=224, patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96), torch.randn(1, 3, 224, 224)
    nn.init.normal_(model.heads.head.weight)
    assert default_layer(model.eval(), x) == 'conv_proj'  # tokens are no maps (B, D, h, w) before somebody says how they lie
    assert grad_cam(model, None, x)[0].shape == (1, 14, 14)
    assert grad_cam(model, 'encoder.layers.encoder_layer_1.ln_1', x, reshape=tokens_to_maps)[0].shape == (1, 14, 14)


def test_grad_cam_equals_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        A, bumps = model[:2](x), 1e-5 * torch.eye(32, dtype=torch.float64).view(32, 2, 4, 4)
        gradient = ((model[2:](A + bumps) - model[2:](A - bumps))[:, 1] / 2e-5).view(2, 4, 4)
        by_hand = (gradient.mean((1, 2))[:, None, None] * A[0]).sum(0).relu()
    assert_close(grad_cam(model, '1', x, target=1)[0][0], by_hand, atol=1e-8, rtol=1e-6)


def test_integrated_gradients_of_a_network_blind_to_contrast_are_input_times_gradient():
    torch.manual_seed(0)
    head = [nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    model, x = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.GroupNorm(1, 6, eps=0.), *head).double().eval(), torch.randn(3, 3, 12, 12, dtype=torch.float64)
    assert_close(predict(model, x * 5), predict(model, x))
    gradient = cam_methods.saliency(model, None, x, 1, signed=True)[0]
    for steps in (1, 4, 9):
        ig = cam_methods.integrated_gradients(model, None, x, 1, signed=True, steps=steps, baseline=0.)[0]
        assert_close(ig, x * gradient * sum(1 / (i + .5) for i in range(steps)))
        assert_close(ig.sum((1, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-8, rtol=0)  # far from the score: nothing is complete
    model[0] = nn.Conv2d(3, 6, 3).double()  # with a bias it sees the contrast
    gradient = cam_methods.saliency(model, None, x, 1, signed=True)[0]
    ig = cam_methods.integrated_gradients(model, None, x, 1, signed=True, steps=4, baseline=0.)[0]
    assert not torch.allclose(ig / ig.abs().max(), x * gradient / (x * gradient).abs().max(), atol=.05)


def test_channels_are_found_where_reshape_puts_them():
    marks, places = torch.zeros(1, 5, 3, 4), cam_methods.channel_places
    assert [a if isinstance(a, int) else a.tolist() for a in places(marks)] == [1, [0, 1, 2, 3, 4]]
    assert places(marks, lambda t: t.permute(0, 3, 1, 2))[0] == 3
    assert places(torch.zeros(1, 17, 17), tokens_to_maps)[0] == 2  # 16 tokens and one more of 17 numbers: no size could tell
    for wrong in (lambda t: t - t.mean(), lambda t: t.reshape(1, 4, 5, 3)):
        with pytest.raises(ValueError, match='Move axes only'): places(marks, wrong)


def test_methods_of_one_rule_have_the_name_the_signature_and_the_words_of_a_method():
    import inspect
    for method in (cam_methods.hires_cam, cam_methods.layer_cam, cam_methods.xgrad_cam, cam_methods.grad_cam_plus_plus):
        assert list(inspect.signature(method).parameters) == ['model', 'layer', 'x', 'target', 'reshape', 'batch_size']
        assert cam_methods.__dict__[method.__name__] is method and 'et al.' in method.__doc__ or 'and' in method.__doc__
        assert method.__module__ == 'cifar_cam.cam_methods'
