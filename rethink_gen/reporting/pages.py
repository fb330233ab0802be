"""Report pages: one HTML file that needs no other, in one style."""

import base64
import io
import pathlib
import platform

import jax
import jinja2

from rethink_gen import files
from rethink_gen.reporting import drawing


def image(figure, kind):
  """The bytes of a matplotlib figure; `kind` is 'png' or 'svg'."""
  content = io.BytesIO()
  # Without a date, the same runs give the same file.
  metadata = {'Date': None} if kind == 'svg' else None
  drawing.save(figure, content, format=kind, metadata=metadata)
  return content.getvalue()


def data_uri(content, kind):
  """The address of an image that is part of the page; `kind` as for `image`."""
  mime = {'png': 'image/png', 'svg': 'image/svg+xml'}[kind]
  return f'data:{mime};base64,{base64.b64encode(content).decode()}'


def render(template, **values):
  """The page that a jinja2 template file makes of these values, the style and versions."""
  style = pathlib.Path(__file__).with_name('style.css').read_text('utf-8')
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  return environment.from_string(template.read_text('utf-8')).render(
    style=style,
    versions=f'jax {jax.__version__}, Python {platform.python_version()}',
    **values,
  )


def write(path, text):
  """Writes UTF-8, whatever the locale; bytes in a path that are not UTF-8 are kept."""
  files.write_bytes(path, text.encode('utf-8', 'surrogateescape'))
