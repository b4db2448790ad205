"Augmentation: the batched pipelines against Albumentations, loaders with workers, resumed runs."
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from cifar_cam.augment import (
    PIPELINES,
    AugmentedImages,
    CoarseDropout,
    CutOut,
    RandomCrop,
    Rotate,
    albumentations_batch,
    albumentations_pipeline,
    batch_pipeline,
    import_albumentations,
    seed_worker,
    step_generator,
)
from cifar_cam.data import STD, load_sample


@pytest.fixture(scope='module')
def images():
    return np.array(load_sample('train')[0])


def generator(seed): return torch.Generator().manual_seed(seed)


def spread(counts):
    "Chi-square of equal chances, in standard deviations from its expected value."
    counts = counts.float()
    freedom = len(counts) - 1
    return (((counts - counts.mean())**2/counts.mean()).sum() - freedom)/(2*freedom)**0.5


@pytest.fixture(scope='module')
def drawn(images):
    "The same 6,000 draws of the full pipeline by both, on one image."
    many = np.broadcast_to(images[43], (6000, 32, 32, 3))
    theirs = albumentations_batch('layernorm-plateau', many, seed=7)[1]
    return dict(albumentations=theirs, batched=batch_pipeline('layernorm-plateau').draw(6000, generator(7)))


@pytest.mark.parametrize('name', PIPELINES)
def test_equal_draws_give_equal_images(name, images):
    some = images[:16] if name == 'mini-dropout' else images[:300]
    theirs, draws = albumentations_batch(name, some, seed=3)
    ours = batch_pipeline(name).apply(torch.from_numpy(some), draws)
    assert ours.dtype == theirs.dtype == torch.float32 and ours.shape == theirs.shape
    levels = (ours - theirs).abs()*255*torch.tensor(PIPELINES[name][-1].std).view(3, 1, 1)
    if any(isinstance(t, Rotate) for t in PIPELINES[name]):
        # OpenCV 5 interpolates in floating point, as we do: one grey level of rounding (two with Resize before it).
        # OpenCV 4 rounds places to 1/32 of a pixel: up to 4 levels at sharp edges.
        opencv4 = import_albumentations()[1].__version__.startswith('4')
        assert levels.max() < (4.01 if opencv4 else 2.01) and levels.mean() < 0.3
    else: assert levels.max() < 0.001


@pytest.mark.parametrize('who', ['albumentations', 'batched'])
def test_every_crop_offset_is_equally_likely(who, drawn):
    d = drawn[who]
    assert (d['crop.top'].min(), d['crop.top'].max(), d['crop.left'].min(), d['crop.left'].max()) == (0, 8, 0, 8)
    assert abs(spread(torch.bincount(d['crop.top']*9 + d['crop.left'], minlength=81))) < 5


@pytest.mark.parametrize('who', ['albumentations', 'batched'])
def test_every_place_of_the_square_is_equally_likely(who, drawn):
    top, left, height, width = drawn[who]['cutout.boxes'][:, 0].unbind(1)
    assert height.unique().tolist() == width.unique().tolist() == [16]
    assert abs(spread(torch.bincount(top*17 + left, minlength=289))) < 5


@pytest.mark.parametrize('who', ['albumentations', 'batched'])
def test_angles_are_flat_between_their_limits(who, drawn):
    angle = drawn[who]['rotate.angle']
    assert angle.min() >= -5 and angle.max() <= 5
    assert abs(spread(torch.histc(angle.float(), bins=40, min=-5, max=5))) < 5


@pytest.mark.parametrize('who', ['albumentations', 'batched'])
def test_small_holes_have_every_size_number_and_place(who, drawn):
    boxes = drawn[who]['dropout.boxes']
    there = boxes[..., 2] > 0
    number = torch.bincount(there.sum(1), minlength=3)/6000
    assert torch.allclose(number, torch.tensor([0.5, 0.25, 0.25]), atol=0.03)
    corner, size = boxes[there][:, :2], boxes[there][:, 2:]
    assert abs(spread(torch.bincount((size[:, 0] - 3)*4 + size[:, 1] - 3, minlength=16))) < 5
    for side in (3, 6): # a hole of `side` pixels has 33 - side places along each axis
        assert abs(spread(torch.bincount(corner[size == side], minlength=33 - side))) < 5


@pytest.mark.parametrize('name', [n for n in PIPELINES if n != 'mini-dropout'])
def test_mean_and_deviation_of_pixels_agree(name, images):
    theirs = albumentations_batch(name, images, seed=11)[0]
    ours = batch_pipeline(name)(torch.from_numpy(images), generator(11))
    assert torch.allclose(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=0.03)
    assert torch.allclose(ours.std((0, 2, 3)), theirs.std((0, 2, 3)), atol=0.03)
    # rows of the mean image: frames, holes and turned corners lie where they should
    assert (ours.mean((0, 1, 3)) - theirs.mean((0, 1, 3))).abs().max() < 0.12


@pytest.mark.parametrize('name', PIPELINES)
def test_a_process_may_take_its_rows_of_the_global_draws(name, images):
    pipeline, some = batch_pipeline(name), torch.from_numpy(images[:12])
    draws = pipeline.draw(12, step_generator(0, 0, 0))
    assert all(len(value) == 12 and value.device.type == 'cpu' for value in draws.values())
    whole = pipeline(some, step_generator(0, 0, 0))
    parts = [pipeline.apply(some[i:i + 4], {k: v[i:i + 4] for k, v in draws.items()}) for i in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == torch.float32 and whole.is_contiguous()


def test_a_resumed_run_sees_the_same_images(images):
    pipeline, some = batch_pipeline('layernorm-plateau'), torch.from_numpy(images[:8])
    whole = [pipeline(some, step_generator(1, e, s)) for e in range(2) for s in range(3)]
    resumed = [pipeline(some, step_generator(1, 1, s)) for s in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], resumed, strict=True))
    assert len({x.numpy().tobytes() for x in whole}) == 6


def test_the_callers_images_and_random_state_stay_as_they_were(images):
    some = torch.from_numpy(images[:8].copy())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in PIPELINES: batch_pipeline(name)(some, generator(0))
    assert torch.equal(some, torch.from_numpy(images[:8])) and torch.equal(torch.get_rng_state(), before)


def test_probability_zero_leaves_images_alone(images):
    x = torch.from_numpy(images[:8]).permute(0, 3, 1, 2).contiguous()
    for t in (CutOut(16, p=0.0), CoarseDropout(p=0.0), Rotate(5, p=0.0), RandomCrop(0)):
        assert torch.equal(t.apply(x, t.draw(8, generator(0))), x), t


def loaded(images, epochs=2, workers=2, init=seed_worker, persistent=False, subset=False, name='layernorm-plateau'):
    data = AugmentedImages(images, np.arange(len(images)), albumentations_pipeline(name, seed=0))
    if subset: data = Subset(data, range(len(images)))
    loader = DataLoader(data, batch_size=8, num_workers=workers, worker_init_fn=init, persistent_workers=persistent)
    return torch.cat([xb for _ in range(epochs) for xb, _ in loader])


def different(x): return len({image.numpy().tobytes() for image in x})


@pytest.fixture(scope='module')
def copies(images): return np.broadcast_to(images[43], (64, 32, 32, 3))


def test_without_seed_worker_two_workers_repeat_each_other(copies):
    assert different(loaded(copies, init=None)) == 32 # of 128: two workers and two epochs all draw the same


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('workers', [1, 2])
def test_with_seed_worker_no_draw_is_repeated(workers, persistent, copies):
    assert different(loaded(copies, workers=workers, persistent=persistent)) == 128


def test_with_seed_worker_runs_are_equal_under_one_seed(copies):
    runs = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        runs.append(loaded(copies))
    assert torch.equal(runs[0], runs[1]) and different(torch.cat([runs[0], runs[2]])) == 256


def test_seed_worker_finds_the_pipeline_inside_a_subset(copies):
    assert different(loaded(copies, subset=True)) == 128


def test_an_argument_that_albumentations_would_ignore_is_an_error(monkeypatch):
    class OldArguments(CutOut):
        def albumentations(self):
            return [import_albumentations()[0].CoarseDropout(max_holes=1, max_height=16, max_width=16)]
    monkeypatch.setitem(PIPELINES, 'old', (OldArguments(),))
    with pytest.raises(UserWarning, match='max_holes'): albumentations_pipeline('old')


def test_batched_pipelines_need_neither_albumentations_nor_opencv():
    code = """
import sys
sys.modules['albumentations'] = sys.modules['cv2'] = None  # as if not installed
import torch
from cifar_cam.augment import albumentations_pipeline, batch_pipeline, step_generator
x = batch_pipeline('layernorm-plateau')(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), step_generator(0, 0, 0))
assert x.shape == (2, 3, 32, 32)
try: albumentations_pipeline('fast')
except ImportError as error: assert 'batch_pipeline(name)' in str(error), error
else: raise SystemExit('no error')
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', PIPELINES)
def test_a_gpu_sees_the_same_images(name, images):
    pipeline, some = batch_pipeline(name), torch.from_numpy(images[:64])
    there, here = pipeline(some.cuda(), step_generator(0, 0, 0)).cpu(), pipeline(some, step_generator(0, 0, 0))
    levels = (there - here).abs()*255*torch.tensor(STD).view(3, 1, 1)
    assert levels.max() < 2.1 and levels.mean() < 0.01
