import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_gen import sharding
from rethink_gen.errors import BadInput
from rethink_gen.train import checkpoint, sgd


def state(step):
  """A State of which every array depends on the step."""
  bits = jax.random.bits(jax.random.key(step), (64, 8), jnp.uint8)
  return sgd.TrainState(
    step=jnp.int32(step),
    params={'Dense_0': {'kernel': jax.random.normal(jax.random.key(step), (50, 20))}},
    batch_stats={'mean': bits.astype(jnp.bfloat16)},
    opt_state=({'trace': -bits.astype(jnp.float32)}, jnp.int32(step)),
    losses=jnp.array([step, jnp.inf, jnp.nan, -0.0, 1e-45]),
    correct=jnp.full(5, step),
  )


def bits(tree):
  """All bits of a tree, so that -0.0 is not 0.0 and NaN is NaN."""
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def restored(workdir):
  with checkpoint.open_manager(workdir) as manager:
    return checkpoint.restore(manager, state(0))


@pytest.fixture(scope='module')
def two_saved(tmp_path_factory):
  """A workdir with the checkpoints of steps 10 and 20; copy it before damaging it."""
  workdir = tmp_path_factory.mktemp('run')
  with checkpoint.open_manager(workdir) as manager:
    for step in (10, 20):
      checkpoint.save(manager, state(step))
  return workdir


@pytest.fixture
def workdir(two_saved, tmp_path):
  return shutil.copytree(two_saved, tmp_path / 'run')


def data_file(step):
  """The file of the step's folder with the arrays' bytes."""
  return max(step.glob('state/**/d/*'), key=lambda path: path.stat().st_size)


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


DAMAGES = {
  'cut data': lambda step: cut(data_file(step)),
  'bit flipped in the arrays': lambda step: flip(data_file(step)),
  'bit flipped in the index': lambda step: flip(step / 'state/manifest.ocdbt'),
  'no data': lambda step: data_file(step).unlink(),
  'no manifest': lambda step: (step / 'state/manifest.ocdbt').unlink(),
  'cut manifest': lambda step: cut(step / 'state/manifest.ocdbt'),
  'no _METADATA': lambda step: (step / 'state/_METADATA').unlink(),
  'cut _METADATA': lambda step: cut(step / 'state/_METADATA'),
  'no item': lambda step: shutil.rmtree(step / 'state'),
  'no digest': lambda step: shutil.rmtree(step / 'digest'),
  'empty item': lambda step: empty(step / 'state'),
  'empty step': empty,
}


def test_a_state_comes_back_with_the_same_bits(workdir):
  assert bits(restored(workdir)) == bits(state(20))


def test_a_state_comes_back_with_the_sharding_of_the_one_given(workdir):
  everywhere = jax.sharding.NamedSharding(sharding.mesh(), jax.sharding.PartitionSpec())
  with checkpoint.open_manager(workdir) as manager:
    found = checkpoint.restore(manager, jax.device_put(state(0), everywhere))
  assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(found))


def test_without_checkpoints_the_state_stays_as_it_is(tmp_path):
  assert bits(restored(tmp_path)) == bits(state(0))


def test_only_the_newest_checkpoints_are_kept(workdir):
  with checkpoint.open_manager(workdir) as manager:
    checkpoint.save(manager, state(30))
  names = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
  assert names == ['20', '30']


def test_what_is_saved_already_is_not_saved_again(workdir):
  with checkpoint.open_manager(workdir) as manager:
    checkpoint.save(manager, state(20)._replace(correct=jnp.zeros(5, jnp.int32)))
  assert bits(restored(workdir)) == bits(state(20))


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_can_be_saved_again(
  damage, workdir, caplog, capfd
):
  DAMAGES[damage](workdir / 'checkpoints/20')
  with checkpoint.open_manager(workdir) as manager:
    assert bits(checkpoint.restore(manager, state(0))) == bits(state(10))
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert f'{workdir}/checkpoints/20 cannot be read' in warning.getMessage()
    assert '\n' not in warning.getMessage()
    assert (workdir / 'checkpoints/20.damaged').is_dir()
    checkpoint.save(manager, state(20))
  assert bits(restored(workdir)) == bits(state(20))
  assert 'Traceback' not in capfd.readouterr().err


def test_when_all_are_damaged_the_run_starts_from_the_beginning(workdir, caplog):
  for step in (10, 20):
    cut(data_file(workdir / f'checkpoints/{step}'))
  assert bits(restored(workdir)) == bits(state(0))
  assert len(caplog.records) == 2


def test_a_step_may_be_damaged_twice(workdir):
  for name in ('20.damaged', '20.damaged1'):
    empty(workdir / 'checkpoints/20')
    assert bits(restored(workdir)) == bits(state(10))
    assert (workdir / 'checkpoints' / name).is_dir()
    with checkpoint.open_manager(workdir) as manager:
      checkpoint.save(manager, state(20))
  assert bits(restored(workdir)) == bits(state(20))


def looked(workdir):
  def complete(shapes):
    return sgd.TrainState(**shapes | {'opt_state': jax.eval_shape(state, 0).opt_state})

  return checkpoint.read_newest(workdir, complete)


def contents(folder):
  return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


def test_a_state_can_be_looked_at_without_one_like_it(workdir, capfd):
  found = looked(workdir)
  assert bits(found) == bits(state(20))
  assert jax.tree.structure(found) == jax.tree.structure(state(20))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize('damage', DAMAGES)
def test_looking_passes_over_what_is_damaged_and_changes_nothing(damage, workdir, caplog):
  DAMAGES[damage](workdir / 'checkpoints/20')
  left = workdir / 'checkpoints/30.orbax-checkpoint-tmp'
  shutil.copytree(workdir / 'checkpoints/10', left)
  before = contents(workdir)
  assert bits(looked(workdir)) == bits(state(10))
  [warning] = caplog.records
  assert f'{workdir}/checkpoints/20 cannot be read' in warning.getMessage()
  assert '\n' not in warning.getMessage()
  assert contents(workdir) == before


def test_where_all_are_damaged_looking_says_so(workdir):
  for step in (10, 20):
    cut(data_file(workdir / f'checkpoints/{step}'))
  with pytest.raises(BadInput, match='(?s)^No checkpoint in [^\n]* can be read[^\n]*$'):
    looked(workdir)


def test_where_there_is_no_checkpoint_there_is_nothing_to_see(tmp_path):
  assert looked(tmp_path) is None
  (tmp_path / 'checkpoints').mkdir()
  assert looked(tmp_path) is None
  assert len(contents(tmp_path)) == 1


def test_a_checkpoint_that_the_run_takes_away_meanwhile_is_no_damage(
  workdir, caplog, monkeypatch
):
  """The run resumes, saves two and takes two away between the listing and the reading."""
  read = checkpoint._read

  def go_on(manager, step, complete):
    if step == 20 and (workdir / 'checkpoints/20').exists():
      with checkpoint.open_manager(workdir) as writer:
        for later in (30, 40):
          checkpoint.save(writer, state(later))
    return read(manager, step, complete)

  monkeypatch.setattr(checkpoint, '_read', go_on)
  assert bits(looked(workdir)) == bits(state(40))
  assert caplog.records == []


def test_what_a_killed_save_left_is_ignored_and_removed(workdir):
  left = workdir / 'checkpoints/30.orbax-checkpoint-tmp'
  shutil.copytree(workdir / 'checkpoints/20', left)
  with checkpoint.open_manager(workdir) as manager:
    assert bits(checkpoint.restore(manager, state(0))) == bits(state(20))
    checkpoint.save(manager, state(30))
  assert not left.exists()
  assert bits(restored(workdir)) == bits(state(30))


def test_a_failed_system_call_is_an_os_error(workdir):
  wrapped = "RESOURCE_EXHAUSTED: Failed writing [os_error_code='28']"
  with pytest.raises(OSError, match='No space left on device'):  # noqa: PT012
    with checkpoint.open_manager(workdir):
      raise ValueError(wrapped)


def test_any_other_error_is_left_as_it_is(workdir):
  with pytest.raises(ValueError, match='^mine$'):  # noqa: PT012
    with checkpoint.open_manager(workdir):
      raise ValueError('mine')
