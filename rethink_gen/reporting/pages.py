"""Report pages: self-contained HTML files in a common style."""

import base64
import io
import pathlib
import platform

import jax
import jinja2

from rethink_gen import files
from rethink_gen.reporting import drawing


def image(figure, kind: str) -> bytes:
  """A matplotlib figure as the bytes of an image; `kind` is 'png' or 'svg'."""
  content = io.BytesIO()
  # Without a date, the same runs give the same file.
  metadata = {'Date': None} if kind == 'svg' else None
  drawing.save(figure, content, format=kind, metadata=metadata)
  return content.getvalue()


def data_uri(content: bytes, kind: str) -> str:
  """A data URI that embeds an image in a page; `kind` as for `image`."""
  mime = {'png': 'image/png', 'svg': 'image/svg+xml'}[kind]
  return f'data:{mime};base64,{base64.b64encode(content).decode()}'


def render(template: pathlib.Path, **values) -> str:
  """Renders a jinja2 template file with these values, the style and the versions."""
  style = pathlib.Path(__file__).with_name('style.css').read_text('utf-8')
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  return environment.from_string(template.read_text('utf-8')).render(
    style=style,
    versions=f'jax {jax.__version__}, Python {platform.python_version()}',
    **values,
  )


def write(path: pathlib.Path, text: str) -> None:
  """Writes UTF-8 whatever the locale; non-UTF-8 bytes in a path are preserved."""
  files.write_bytes(path, text.encode('utf-8', 'surrogateescape'))
