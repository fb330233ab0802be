r"""Downloads a TFDS data set and prepares it for this project, once.

  python -m rethink_gen.data.prepare --dataset=cifar10 [--data_dir=DIR]

writes DIR/cifar10/VERSION in the array_record format, which can be read without
TensorFlow. DIR defaults to $TFDS_DATA_DIR, else ~/tensorflow_datasets. Preparing
needs TensorFlow: pip install 'rethink_gen[prepare]'.

On a machine without internet access, give the files that TFDS would download,
separated by commas:

  python -m rethink_gen.data.prepare --dataset=cifar10 \
      --from_archive=cifar-10-binary.tar.gz

They must be the original files: TFDS knows their sha256, and any other file is refused.

--dataset=generated_images needs neither a download nor TensorFlow: it draws 1,000 small
JPEGs of colored shapes, for trying out streaming.
"""

from rethink_gen import interrupt

if __name__ == '__main__':
  interrupt.leave_at_once()  # before the slow imports

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import re
import signal
import sys
import tempfile

from absl import flags, logging

from rethink_gen import errors, output, paths
from rethink_gen.data import synthetic, tfds_folders

DATASET = flags.DEFINE_string('dataset', None, 'The TFDS data set, such as cifar10.')
DATA_DIR = flags.DEFINE_string('data_dir', None, 'The folder of the TFDS data sets.')
FROM_ARCHIVE = flags.DEFINE_list(
  'from_archive', [], 'Local files to use in place of the download.'
)


def main(argv: list[str]) -> None:
  """Prepares the data set named by the flags; a user error exits with status 2."""
  logging.set_verbosity(logging.WARNING)  # TFDS shows progress without the log
  for number in (signal.SIGINT, signal.SIGTERM):  # clean up on the way out
    signal.signal(number, lambda number, _: sys.exit(128 + number))
  try:
    if len(argv) > 1 or not DATASET.value:
      raise errors.BadInput('give the data set as --dataset=NAME, and only flags')
    data_dir = tfds_folders.root(DATA_DIR.value)
    archives = [paths.local(archive) for archive in FROM_ARCHIVE.value]
    print(prepare(DATASET.value, data_dir, archives))
  except errors.BadInput as error:
    output.say(f'prepare: {error}')
    sys.exit(2)


def prepare(name: str, data_dir: pathlib.Path, archives: list[str]) -> str:
  """Prepares a TFDS data set and returns a sentence that says where it is.

  Args:
    name: a TFDS data set, with its config if it has several.
    data_dir: the folder of the TFDS data sets.
    archives: local files to use instead of downloading, or none.

  Raises:
    errors.BadInput: the data set is unknown, an archive is not an original file, or
      TensorFlow, the network or disk space is missing.
  """
  if name in ('digits', 'npz'):
    return f'{name} needs no preparation'
  if folder := tfds_folders.find_prepared(name, data_dir):
    tfds_folders.check_format(folder)
    return f'{name} is already prepared in {folder}'
  if not re.fullmatch(tfds_folders.NAME, name):
    raise tfds_folders.unknown(name)
  import requests
  import tensorflow_datasets as tfds

  try:
    if name == synthetic.NAME:
      return f'{name} is prepared in {synthetic.generate(data_dir)}'
    dataset, _, config = name.partition('/')
    builder = tfds.builder_cls(dataset)
    configs = builder.builder_configs
    if config and config not in configs:
      raise errors.BadInput(
        f'{dataset} has no config {config!r}: it has {", ".join(configs) or "none"}'
      )
    originals = _original_names(builder, archives)
    if not importlib.util.find_spec('tensorflow'):
      raise errors.BadInput(
        'preparing a TFDS data set needs TensorFlow, which is not installed: run '
        "pip install 'rethink_gen[prepare]' (from a clone, pip install -e '.[prepare]')"
      )
    builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
    folder = pathlib.Path(builder.data_path)
    if folder.exists():  # TFDS would use it as is
      raise errors.BadInput(
        f'{folder} exists but is not a prepared data set: delete it, then try again'
      )
    _download_and_prepare(builder, data_dir, originals)
  except errors.BadInput:
    raise
  except tfds.core.DatasetNotFoundError:
    raise tfds_folders.unknown(name) from None
  except requests.RequestException as error:
    raise errors.BadInput(
      f'{name} could not be downloaded ({type(error).__name__}): connect to the '
      'internet, or give the files as --from_archive=FILE'
    ) from None
  except Exception as error:  # anything else that stops TFDS, such as a full disk
    raise errors.BadInput(
      f'{name} could not be prepared in {data_dir} ({errors.reason(error)}): nothing '
      'was kept, so fix this and try again'
    ) from None
  return f'{folder.parent.relative_to(data_dir)} is prepared in {folder}'


def _original_names(builder, archives: list[str]) -> dict[str, str]:
  """{name under which TFDS looks for the file: archive}, for each archive."""
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not archives:
    raise errors.BadInput(
      f'{builder.name} cannot be downloaded automatically: get its files as described at '
      f'https://www.tensorflow.org/datasets/catalog/{builder.name} and give them as '
      '--from_archive=FILE,FILE'
    )
  return {_original_name(builder, archive): archive for archive in archives}


def _download_and_prepare(builder, data_dir: pathlib.Path, originals: dict) -> None:
  """Runs the builder, with its downloads in a temporary folder."""
  import tensorflow_datasets as tfds

  data_dir.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=data_dir, prefix='.download-') as scratch:
    # TFDS uses a file found here under the expected name instead of downloading it.
    manual = pathlib.Path(scratch, 'manual')
    manual.mkdir()
    for name, archive in originals.items():
      (manual / name).symlink_to(os.path.abspath(archive))
    try:
      builder.download_and_prepare(
        download_dir=scratch,
        download_config=tfds.download.DownloadConfig(
          manual_dir=manual, try_download_gcs=False
        ),
      )
    finally:
      with contextlib.suppress(OSError):  # empty after a failure; otherwise it stays
        os.rmdir(builder.data_path.parent)


def _original_name(builder, archive: str) -> str:
  """The name under which TFDS looks for a file; raises errors.BadInput if it does not.

  TFDS has checksums for the files that it downloads itself, but not for those that it
  asks the user to get, such as ImageNet's.
  """
  try:
    with open(archive, 'rb') as file:
      if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return os.path.basename(archive)
      digest = hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise errors.BadInput(
      f'{archive} cannot be read ({error.strerror}): give the file that TFDS would download'
    ) from None
  originals = {info.checksum: info.filename for info in (builder.url_infos or {}).values()}
  if digest not in originals:
    expected = ', '.join(f'{name} {sha256}' for sha256, name in originals.items())
    raise errors.BadInput(
      f'{archive} is not an original file of {builder.name}: its sha256 is {digest} '
      f'and TFDS expects {expected or "no file"}'
    )
  return originals[digest]


def parse(argv: list[str]) -> list[str]:
  """Parses absl flags; an error prints one sentence and exits with status 2."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    output.say(f'prepare: {error}; --help lists the flags')
    sys.exit(2)


if __name__ == '__main__':
  output.run(main, parse)
