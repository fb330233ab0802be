"""Measures how fast streamed images are decoded, compared with what an accelerator needs.

  python -m benchmarks.streaming [--json=streaming.json]

JPEGs of ImageNet's size, colored shapes on noise, are generated in a temporary folder and
streamed as in training, at 299 x 299 pixels, by threads of this process (workers 0) and by
worker processes; nothing is trained. The images per second are compared with what Inception
V3 would need to keep an accelerator busy, in bfloat16, at --share_of_peak of its peak. A
benchmark, not a test: it prints, and asserts nothing. Takes three minutes on two CPU cores.
"""

import itertools
import json
import os
import pathlib
import statistics
import tempfile
import time

from absl import flags

from configs import imagenet_inception_v3
from rethink_gen import cli
from rethink_gen import config as config_lib
from rethink_gen.data import streaming, synthetic
from rethink_gen.estimate import accelerators, counting

IMAGES, SIDES = 512, (375, 500)  # of the data set; the mean of ImageNet is about 500 x 375
BATCH, WARM_UP, TIMED = 32, 4, 16  # examples per batch; batches per turn
WORKERS = (0, 1, 2)

JSON = cli.define_path('json', None, 'A JSON file for the same numbers.')
SHARE_OF_PEAK = flags.DEFINE_float(
  'share_of_peak', 0.5, "The share of an accelerator's peak that it is kept busy at."
)
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Number of turns for each.')


def main(_):
  cli.setup()
  speeds = {turn: [] for turn in itertools.product((False, True), WORKERS)}
  with tempfile.TemporaryDirectory() as data_dir:
    folder = synthetic.generate(pathlib.Path(data_dir), IMAGES, 1, SIDES)
    size = sum(path.stat().st_size for path in folder.glob('*train*')) / IMAGES
    for _ in range(ROUNDS.value):  # in turns, so that changes of machine speed affect all
      for turn, measured in speeds.items():
        measured.append(images_per_second(data_dir, *turn))
  share, operations = SHARE_OF_PEAK.value, operations_per_image()
  needed = {
    name: share * machine.bfloat16 / operations
    for name, machine in accelerators.ACCELERATORS.items()
  }
  rows = [
    {
      'distortions': distorted,
      'workers': workers,
      'images_per_second': statistics.median(measured),
      'least': min(measured),
      'most': max(measured),
    }
    for (distorted, workers), measured in speeds.items()
  ]
  print(f'{os.cpu_count()} cores, JPEGs of {size / 1e3:.0f} kB on average')
  print('distortions  workers  images/s   (min to max)')
  for row in rows:
    print(
      f'{"on" if row["distortions"] else "off":11}  {row["workers"]:7}  '
      f'{row["images_per_second"]:8.0f}   ({row["least"]:.0f} to {row["most"]:.0f})'
    )
  fastest = max(row['images_per_second'] for row in rows if row['distortions'])
  print(f'\nTo train Inception V3 at {share:g} of peak; fastest with distortions:')
  for name, rate in needed.items():
    print(f'{name:8} {rate:7,.0f} images/s  {fastest / rate:8.2%}')
  if JSON.value:
    result = {
      'cores': os.cpu_count(),
      'bytes_per_image': size,
      'rows': rows,
      'share_of_peak': share,
      'needed_images_per_second': needed,
    }
    pathlib.Path(JSON.value).write_text(json.dumps(result, indent=2) + '\n')


def operations_per_image():
  """Floating-point operations to train Inception V3 on one image."""
  config = imagenet_inception_v3.get_config()
  run = counting.count(config, counting.describe_data(config))
  return run.step(config.batch_size).flops / config.batch_size


def images_per_second(data_dir, distorted, workers):
  """Images per second after warm-up, taking batches as fast as possible."""
  config = config_lib.default()
  config.dataset.name = synthetic.NAME
  config.dataset.data_dir = data_dir
  config.dataset.streaming = True
  config.dataset.crop_size = 299
  config.dataset.workers = workers
  config.batch_size = BATCH
  for field in ('random_crop', 'random_flip', 'color_jitter'):
    config.regularization[field] = distorted
  batches = streaming.train_batches(streaming.open(config), config, 0, 0, 1)
  try:
    for _ in range(WARM_UP):
      next(batches)
    started = time.perf_counter()
    for _ in range(TIMED):
      next(batches)
    return BATCH * TIMED / (time.perf_counter() - started)
  finally:
    batches.close()


if __name__ == '__main__':
  cli.run(main, cli.parse_flags)
