import shutil

import pytest

from rethink_gen.errors import BadInput
from rethink_gen.reporting import tables
from rethink_gen.reporting.artifacts import Column
from rethink_gen.reproduce import report

COLUMNS = {'score': Column('hit', '%', '.2f'), 'steps': Column('steps', '', ',.0f')}


def entry(name, ours, paper, **changes):
  difference = {c: ours[c] - v for c, v in paper.items() if ours[c] is not None}
  return {
    'name': name,
    'status': 'complete',
    'ours': ours,
    'paper': paper,
    'difference': difference,
    'std': {'score': None, 'steps': None},
    'note': '',
    'dead_layers': {},
    'seeds': [0],
    'seconds': 48.0,
  } | changes


def test_the_table_sets_the_paper_ours_and_the_difference_side_by_side():
  entries = [
    entry('a', {'score': 99.998, 'steps': 1234.0}, {'score': 100.0}),
    entry('b', {'score': 50.0, 'steps': None}, {}, std={'score': 1.5, 'steps': None}),
    entry('c', {'score': None, 'steps': None}, {'score': 1.0}, status='|x|'),
  ]
  header, lines = tables.make_table(COLUMNS, entries)
  assert tables.to_markdown(header, lines).splitlines() == [
    '| row | hit (%): paper |         ours | difference | steps | seeds | time | remark |',
    '| --- | -------------: | -----------: | ---------: | ----: | ----: | ---: | -----: |',
    '| a   |         100.00 |        99.99 |      +0.00 | 1,234 |     1 | 48 s |        |',
    '| b   |              – | 50.00 ± 1.50 |          – |     – |     1 | 48 s |        |',
    r'| c   |           1.00 |            – |          – |     – |     1 | 48 s |  \|x\| |',
  ]


def test_without_remarks_there_is_no_column_for_them():
  header, _ = tables.make_table(COLUMNS, [entry('a', {'score': 1.0, 'steps': 1.0}, {})])
  assert header == ['row', 'hit (%)', 'steps', 'seeds', 'time']


def test_nothing_finished_is_said_in_a_sentence(tmp_path):
  with pytest.raises(BadInput, match='holds no finished run'):
    report.write(tmp_path, 'smoke', {'table1': []}, {'table1': {}}, '')
  assert not list(tmp_path.iterdir())


def test_the_page_shows_text_as_text():
  page = report.render([], '--rows=<script>')
  assert '<script>' not in page
  assert '&lt;script&gt;' in page


@pytest.mark.parametrize(('columns', 'whole'), [(10, True), (30, False)])
def test_a_wide_table_is_seen_whole_or_scrolls_in_its_box(tmp_path, columns, whole):
  playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright')
  browser_path = shutil.which('chromium') or shutil.which('google-chrome')
  if not browser_path:
    pytest.skip('needs Chromium')
  section = dict.fromkeys(('name', 'title', 'asked', 'found', 'scale', 'caption'), 'text')
  section |= {'findings': [], 'details': [], 'machines': [], 'figure': ''}
  section['header'] = ['row', *columns * ['a measure (%)'], 'remark']
  section['lines'] = [['row', *columns * ['1,234.56'], 40 * 'word ']]
  (tmp_path / 'report.html').write_text(report.render([section], ''))
  with playwright.sync_playwright() as browsers:
    browser = browsers.chromium.launch(executable_path=browser_path, args=['--no-sandbox'])
    page = browser.new_page(viewport={'width': 1280, 'height': 800})
    page.goto((tmp_path / 'report.html').as_uri())
    beyond, inside = page.evaluate("""() => {
      const box = document.querySelector('.scroll');
      const all = document.documentElement;
      return [all.scrollWidth - all.clientWidth, box.scrollWidth - box.clientWidth];
    }""")
    browser.close()
  assert beyond == 0
  assert (inside == 0) == whole
