"""What a run would cost, against closed forms, XLA's own memory, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import alexnet, inception, mlp_3x512
from rethink_gen import config as config_lib
from rethink_gen import text
from rethink_gen.data import sources, synthetic, tfds_folders
from rethink_gen.errors import BadInput
from rethink_gen.estimate import __main__, accelerators, counting, roofline
from rethink_gen.ops import conv

# peak in bfloat16 and float32, memory, bandwidth, link, group, network; nothing is real.
MACHINE = accelerators.Accelerator(2e12, 1e12, 1e9, 1e11, 1e10, 8, 1e9)


def count(config, **changes):
  config.update_from_flattened_dict(changes)
  return counting.count(config, counting.describe_data(config))


def in_bounds(size, kernel, stride):
  """Pairs of an output and a place of the kernel that is on the input, along one side."""
  out = -(-size // stride)
  low = max((out - 1) * stride + kernel - size, 0) // 2
  places = (i * stride + j - low for i in range(out) for j in range(kernel))
  return sum(0 <= place < size for place in places)


def convolution(size, kernel, stride, inputs, outputs):
  """Operations forward on one image, less products with padding."""
  return 2 * in_bounds(size, kernel, stride) ** 2 * inputs * outputs


def test_operations_of_an_mlp_are_those_of_its_products():
  """Forward 2 an example and weight, as many for each gradient; the input needs none."""
  cost = count(mlp_3x512.get_config()).step(128)
  first, others = 28 * 28 * 3 * 512, 512 * 512 * 2 + 512 * 10
  products = 128 * (4 * first + 6 * others)
  assert products < cost.flops < 1.04 * products
  # Weights: forward, for the gradient of the input, and as the result of their own; then
  # read with the momentum and both written. Activations: each layer's in and out, likewise.
  weights = 3 * (first + others) - first
  biases = 512 * 3 + 10
  update = 4 * (first + others + biases)
  activations = 2 * (28 * 28 * 3 + 512) + 3 * (512 + 512) * 2 + 3 * (512 + 10)
  assert cost.bytes == pytest.approx(4 * (weights + update + 128 * activations), rel=1e-6)


def test_operations_of_alexnet_are_those_of_its_layers():
  cost = count(alexnet.get_config()).step(128)
  first = convolution(28, 5, 1, 3, 64)
  second = convolution(14, 5, 1, 64, 64)
  dense = 2 * (7 * 7 * 64 * 384 + 384 * 192 + 192 * 10)
  bands = 2 * (14**2 + 7**2) * 64**2  # of local response normalization, not trained
  products = 128 * (2 * first + 3 * (second + dense) + 2 * bands)
  assert products < cost.flops < 1.03 * products


@pytest.mark.slow
def test_operations_of_inception_are_those_of_its_layers():
  """Neither padding nor the dilations of the backward pass may be counted."""
  first = convolution(28, 3, 1, 3, 96)
  others, size, channels = 0, 28, 96
  for module in (
    *((32, 32), (32, 48), 80),
    *((112, 48), (96, 64), (80, 80), (48, 96), 96),
    *((176, 160), (176, 160)),
  ):
    if isinstance(module, int):
      others += convolution(size, 3, 2, channels, module)
      size, channels = size // 2, channels + module
    else:
      others += convolution(size, 1, 1, channels, module[0])
      others += convolution(size, 3, 1, channels, module[1])
      channels = sum(module)
  others += 2 * channels * 10
  products = 2 * first + 3 * others
  run = count(inception.get_config())
  assert 128 * products < run.step(128).flops < 1.03 * 128 * products
  forward = first + others
  assert 1000 * forward < run.evaluation(1000).flops < 1.03 * 1000 * forward


@pytest.mark.parametrize(('module', 'most'), [(mlp_3x512, 1.3), (alexnet, 1.8)])
def test_memory_is_about_what_xla_allots(module, most):
  """On a CPU, in float32; the images on the device come to it."""
  config = module.get_config()
  dataset = counting.describe_data(config)
  step, _, state, key = counting.make_functions(config, dataset)
  batch = (
    jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.uint8),
    jax.ShapeDtypeStruct((128,), jnp.int32),
  )
  with conv.whole():
    compiled = jax.jit(step, donate_argnums=0).lower(state, *batch, key).compile()
  found = compiled.memory_analysis()
  run = counting.count(config, dataset)
  allotted = found.temp_size_in_bytes + found.argument_size_in_bytes
  # XLA fuses, and more with each version: for AlexNet we count 1.16 times what it allots
  # with jax 0.10, 1.64 times with jax 0.12.
  assert 0.7 * allotted < run.step(128).memory < most * allotted
  images = 60_000 * 32 * 32 * 3
  assert roofline.memory(run, 1) == run.step(128).memory + images


def test_a_share_of_the_batch_costs_what_the_step_on_that_batch_costs():
  run = count(alexnet.get_config())
  small = count(alexnet.get_config(), batch_size=8).step(8)
  part = run.step(128 / 16)
  np.testing.assert_allclose(part[:3], small[:3], rtol=1e-3)
  assert part.memory == pytest.approx(small.memory, rel=0.1)


@pytest.mark.slow
def test_streaming_needs_no_data_and_half_the_precision_half_the_bytes():
  changes = {
    'dataset.name': 'imagenet2012',
    'dataset.streaming': True,
    'dataset.crop_size': 64,
    'batch_size': 16,
  }
  precise = count(inception.get_config(), **changes)
  assert (precise.dataset.num_train, precise.dataset.num_test) == (1_281_167, 50_000)
  assert precise.steps_per_epoch == 1_281_167 // 16
  assert precise.state.params['Dense_0']['bias'].shape == (1000,)
  assert roofline.memory(precise, 1) == precise.step(16).memory  # no image stays
  rough = count(inception.get_config(), **changes, precision='bfloat16')
  products = [  # each example's: less what the parameters' update adds
    run.step(16).bytes - run.step(8).bytes for run in (precise, rough)
  ]
  assert products[0] / products[1] == pytest.approx(2, rel=0.02)
  assert rough.step(16).flops == pytest.approx(precise.step(16).flops, rel=0.01)


@pytest.mark.slow
def test_statistics_of_a_device_alone_need_no_all_reduce_of_their_own():
  whole = count(inception.get_config())
  alone = count(inception.get_config(), **{'model.batch_norm_per_device': True})
  layers = 20 - 1  # convolutions, each with its batch normalization
  assert alone.step(128) == whole.step(128)
  spared = roofline.step_seconds(whole, MACHINE, 8) - roofline.step_seconds(
    alone, MACHINE, 8
  )
  assert spared == pytest.approx(2 * layers * 2 * 3 * roofline.HOP)


def test_all_reduce_sends_what_a_ring_sends():
  hops = 2 * 3 * roofline.HOP
  seconds = roofline.all_reduce_seconds(MACHINE, 8, 4e6)
  assert seconds == pytest.approx(2 * 7 / 8 * 4e6 / 1e10 + hops)
  assert roofline.all_reduce_seconds(MACHINE, 1, 4e6) == 0
  # Beyond the group of eight each device sums its eighth over the groups.
  hops = 2 * 5 * roofline.HOP
  seconds = roofline.all_reduce_seconds(MACHINE, 32, 4e6)
  network = 2 * 3 / 4 * 4e6 / 8 / 1e9
  assert seconds == pytest.approx(2 * 7 / 8 * 4e6 / 1e10 + network + hops)


def test_time_is_that_of_the_slower_of_arithmetic_and_memory():
  run = count(mlp_3x512.get_config())
  cost = counting.Cost(flops=3e12, bytes=2e11, unfused=0, memory=0)
  assert roofline.compute_seconds(run, MACHINE, cost) == 3
  assert roofline.compute_seconds(run, MACHINE._replace(float32=3e12), cost) == 2


def test_a_run_is_its_steps_and_evaluations():
  changes = {'num_epochs': 7, 'eval_every': 3}  # evaluates after 3, 6 and 7
  run = count(mlp_3x512.get_config(), **changes)
  evaluation = roofline.compute_seconds(run, MACHINE, run.evaluation(60_000 / 8))
  expected = 7 * 390 * roofline.step_seconds(run, MACHINE, 8) + 3 * evaluation
  assert roofline.run_seconds(run, MACHINE, 8) == pytest.approx(expected)
  hours = 8 * expected / 3600
  lines = roofline.cell(run, MACHINE, 8, price=1e6).splitlines()
  assert lines == [roofline.say(expected), f'{hours:,.3g}', f'{hours * 1e6:,.2f}']


def test_what_cannot_be_is_said():
  run = count(mlp_3x512.get_config())
  small = MACHINE._replace(memory=roofline.memory(run, 8))
  assert roofline.cell(run, small, 1) == 'does not\nfit'
  assert 'fit' not in roofline.cell(run, small, 8)
  assert roofline.cell(run, MACHINE, 256) == '-'  # 128 examples
  assert any(
    '256 and 1,024 are more devices' in line for line in __main__.explain(run, 1, 0)
  )


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    (0.0105, '10.5 ms'),
    (3.14159, '3.14 s'),
    (600, '10 min'),
    (7200, '2 h'),
    (4e7, '11,111 h'),
  ],
)
def test_times_are_said_in_one_unit(seconds, words):
  assert roofline.say(seconds) == words


@pytest.mark.parametrize(
  ('number', 'words'),
  [
    *((0, '0 B'), (999, '999 B'), (999.9, '1 kB'), (1e15, '1 PB')),
    *((3.398e13, '34 TB'), (1.2098e9, '1.21 GB')),
  ],
)
def test_large_numbers_are_said_in_a_fitting_unit(number, words):
  assert text.format_quantity(number, 'B') == words


def test_sizes_of_a_prepared_data_set_and_of_a_file_are_found(tmp_path):
  config = config_lib.default()
  synthetic.generate(tmp_path, 30, 10, (24, 48))
  config.dataset.name = 'generated_images'
  config.dataset.data_dir = str(tmp_path)
  config.dataset.streaming = True
  config.dataset.crop_size = 24
  found = counting.describe_data(config)
  assert (found.num_train, found.num_test, found.num_classes) == (30, 10, 10)
  assert found.x_train.shape == (30, 24, 24, 3)
  config.dataset.streaming = False
  with pytest.raises(BadInput, match='vary in size, so they can only be streamed'):
    counting.describe_data(config)
  images, labels = np.zeros((6, 8, 9), np.uint8), np.array([0, 1, 2, 0, 1, 2])
  path = str(tmp_path / 'mine.npz')
  np.savez(path, x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4])
  config.dataset.name, config.dataset.path = 'npz', path
  config.dataset.num_train = 5
  found = counting.describe_data(config)
  assert (found.x_train.shape, found.num_test, found.num_classes) == ((5, 8, 9, 1), 4, 3)


def test_published_sizes_are_those_of_the_data():
  real = sources.load('digits')
  told = counting.describe_data(config_lib.default())
  assert [array.shape for array in told[:4]] == [array.shape for array in real[:4]]
  assert told.num_classes == real.num_classes


@pytest.mark.parametrize('name', ['cifar10', 'cifar100', 'mnist', 'fashion_mnist'])
def test_published_sizes_are_those_that_tfds_found(name):
  if not tfds_folders.find_prepared(name, tfds_folders.root()):
    pytest.skip(f'needs {name}: set TFDS_DATA_DIR to a folder that holds it')
  assert counting.find_sizes(name, None) == sources.SIZES[name]


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'dataset.name': 'nothing_of_the_kind'}, "'nothing_of_the_kind' is unknown"),
    ({'dataset.name': 'imagenet2012'}, 'can only be streamed; set'),
    ({'dataset.num_train': 50_001}, 'num_train is 50001, but cifar10 has 50000'),
    ({'dataset.num_train': 100}, 'but there are only 100 training examples'),
    ({'dataset.crop_size': 33}, 'larger than the images of 32 x 32'),
  ],
)
def test_what_cannot_be_estimated_is_refused(changes, words):
  config = inception.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(BadInput, match='(?s)^[^\n]*$') as refusal:
    __main__.report(config, 0.5, None)
  assert words in str(refusal.value)


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (('--config=configs/alexnet.py', '--price=-1'), '--price=-1'),
    (('--config=configs/alexnet.py', '--price=nan'), '--price=nan: it must be a finite'),
    (('--config=configs/alexnet.py', '--price=inf'), '--price=inf: it must be a finite'),
    (('--config=configs/alexnet.py', '--share_of_peak=nan'), '--share_of_peak=nan: it'),
    (('--config=configs/alexnet.py', '--config.batch_size=100'), 'multiple of the 8'),
  ],
)
def test_a_command_line_that_makes_no_sense_is_refused(start, arguments, words):
  process = start('rethink_gen.estimate', *arguments, devices=8)
  stdout, stderr = process.communicate()
  assert (process.returncode, stdout) == (2, '')
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1
  assert words in stderr


def test_the_command_prints_a_table_of_all_accelerators(start):
  arguments = ('--config=configs/quickstart.py', '--price=2.5', '--config.batch_size=64')
  process = start('rethink_gen.estimate', *arguments, devices=8)
  stdout, stderr = process.communicate()
  assert (process.returncode, stderr) == (0, '')
  for name in ('this machine', *accelerators.ACCELERATORS):
    assert f' {name} ' in stdout
  assert 'mlp on digits, float32: ' in stdout
  assert 'cost at 2.5 each' in ' '.join(stdout.split())
  assert '0.5 of the peak' in ' '.join(stdout.split())
