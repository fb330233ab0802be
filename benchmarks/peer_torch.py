"""The same training in well-tuned PyTorch, for `benchmarks.run` to compare ours with.

The networks compute the same functions as those of rethink_gen/models and have the same
parameters; SGD takes the same steps as rethink_gen/train/sgd.py on the stored images, which
are preprocessed on the device. tests/test_benchmarks.py checks this. Well-tuned means: the
whole data set on the device with batches gathered from it, channels last, fused SGD,
cuDNN's autotuner, all cores; eager and with `torch.compile`, of which `benchmarks.run`
takes the faster. bfloat16 is autocast, which leaves the weights in float32, as in ours;
float32 means float32 products (no TF32), as in ours. Regularization is left out.
"""

import itertools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rethink_gen.data import preprocess
from rethink_gen.models import inception

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
KINDS = ('eager', 'compiled')
torch.set_num_threads(len(os.sched_getaffinity(0)))
torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = False  # the default for matrix products


class Training(NamedTuple):
  """A network in training.

  Attributes:
    network: the nn.Module.
    losses: float32 (steps per epoch,), one for each step of the current epoch.
    train: train(order) takes a step on each whole batch of the examples int64 (n,).
    turn: turn(steps=None) takes that many steps, or an epoch, in a new random order of the
      examples, and returns the seconds; the first compiles.
    accuracy: accuracy() is that on the training split, a fraction.
  """

  network: nn.Module
  losses: torch.Tensor
  train: Callable
  turn: Callable
  accuracy: Callable


def MLP(features, num_classes, depth, width):
  """(n, h, w, c) -> (n, num_classes), like models.mlp; features is h * w * c."""
  sizes = [features, *depth * [width]]
  layers = [nn.Flatten()]
  for size in itertools.pairwise(sizes):
    layers += [nn.Linear(*size), nn.ReLU()]
  return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


class AlexNet(nn.Module):
  """(n, h, w, c) -> (n, num_classes), like models.alexnet, for 28 x 28 pixels."""

  def __init__(self, channels, num_classes):
    super().__init__()
    self.convs = nn.ModuleList(nn.Conv2d(c, 64, 5, padding=2) for c in (channels, 64))
    sizes = (7 * 7 * 64, 384, 192)
    self.hidden = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
    self.last = nn.Linear(sizes[-1], num_classes)

  def forward(self, x):
    x = x.permute(0, 3, 1, 2)
    for conv in self.convs:
      x = local_response_normalization(max_pool(F.relu(conv(x))))
    x = x.permute(0, 2, 3, 1).flatten(1)
    for linear in self.hidden:
      x = F.relu(linear(x))
    return self.last(x)


def max_pool(x):
  """Like layers.max_pool with padding SAME, for even sides: padded at the far end."""
  return F.max_pool2d(x, 3, 2, ceil_mode=True)


def local_response_normalization(x):
  """Like layers.local_response_normalization, on (n, c, h, w).

  A 1x1 convolution with a band matrix, which is six times as fast on a CPU as PyTorch's own
  `local_response_norm`, eager and compiled.
  """
  channel = torch.arange(x.shape[1], device=x.device)
  band = ((channel[:, None] - channel).abs() <= 4).to(x.dtype)
  scale = 1 + 0.001 / 9 * F.conv2d(x * x, band[:, :, None, None])
  inverse_root = scale.rsqrt()
  return x * inverse_root * inverse_root.sqrt()


class ConvModule(nn.Module):
  """Like models.inception.ConvModule, on (n, c, h, w); stride 2 needs even sides."""

  def __init__(self, channels, features, kernel_size, stride, batch_norm):
    super().__init__()
    same = kernel_size // 2 if stride == 1 else 0
    self.far_end = (0, 1, 0, 1) if stride == 2 else None
    self.conv = nn.Conv2d(
      channels, features, kernel_size, stride, same, bias=not batch_norm
    )
    self.norm = nn.BatchNorm2d(features, eps=1e-3, momentum=0.1) if batch_norm else None
    if batch_norm:
      self.norm.weight.requires_grad = False  # an offset but no scale

  def forward(self, x):
    x = self.conv(x if self.far_end is None else F.pad(x, self.far_end))
    return F.relu(x if self.norm is None else self.norm(x))


class Inception(nn.Module):
  """(n, h, w, c) -> (n, num_classes), like models.inception."""

  def __init__(self, channels, num_classes, batch_norm):
    super().__init__()
    self.convs = nn.ModuleList([ConvModule(channels, 96, 3, 1, batch_norm)])
    channels = 96
    for module in inception.parse_modules(inception.MODULES):
      if len(module) == 2:
        for features, kernel_size in zip(module, (1, 3), strict=True):
          self.convs.append(ConvModule(channels, features, kernel_size, 1, batch_norm))
        channels = sum(module)
      else:
        self.convs.append(ConvModule(channels, *module, 3, 2, batch_norm))
        channels += module[0]
    self.last = nn.Linear(channels, num_classes)

  def forward(self, x):
    convs = iter(self.convs)
    x = next(convs)(x.permute(0, 3, 1, 2))
    for module in inception.parse_modules(inception.MODULES):
      if len(module) == 2:
        branches = next(convs)(x), next(convs)(x)
      else:
        branches = next(convs)(x), max_pool(x)
      x = torch.cat(branches, 1)
    return self.last(x.mean((2, 3)))


def create(model_config, image_shape, num_classes):
  """The nn.Module of `config.model`, on the device: (n, *image_shape) -> logits.

  Kernels start Glorot-uniform and biases at zero, like ours by default.
  """
  height, width, channels = image_shape
  if model_config.name == 'mlp':
    network = MLP(
      height * width * channels,
      num_classes,
      1 if model_config.depth is None else model_config.depth,
      model_config.width or 512,
    )
  elif model_config.name == 'alexnet':
    network = AlexNet(channels, num_classes)
  else:
    network = Inception(channels, num_classes, model_config.batch_norm is not False)
  for layer in network.modules():
    if isinstance(layer, nn.Conv2d | nn.Linear):
      nn.init.xavier_uniform_(layer.weight)
      if layer.bias is not None:
        nn.init.zeros_(layer.bias)
  return network.to(DEVICE, memory_format=torch.channels_last)


def prepare(images, crop_shape):
  """preprocess.preprocess in evaluation: uint8 (n, h, w, c) -> float32 (n, *crop, c)."""
  top, left = ((n - m) // 2 for n, m in zip(images.shape[1:3], crop_shape, strict=True))
  images = images[:, top : top + crop_shape[0], left : left + crop_shape[1]].float() / 255
  axes = (1, 2, 3)
  deviation = images.std(axes, correction=0, keepdim=True)
  least = images[0].numel() ** -0.5
  return (images - images.mean(axes, keepdim=True)) / deviation.clamp(min=least)


def build(config, dataset, kind):
  """The Training of a config without regularization on a Dataset; `kind` is of KINDS."""
  height, width, channels = dataset.x_train.shape[1:]
  crop_shape = preprocess.crop_shape(height, width, config.dataset.crop_size)
  network = create(config.model, (*crop_shape, channels), dataset.num_classes)
  images = torch.tensor(dataset.x_train, device=DEVICE)
  labels = torch.tensor(dataset.y_train, dtype=torch.int64, device=DEVICE)
  optimizer = torch.optim.SGD(
    [p for p in network.parameters() if p.requires_grad],
    config.optimizer.learning_rate,
    config.optimizer.momentum,
    fused=True,
  )
  schedule = torch.optim.lr_scheduler.StepLR(
    optimizer, config.optimizer.decay_every_steps, config.optimizer.decay_factor
  )
  steps = len(labels) // config.batch_size
  losses = torch.zeros(steps, device=DEVICE)
  correct = torch.zeros(steps, dtype=torch.int64, device=DEVICE)
  mixed = torch.autocast(
    DEVICE.type, torch.bfloat16, enabled=config.precision == 'bfloat16'
  )

  def predict(images):
    with mixed:
      return network(prepare(images, crop_shape)).float()

  def forward(images, labels):
    logits = predict(images)
    return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

  if kind == 'compiled':  # on a GPU with CUDA graphs, because the networks are small
    mode = 'reduce-overhead' if DEVICE.type == 'cuda' else None
    forward = torch.compile(forward, mode=mode)

  def train(order):
    network.train()
    for step, chosen in enumerate(order.split(config.batch_size)[:steps]):
      loss, right = forward(images.index_select(0, chosen), labels.index_select(0, chosen))
      loss.backward()
      optimizer.step()
      optimizer.zero_grad()
      schedule.step()
      losses[step], correct[step] = loss.detach(), right

  @torch.no_grad()
  def accuracy():
    network.eval()
    right = sum(
      (predict(some).argmax(1) == of_them).sum()
      for some, of_them in zip(images.split(1_000), labels.split(1_000), strict=True)
    )
    return int(right) / len(labels)

  def turn(count=None):
    started = time.perf_counter()
    order = torch.randperm(len(labels), device=DEVICE)
    train(order[: (count or steps) * config.batch_size])
    float(losses[0])  # waits for the device
    return time.perf_counter() - started

  return Training(network, losses, train, turn, accuracy)


def fit(config, dataset):
  """(seconds, steps) until training accuracy reaches config.stop_at_train_accuracy.

  Steps are eager: compiling them would not pay off.
  """
  started = time.perf_counter()
  training = build(config, dataset, 'eager')
  steps = 0
  while training.accuracy() < config.stop_at_train_accuracy:
    training.turn()
    steps += len(training.losses)
  return time.perf_counter() - started, steps


def ceiling(precision):
  """(operations per second, bytes per second) of a large product and a large copy.

  The best of five, of the same sizes as in estimate.accelerators.measure_machine.
  """
  on_cpu = DEVICE.type == 'cpu'
  side = 2048 if on_cpu else 8192
  matrix = torch.ones(side, side, dtype=getattr(torch, precision), device=DEVICE)
  numbers = torch.ones(2**26 if on_cpu else 2**28, device=DEVICE)

  def seconds(function):
    started = time.perf_counter()
    result = function()
    float(result.flatten()[0])  # waits for the device
    return time.perf_counter() - started

  products, copies = (
    [seconds(function) for _ in range(6)]
    for function in (lambda: matrix @ matrix, numbers.neg_)
  )
  return 2 * side**3 / min(products), 2 * numbers.nbytes / min(copies)
