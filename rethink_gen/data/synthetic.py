"""A synthetic TFDS data set of colored shapes: JPEGs of many sizes, like ImageNet's.

For tests, benchmarks and smoke runs of streaming: nothing is downloaded, and TensorFlow
is not needed.
"""

import io
import pathlib
import tempfile

import numpy as np
from PIL import Image, ImageDraw

NAME = 'generated_images'  # name of the TFDS data set
SHAPES = ('disc', 'square', 'triangle', 'cross', 'ring')
COLORS = {'red': (200, 60, 40), 'blue': (40, 80, 210)}
LABELS = [f'{color} {shape}' for color in COLORS for shape in SHAPES]


def generate(
  data_dir: pathlib.Path,
  num_train: int = 1000,
  num_test: int = 200,
  sides: tuple[int, int] = (64, 160),
) -> pathlib.Path:
  """Writes DATA_DIR/generated_images/1.0.0 and returns it; an existing copy is kept.

  The splits train and test have ten balanced classes: five shapes in two colors, at random
  positions and sizes, on noise.

  Args:
    data_dir: the folder of the TFDS data sets.
    num_train, num_test: numbers of examples.
    sides: the smallest and the largest side of an image, in pixels.
  """
  import tensorflow_datasets as tfds

  class GeneratedImages(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
  ):
    name = NAME
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent  # required; there is no metadata

    def _info(self):
      features = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(names=LABELS),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      counts = {'train': num_train, 'test': num_test}
      return {split: self._generate_examples(split, n) for split, n in counts.items()}

    def _generate_examples(self, split, count):
      for i in range(count):
        random = np.random.default_rng([split == 'test', i])
        label = i % len(LABELS)
        encoded = io.BytesIO()
        draw(label, random, sides).save(encoded, 'jpeg', quality=90)
        yield i, {'image': encoded.getvalue(), 'label': label}

  builder = GeneratedImages(data_dir=data_dir, file_format='array_record')
  folder = pathlib.Path(builder.data_path)
  with tempfile.TemporaryDirectory() as scratch:  # TFDS wants one and leaves it empty
    try:
      builder.download_and_prepare(download_dir=scratch)
    except OSError:
      if not folder.exists():  # it does if another process was faster
        raise
  return folder


def draw(label: int, random: np.random.Generator, sides: tuple[int, int]) -> Image.Image:
  """An RGB image of class `label`: one shape, 1/4 to 1/2 as wide as the shorter side."""
  width, height = random.integers(*sides, 2, endpoint=True)
  noise = random.normal(random.uniform(90, 160, 3), 15, (height, width, 3))
  image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
  side = random.uniform(0.25, 0.5) * min(width, height)
  x, y = random.uniform(0, width - side), random.uniform(0, height - side)
  box = (x, y, x + side, y + side)
  name, shape = LABELS[label].split()
  color = COLORS[name]
  pen = ImageDraw.Draw(image)
  if shape == 'disc':
    pen.ellipse(box, color)
  elif shape == 'square':
    pen.rectangle(box, color)
  elif shape == 'triangle':
    pen.polygon([(x, y + side), (x + side / 2, y), (x + side, y + side)], color)
  elif shape == 'cross':
    pen.rectangle((x + side / 3, y, x + side * 2 / 3, y + side), color)
    pen.rectangle((x, y + side / 3, x + side, y + side * 2 / 3), color)
  else:
    pen.ellipse(box, None, color, width=round(side / 5))
  return image
