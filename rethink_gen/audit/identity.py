"""A digest of what an object is: its code and its values, the same in every process.

Installed code is represented by its version and the file of its module; all other code is
followed through what it calls. Values are those that pickle would store.
"""

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import platform
import sys
import sysconfig
import types
from typing import Any, NamedTuple

import jax
import numpy as np

ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
# Class attributes that follow from the others, or that Python adds.
SKIPPED = (
  *('__dict__', '__weakref__', '__module__', '__doc__', '__annotations__', '_abc_impl'),
  *('__annotate_func__', '__annotations_cache__', '__conditional_annotations__'),
  *('__firstlineno__', '__static_attributes__', '__slotnames__', '__abstractmethods__'),
)
OF_FUNCTIONS = ('__defaults__', '__kwdefaults__', '__dict__')
OF_CODE = ('co_code', 'co_names', 'co_varnames', 'co_freevars', 'co_argcount', 'co_flags')


class Unknown(Exception):
  """The object cannot be identified; the message says why."""


class Named(NamedTuple):
  """The values of a module that code may access, given the names in that code."""

  module: types.ModuleType
  names: frozenset[str]


def digest(thing: Any) -> str:
  """The digest of an object as text, the same in every process.

  Raises:
    Unknown: if the object contains something that pickle could not store either, such as a
      lock or an open file.
  """
  try:
    return _digest(thing, {}).hex()
  except Exception as error:  # A user's __reduce__ can raise anything.
    reason = ' '.join(str(error).split())[:120]
    raise Unknown(f'{type(error).__name__}: {reason}') from error


def _digest(thing, seen):
  key = (id(thing.module), thing.names) if isinstance(thing, Named) else id(thing)
  if key in seen:
    return seen[key][1]
  seen[key] = thing, b'itself'  # keeps the object, so that its id is not reused
  kind, parts = _parts(thing)
  digests = [_digest(part, seen) for part in parts]
  if isinstance(thing, set | frozenset):
    digests.sort()
  found = hashlib.blake2b(kind.encode() + b'\0' + b''.join(digests), digest_size=16)
  seen[key] = thing, found.digest()
  return found.digest()


def _parts(thing):
  """(text, objects) that together identify the object."""
  kind = type(thing)
  name = f'{kind.__module__}.{kind.__qualname__}'
  if kind in ATOMS:
    return f'{name} {thing!r}', ()
  if kind in (list, tuple):
    return name, thing
  if kind in (dict, types.MappingProxyType):
    return name, [part for item in thing.items() for part in item]
  if isinstance(thing, set | frozenset):
    return name, list(thing)
  if isinstance(thing, jax.Array | np.ndarray | np.generic):
    return _parts_of_array(thing)
  if isinstance(thing, Named):
    return name, _values(vars(thing.module), thing.names, thing.names)
  if isinstance(thing, types.ModuleType):
    return name + _installed(thing.__name__), [getattr(thing, '__name__', '')]
  if isinstance(thing, types.CodeType):
    return name, [*(getattr(thing, field) for field in OF_CODE), thing.co_consts]
  if isinstance(thing, types.FunctionType):
    return _parts_of_function(thing)
  if isinstance(thing, type):
    return _parts_of_class(thing)
  if isinstance(thing, types.MethodType):
    return name, [thing.__func__, thing.__self__]
  if isinstance(thing, staticmethod | classmethod):
    return name, [thing.__func__]
  if isinstance(thing, property):
    return name, [thing.fget, thing.fset, thing.fdel]
  if isinstance(thing, functools.cached_property):
    return name, [thing.func]
  if isinstance(thing, types.MemberDescriptorType | types.GetSetDescriptorType):
    return f'{name} {thing.__name__}', ()
  if callable(thing) and hasattr(thing, '__wrapped__'):  # from jax.jit or functools.cache
    return name, [thing.__wrapped__]
  reduce = copyreg.dispatch_table.get(kind)
  reduced = reduce(thing) if reduce else thing.__reduce_ex__(4)
  if isinstance(reduced, str):
    return f'{name} {getattr(thing, "__module__", "")} {reduced}', ()
  function, arguments, *rest = reduced
  state, items, pairs = (*rest, None, None, None)[:3]
  return name, [function, arguments, state, list(items or ()), list(pairs or ())]


def _parts_of_array(array):
  if isinstance(array, jax.Array) and jax.dtypes.issubdtype(
    array.dtype, jax.dtypes.prng_key
  ):
    array = jax.random.key_data(array)
  array = np.asarray(array)
  text = f'array {array.dtype} {array.shape}'
  return text, [array.tolist() if array.dtype.hasobject else array.tobytes()]


def _parts_of_function(function):
  parts = [getattr(function, field) for field in OF_FUNCTIONS]
  for cell in function.__closure__ or ():
    try:
      parts.append(cell.cell_contents)
    except ValueError:  # not assigned yet
      parts.append('empty')
  installed = _installed(function.__module__)
  if installed:
    return f'{function.__module__}.{function.__qualname__}{installed}', parts
  asked, imported, names = _names(function.__code__)
  parts += [function.__code__, *_values(function.__globals__, asked, names)]
  package = function.__globals__.get('__package__')
  for module in filter(None, (_imported(*each, package) for each in imported)):
    parts.append(Named(module, names))
  return 'function', parts


def _parts_of_class(kind):
  installed = _installed(kind.__module__)
  if installed:
    return f'{kind.__module__}.{kind.__qualname__}{installed}', ()
  own = {name: value for name, value in vars(kind).items() if name not in SKIPPED}
  return f'class {kind.__qualname__}', [kind.__bases__, own]


def _values(space, asked, names):
  """The values of the names in `asked`; modules are reduced to `names` within them."""
  values = []
  for name in sorted(asked & space.keys()):
    value = space[name]
    if isinstance(value, types.ModuleType) and not _installed(value.__name__):
      value = Named(value, names)
    values += [name, value]
  return values


def _names(code):
  """(global names, [(level, module) of imports], all names) of code and nested code."""
  asked, imported, names = set(), set(), set(code.co_names)
  instructions = list(dis.get_instructions(code))
  for place, instruction in enumerate(instructions):
    if instruction.opname in ('LOAD_GLOBAL', 'LOAD_NAME'):
      asked.add(instruction.argval)
    if instruction.opname == 'IMPORT_NAME':
      imported.add((instructions[place - 2].argval, instruction.argval))
  for inner in code.co_consts:
    if isinstance(inner, types.CodeType):
      more = _names(inner)
      asked, imported, names = asked | more[0], imported | set(more[1]), names | more[2]
  return frozenset(asked), sorted(imported), frozenset(names)


def _imported(level, name, package):
  """The module that code imports when it runs, unless it is installed or missing."""
  try:
    name = importlib.util.resolve_name('.' * level + name, package)
    found = importlib.util.find_spec(name)
  except (ImportError, ValueError):
    return None
  if not found or _is_installed(found.origin):
    return None
  return importlib.import_module(name)


@functools.lru_cache(maxsize=1_000)
def _installed(name):
  """' ' and the version of an installed module, with a digest of its file; else ''."""
  module = sys.modules.get(name)
  if module is None or name == '__main__':
    return ''
  file = getattr(module, '__file__', None)
  if not _is_installed(file):
    return ''
  top = sys.modules.get(name.partition('.')[0])
  version = getattr(top, '__version__', platform.python_version())
  content = b''
  if file and file.endswith('.py'):
    content = pathlib.Path(file).read_bytes()
  return f' {version} {hashlib.blake2b(content, digest_size=16).hexdigest()}'


def _is_installed(file):
  if file is None or file in ('built-in', 'frozen'):
    return True
  path = pathlib.Path(file).resolve()
  if {'site-packages', 'dist-packages'} & set(path.parts):
    return True
  stdlib = {sysconfig.get_path(name) for name in ('stdlib', 'platstdlib')}
  return any(path.is_relative_to(pathlib.Path(each).resolve()) for each in stdlib)
