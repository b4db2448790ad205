"Augmentation: the batched pipelines against Albumentations, loaders with workers, resumed runs."
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from cifar_cam import augment, pixels
from cifar_cam.albumentations_twin import import_albumentations, seed_worker
from cifar_cam.augment import (
    PIPELINES,
    AugmentedImages,
    BatchPipeline,
    CoarseDropout,
    CutOut,
    HorizontalFlip,
    Normalise,
    RandomCrop,
    Resize,
    Rotate,
    albumentations_batch,
    albumentations_pipeline,
    batch_pipeline,
    evaluation_pipeline,
    find_pipeline,
    step_generator,
)
from cifar_cam.data import STD, load_sample, normalise
from cifar_cam.pixels import FILL, fill_boxes, reflect_index


@pytest.fixture(scope='module')
def images():
    return np.array(load_sample('train')[0])


@pytest.fixture(scope='module')
def x(images): return torch.from_numpy(images[25:50]).permute(0, 3, 1, 2).contiguous()


def generator(seed): return torch.Generator().manual_seed(seed)


def spread(counts):
    "Chi-square of equal chances, in standard deviations from its expected value."
    counts = counts.float()
    freedom = len(counts) - 1
    return (((counts - counts.mean())**2/counts.mean()).sum() - freedom)/(2*freedom)**0.5


@pytest.fixture(scope='module')
def drawn(images):
    "The same 4,000 draws of the full pipeline by both, on one image."
    many = np.broadcast_to(images[43], (4000, 32, 32, 3))
    theirs = albumentations_batch('layernorm-plateau', many, seed=7)[1]
    return dict(albumentations=theirs, batched=batch_pipeline('layernorm-plateau').draw(4000, generator(7)))


@pytest.mark.parametrize('name', PIPELINES)
def test_equal_draws_give_equal_images(name, images):
    some = images[:16] if name == 'mini-dropout' else images[:200]
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
    number = torch.bincount(there.sum(1), minlength=3)/4000
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


class NaiveImages(Dataset):
    "A data set that does not know in which worker it is."
    def __init__(self, images, labels, pipeline): self.images, self.labels, self.pipeline = images, labels, pipeline
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.pipeline(image=self.images[i])['image'], self.labels[i]


def loaded(images, epochs=2, workers=2, init=None, persistent=False, subset=False, name='layernorm-plateau', kind=AugmentedImages):
    data = kind(images, np.arange(len(images)), albumentations_pipeline(name, seed=0))
    if subset: data = Subset(data, range(len(images)))
    loader = DataLoader(data, batch_size=8, num_workers=workers, worker_init_fn=init, persistent_workers=persistent)
    return torch.cat([xb for _ in range(epochs) for xb, _ in loader])


def different(x): return len({image.numpy().tobytes() for image in x})


@pytest.fixture(scope='module')
def copies(images): return np.broadcast_to(images[43], (64, 32, 32, 3))


def test_a_naive_data_set_repeats_itself_and_seed_worker_cures_it(copies):
    assert different(loaded(copies, kind=NaiveImages)) == 32 # of 128: two workers and two epochs all draw the same
    assert different(loaded(copies, kind=NaiveImages, init=seed_worker, subset=True)) == 128


@pytest.mark.parametrize('workers, persistent', [(0, False), (1, False), (2, False), (2, True)])
def test_no_draw_is_repeated_in_any_worker(workers, persistent, copies):
    assert different(loaded(copies, workers=workers, persistent=persistent)) == 128


def test_without_workers_the_seed_of_the_pipeline_decides(copies):
    assert torch.equal(loaded(copies, workers=0), loaded(copies, workers=0))


def test_seed_worker_adds_nothing_to_augmented_images(copies):
    torch.manual_seed(9)
    alone = loaded(copies)
    torch.manual_seed(9)
    assert torch.equal(alone, loaded(copies, init=seed_worker))


def test_runs_are_equal_under_one_seed(copies):
    runs = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        runs.append(loaded(copies))
    assert torch.equal(runs[0], runs[1]) and different(torch.cat([runs[0], runs[2]])) == 256


def test_a_subset_may_hold_the_images(copies):
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


# One transform at a time

def test_the_reflected_border_is_that_of_torch(x):
    assert reflect_index(4, 2).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    there = dict(top=torch.full((25,), 1), left=torch.full((25,), 6))
    framed = F.pad(x.float(), (4, 4, 4, 4), mode='reflect').to(torch.uint8)
    assert torch.equal(RandomCrop(4, 'reflect').apply(x, there), framed[:, :, 1:33, 6:38])


def test_a_flip_is_where(x):
    flip = torch.arange(25) % 2 == 0
    assert torch.equal(HorizontalFlip().apply(x, dict(flip=flip)), torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x))


def test_boxes_are_painted_one_by_one(images):
    boxes = torch.tensor([[[3, 5, 16, 16], [0, 0, 0, 0]], [[30, 0, 2, 4], [1, 1, 3, 6]]])
    painted = fill_boxes(torch.from_numpy(images[:2]).permute(0, 3, 1, 2), boxes).permute(0, 2, 3, 1).numpy()
    want = images[:2].copy()
    for i, several in enumerate(boxes.tolist()):
        for top, left, height, width in several: want[i, top:top + height, left:left + width] = FILL
    assert FILL == (125, 123, 114) and np.array_equal(painted, want)


def test_a_quarter_turn_is_exact_and_counter_clockwise(x):
    assert torch.equal(Rotate(90).apply(x, dict(angle=torch.full((25,), 90.))), x.rot90(1, (2, 3)))
    assert torch.equal(Rotate(90).apply(x, dict(angle=torch.zeros(25))), x)


def test_every_share_is_kept():
    angles = Rotate(30, p=0.25).draw(4000, generator(3))['angle']
    assert angles.abs().max() <= 30 and abs((angles != 0).float().mean() - 0.25) < 0.03
    boxes = CoarseDropout((1, 4), (2, 9), p=0.7).draw(2000, generator(1))['boxes']
    shown = boxes[..., 2] > 0
    assert ((boxes[..., :2] + boxes[..., 2:]) <= 32).all() and (boxes >= 0).all()
    assert boxes[..., 2:][shown].unique().tolist() == list(range(2, 10)) and shown.sum(1).unique().tolist() == [0, 1, 2, 3, 4]
    assert abs(shown.any(1).float().mean() - 0.7) < 0.04


def test_crop_offsets_have_the_chi_square_of_even_chances_over_400_seeds():
    def chi_square(seed):
        drawn = RandomCrop(4).draw(4050, generator(seed))
        counts = torch.bincount(drawn['top']*9 + drawn['left'], minlength=81).float()
        return ((counts - 50)**2/50).sum().item()
    found = np.array([chi_square(seed) for seed in range(400)]) # mean 80 (degrees of freedom), standard deviation 12.6
    assert abs(found.mean() - 80) < 3 and abs(found.std() - 12.6) < 2


def test_evaluation_resizes_and_normalises_alone(images):
    some = torch.from_numpy(images[:8])
    torch.testing.assert_close(batch_pipeline('davidnet', evaluation=True).apply(some, {}), normalise(some), rtol=1e-5, atol=1e-6)
    assert batch_pipeline('mini-dropout', evaluation=True).apply(some[:2], {}).shape == (2, 3, 224, 224)
    half = evaluation_pipeline('torchvision-scratch').apply(some, {})
    assert (half.min(), half.max()) == (-1, 1)
    for name, steps in PIPELINES.items():
        kept = [t for t in steps if isinstance(t, (Resize, Normalise))]
        assert list(evaluation_pipeline(name).transforms) == kept and isinstance(steps[-1], Normalise)


@pytest.mark.parametrize('make, message', [
    (lambda: HorizontalFlip(40), 'p must be a finite number, at least 0 and at most 1; got 40'),
    (lambda: RandomCrop(4, 'wrap'), "border must be one of zeros, reflect; got 'wrap'"),
    (lambda: CutOut(33), 'size must lie between 1 and 32, the smaller number first; got 33'),
    (lambda: CoarseDropout(holes=(3, 1)), 'holes must lie between 1 and 64'),
    (lambda: CoarseDropout(size=(3, 40)), r'size must lie between 1 and 32.*got \(3, 40\)'),
    (lambda: BatchPipeline((CutOut(8), CutOut(16))), r"got \['cutout', 'cutout'\]"),
    (lambda: find_pipeline('layernorm-plato'), "Did you mean 'layernorm-plateau'"),
    (lambda: batch_pipeline('zzz'), 'none, crop-flip'),
    (lambda: albumentations_pipeline('fats'), "Did you mean 'fast'"),
    (lambda: step_generator(42, -1, 0), r'must be 0 or more; got \(42, -1, 0\)'),
    (lambda: seed_worker(0), 'worker_init_fn=seed_worker')])
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises((ValueError, RuntimeError), match=message): make()


def test_wrong_images_are_named(images):
    pipeline, batch = batch_pipeline('layernorm-plateau'), torch.from_numpy(images[:25])
    draws = pipeline.draw(25, generator(0))
    for wrong, message in [(batch.numpy(), r'\(B, H, W, 3\); got ndarray'), (batch.float(), '0 to 255; got torch.float32'),
                           (batch.permute(0, 3, 1, 2), r'B > 0; got \(25, 3, 32, 32\)'),
                           (batch[:4], r"draws\['crop.top'\] must have one row per image, 4; got 25")]:
        with pytest.raises((TypeError, ValueError), match=message): pipeline.apply(wrong, draws)
    with pytest.raises(ValueError, match=r'B > 0; got \(0, 32, 32, 3\)'): pipeline(batch[:0], generator(0))
    compose = albumentations_pipeline('fast')
    for parts, message in [((batch, np.zeros(25), compose), r'got torch.uint8 \(25, 32'),
                           ((images[:25], np.zeros(24), compose), 'one class per image, 25; got 24'),
                           ((images[:25], np.zeros(25), 'fast'), "pipeline; got 'fast'")]:
        with pytest.raises((TypeError, ValueError), match=message): AugmentedImages(*parts)


def test_every_step_of_a_run_has_a_generator_of_its_own():
    seeds = {step_generator(0, epoch, step).initial_seed() for epoch in range(20) for step in range(391)}
    assert len(seeds) == 20*391


@pytest.mark.parametrize('old, new', [('mirror', 'pixels.reflect_index'), ('choose', 'pixels.where_uint8'), ('turn', 'augment.rotate')])
def test_an_old_name_is_found_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f'is now cifar_cam.{new}'): found = getattr(augment, old)
    home, name = new.split('.')
    assert found is getattr(dict(augment=augment, pixels=pixels)[home], name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('name', PIPELINES)
def test_a_gpu_sees_the_same_images(name, images):
    pipeline, some = batch_pipeline(name), torch.from_numpy(images[:64])
    there, here = pipeline(some.cuda(), step_generator(0, 0, 0)).cpu(), pipeline(some, step_generator(0, 0, 0))
    levels = (there - here).abs()*255*torch.tensor(STD).view(3, 1, 1)
    assert levels.max() < 2.1 and levels.mean() < 0.01
