"The network at its edges: odd inputs, other networks, damaged files, torchsummary's traps. What teaches stands in the lesson."
import contextlib
import io
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import torchsummary
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18 as vision_resnet18
from torchvision.models.resnet import BasicBlock

from cifar_cam import core, resnet
from cifar_cam.checks import check_batch
from cifar_cam.layers import kernel_stride_padding
from cifar_cam.pretrained import pretrained_card, pretrained_path, save_pretrained
from cifar_cam.resnet import NORMS, Block, LayerNorm, david_resnet, draw_receptive_fields, init_weights, load_pretrained, receptive_box, resnet18, summary

BATCH_NORM = nn.modules.batchnorm._BatchNorm


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(42)
    return resnet18()


@pytest.fixture(scope='module')
def x(): return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# LayerNorm

def test_layernorm_has_two_numbers_per_channel_and_no_statistics():
    assert sum(p.numel() for p in LayerNorm(7).parameters()) == 14
    assert list(LayerNorm(7).buffers()) == []


def test_a_constant_map_becomes_zero():
    assert_close(LayerNorm(3)(torch.full((1, 3, 4, 4), 9.)), torch.zeros(1, 3, 4, 4), rtol=0, atol=1e-3)
    assert LayerNorm(3)(torch.randn(2, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize('bad', [0, -3, 2.0, True, '8'])
def test_layernorm_wants_a_number_of_channels(bad):
    with pytest.raises(ValueError, match='channels must be a whole number'): LayerNorm(bad)


def test_neither_mode_nor_batch_matter_to_layernorm(x):
    layer, other = LayerNorm(3), nn.BatchNorm2d(3)
    assert_close(layer.train()(x), layer.eval()(x), rtol=0, atol=0)
    assert_close(layer(x)[:1], layer(x[:1]))
    assert not torch.allclose(other.train()(x*3 + 1), other.eval()(x*3 + 1), atol=.1)
    with pytest.raises(ValueError, match='more than 1 value per channel'): nn.BatchNorm2d(3)(torch.randn(1, 3, 1, 1))
    assert LayerNorm(3)(torch.randn(1, 3, 1, 1)).isfinite().all()


# blocks and networks

def test_a_block_with_scale_zero_passes_its_input_through():
    block, maps = Block(8, 8, 1, LayerNorm), torch.randn(2, 8, 6, 6)
    nn.init.zeros_(block.norm2.weight)
    assert_close(block(maps), maps.relu(), rtol=0, atol=0)
    assert Block(8, 16, 2, LayerNorm)(maps).shape == (2, 16, 3, 3)


@pytest.mark.parametrize('outputs, stride', [(8, 1), (16, 2)])
def test_a_block_is_that_of_torchvision(outputs, stride):
    ours, maps = Block(8, outputs, stride, LayerNorm), torch.randn(2, 8, 6, 6)
    down = None if stride == 1 else nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), LayerNorm(16))
    theirs = BasicBlock(8, outputs, stride, down, norm_layer=LayerNorm)
    theirs.load_state_dict({n.replace('norm', 'bn').replace('shortcut', 'downsample'): v for n, v in ours.state_dict().items()})
    found = []
    for block in (ours, theirs):
        given = maps.clone().requires_grad_()
        out = block(given)
        found.append((out, *torch.autograd.grad(out.pow(2).sum(), given)))
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_the_first_weights_keep_a_gradient_s_size():
    torch.manual_seed(42)
    conv = init_weights(nn.Conv2d(64, 128, 3, padding=1, padding_mode='circular', bias=False))
    signal, gradient = torch.randn(32, 64, 16, 16, requires_grad=True), torch.randn(32, 128, 16, 16)
    out = conv(signal.relu())
    back, = torch.autograd.grad(out, signal, gradient)
    energy = lambda v: v.pow(2).mean().item()
    assert energy(out)/energy(signal) == pytest.approx(.5, abs=.05)  # half the channels: the signal's size is left to the norm
    assert energy(back)/energy(gradient) == pytest.approx(1, abs=.05)


def test_both_norms_start_from_the_same_weights():
    states = []
    for norm in NORMS:
        torch.manual_seed(1)
        states.append(resnet18(norm).state_dict())
    assert_close(states[0]['layer3.0.conv1.weight'], states[1]['layer3.0.conv1.weight'], rtol=0, atol=0)
    assert states[0]['layer4.1.conv2.weight'].std().item() == pytest.approx((2/(9*512))**.5, abs=1e-4)


@pytest.mark.parametrize('bad', [0, -1, 2.0, True, '10', None])
def test_classes_must_be_a_whole_number(bad):
    for make in (resnet18, david_resnet):
        with pytest.raises(ValueError, match='num_classes must be a whole number'): make(num_classes=bad)


@pytest.mark.parametrize('bad', ['group', None, 'LAYER', 3])
def test_an_unknown_norm_is_refused(bad):
    with pytest.raises(ValueError, match="norm must be one of 'layer', 'batch'"): resnet18(bad)


def test_an_input_of_the_wrong_kind_is_told_what_to_do(model, x):
    raw = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for bad, kind, reason in ((raw, TypeError, r'floating-point numbers; got torch.uint8 \(2, 32, 32, 3\)'),
                              (raw.float(), ValueError, r'x must have shape \(B, 3, H, W\); got \(2, 32, 32, 3\)'),
                              (x[0], ValueError, r'x\[None\] for one image'), (x[:2, :1], ValueError, r'\(2, 1, 32, 32\)'),
                              (raw.numpy(), TypeError, 'got ndarray')):
        with pytest.raises(kind, match=reason): model(bad)
    with pytest.raises(TypeError, match='torch.uint8'): david_resnet()(raw)


def test_other_sizes_and_no_image_work_too(model, x):
    assert model(x[:0]).shape == (0, 10)
    assert model(x[:2, :, :24, :24]).shape == (2, 10)
    assert sum(p.numel() for p in resnet18(num_classes=100).parameters()) == 11_173_962 + 90*513


class Watch(TorchDispatchMode):
    "Collects the names of operations that overwrite their input."
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        if f._schema.is_mutable: self.seen.add(f._schema.name)
        return f(*args, **(kwargs or {}))


def test_nothing_is_overwritten_and_there_is_no_batch_norm(model, x):
    with Watch() as watch: nn.ReLU(inplace=True)(torch.randn(2) + 0)
    assert watch.seen == {'aten::relu_'}, 'the watch is blind'
    for network in (model, david_resnet().eval()):
        with Watch() as watch: network(x[:2])
        assert watch.seen == set()
        assert not any(getattr(m, 'inplace', False) for m in network.modules())
    assert not [m for m in (*model.modules(), *load_pretrained().modules()) if isinstance(m, BATCH_NORM)]
    assert list(model.buffers()) == []


def test_it_trains_in_channels_last_and_bfloat16(model, x):
    last = deepcopy(model).to(memory_format=torch.channels_last)
    xb = x[:2].contiguous(memory_format=torch.channels_last)
    assert_close(last(xb), model(x[:2]), rtol=1e-4, atol=1e-4)
    with torch.autocast('cpu', torch.bfloat16): logits = last(xb)
    logits.float().logsumexp(1).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in last.parameters())
    assert logits.dtype == torch.bfloat16 and (logits.float() - model(x[:2])).abs().max() < .2


# summary and receptive fields

@pytest.mark.parametrize('layer, width, wanted', [
    (nn.Conv2d(3, 3, 3, 2, 1), 8, (3, 2, 1)), (nn.Conv2d(3, 3, 3, dilation=2, padding='same'), 8, (5, 1, 2)), (nn.MaxPool2d(2), 8, (2, 2, 0)),
    (nn.AdaptiveAvgPool2d(1), 8, (8, 8, 0)), (nn.AdaptiveAvgPool2d((2, 2)), 8, (4, 4, 0)), (LayerNorm(3), 8, (1, 1, 0))])
def test_windows_are_read_from_layers(layer, width, wanted): assert kernel_stride_padding(layer, width) == wanted


def fields(table): return table['receptive field'].dropna().tolist()


def test_summary_leaves_a_model_as_it_was(model):
    batch = resnet18('batch')
    batch.layer2.eval()
    state, modes = {k: v.clone() for k, v in batch.state_dict().items()}, [m.training for m in batch.modules()]
    assert fields(summary(batch)) == fields(summary(model))
    assert [m.training for m in batch.modules()] == modes
    assert_close(batch.state_dict(), state, rtol=0, atol=0)
    assert not batch._forward_hooks


def test_summary_of_torchvision_s_network():
    table = summary(vision_resnet18(), 224)
    assert table['parameters'].sum() == 11_689_512
    assert fields(table)[-2] == 435  # Araujo et al. 2019 for ResNet-18


def test_summary_counts_a_shared_layer_once():
    shared = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    twice = summary(nn.Sequential(shared, shared))
    assert twice['parameters'].tolist() == [81, 0] and twice['receptive field'].tolist() == [3, 5]


class Chooser(nn.Module):
    "Which way it goes depends on the image: no one graph."
    def forward(self, x): return x if x.sum() > 0 else -x


class Functional(nn.Module):
    def forward(self, x): return F.max_pool2d(x, 2)


class Cutter(nn.Module):
    def forward(self, x): return x[:, :, ::2, ::2]


@pytest.mark.parametrize('network, reason', [
    (Chooser(), 'torch.fx can follow; Chooser is not'), (Functional(), 'it calls max_pool2d. Make it a module'), (Cutter(), 'it calls getitem'),
    (nn.Sequential(nn.Conv2d(3, 3, 3), nn.Upsample(scale_factor=4)), '1 makes 120 pixels where its window gives 30')],
    ids=['chooser', 'functional', 'cutter', 'upsample'])
def test_a_network_that_cannot_be_read_gets_an_error_and_no_wrong_number(network, reason):
    with pytest.raises(ValueError, match=reason): summary(network)


def test_sizes_and_places_are_checked(model):
    for bad in (0, 32.0):
        with pytest.raises(ValueError, match=f'size must be the width .* got {bad}'): summary(model, bad)
    assert receptive_box(model, 'conv1', 0, 0) == (-1, -1, 2, 2)
    assert receptive_box(model, 'layer4.1.conv2', 0, 3) == receptive_box(model, 'layer4', 0, 3)
    for place, reason in ((('layer5', 0, 0), "got 'layer5'. Close: \\['layer"), (('fc', 0, 0), 'a layer with a map'),
                          (('layer4', 4, 0), '0 to 3 at layer4; got 4 and 0')):
        with pytest.raises(ValueError, match=reason): receptive_box(model, *place)


def test_receptive_fields_are_drawn_with_their_sizes(model):
    import matplotlib.pyplot as plt
    ax = draw_receptive_fields(torch.zeros(32, 32, 3, dtype=torch.uint8).numpy(), model)
    assert [text.get_text().split(',')[0] for text in ax.get_legend().get_texts()] == [
        'layer1: 11 pixels', 'layer2: 25 pixels', 'layer3: 53 pixels', 'layer4: 109 pixels']
    plt.close()


# torchsummary

def their_summary(model, channels=3, device='cpu'):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed): torchsummary.summary(model, (channels, 32, 32), device=device)
    return printed.getvalue()


def test_torchsummary_counts_as_we_do(model): assert 'Total params: 11,173,962' in their_summary(model)


def test_the_traps_of_torchsummary_that_the_lesson_names(model):
    trap = resnet18('batch')
    before = trap.norm1.running_mean.clone()
    their_summary(trap)
    assert (trap.norm1.running_mean - before).abs().max() > 0, 'running statistics move'
    with pytest.raises(ValueError, match='x must have shape'): their_summary(trap, channels=1)
    assert sum(len(m._forward_hooks) for m in trap.modules()) > 50, 'hooks stay'
    with pytest.raises(AttributeError, match='lower'): their_summary(model, device=torch.device('cpu'))
    with pytest.raises(RuntimeError, match='type'): their_summary(deepcopy(model).bfloat16())


# weights

def test_weights_come_back_from_a_file_as_float16_left_them(model, x, tmp_path):
    file = save_pretrained(model, {'recipe': 'untrained', 'seed': 42}, tmp_path/'weights.safetensors')
    state = torch.get_rng_state()
    again = load_pretrained(file)
    assert torch.equal(torch.get_rng_state(), state)
    assert pretrained_card(file) == {'recipe': 'untrained', 'seed': 42}
    assert_close(again.fc.weight, model.fc.weight.half().float(), rtol=0, atol=0)
    with torch.no_grad(): assert_close(again(x[:4]), deepcopy(model).eval()(x[:4]), rtol=.02, atol=.02)
    weight = again.fc.weight
    assert (again.training, weight.dtype, weight.requires_grad) == (False, torch.float32, True)
    assert 22e6 < file.stat().st_size < 23e6


def test_a_wrong_file_is_refused_with_its_reason(model, tmp_path):
    file = save_pretrained(model, {}, tmp_path/'good.safetensors')
    save_pretrained(resnet18('batch'), {}, tmp_path/'batch.safetensors')
    save_pretrained(resnet18(num_classes=3), {}, tmp_path/'three.safetensors')
    (tmp_path/'cut.safetensors').write_bytes(file.read_bytes()[:-9])
    for name, kind, reason in (('none', FileNotFoundError, 'does not exist. Install the package again'), ('cut', ValueError, 'whole safetensors file'),
                               ('batch', ValueError, r"must hold the weights of resnet18\('layer'\)"), ('three', ValueError, 'size mismatch for fc.weight')):
        with pytest.raises(kind, match=reason): load_pretrained(tmp_path/f'{name}.safetensors')


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path):
    file = save_pretrained(nn.Linear(2, 2), {'seed': 42}, tmp_path/'w.safetensors')
    for bad, reason in ((float('nan'), 'bias has not'), (1e6, 'float16 can hold')):
        broken = nn.Linear(2, 2)
        with torch.no_grad(): broken.bias[1] = bad
        with pytest.raises(ValueError, match=reason): save_pretrained(broken, {}, file)
    assert pretrained_card(file)['seed'] == 42, 'the good file is still there'


def test_old_names_still_work_with_a_warning():
    for old, new in dict(read_window=kernel_stride_padding, start_weights=init_weights, check_images=check_batch).items():
        with pytest.warns(DeprecationWarning, match=f'resnet.{old} is now'): assert getattr(resnet, old) is new
    with pytest.raises(AttributeError): resnet.nothing_of_the_kind  # noqa: B018


def test_damaged_weights_of_the_package_are_noticed(tmp_path, monkeypatch):
    (tmp_path/'weights').mkdir()
    (tmp_path/'weights'/pretrained_path().name).write_bytes(b'damaged')
    (tmp_path/'data_hashes.json').write_bytes((pretrained_path().parent.parent/'data_hashes.json').read_bytes())
    monkeypatch.setattr(core, 'package_folder', lambda: tmp_path)
    with pytest.raises(ValueError, match='is not the file that came with the package'): load_pretrained()
