"""What looks wrong in a page, measured: cut, overlapping, overflowing or empty outputs of a notebook."""

from pathlib import Path

from browser.lab import DARK, LIGHT, Notebook
from playwright.sync_api import Page

WIDTHS = (1024, 1280, 1920)
SCROLLS = 1280  # px, below which a table of many columns may scroll
OUTER = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer"

# For each output of the notebook, what is wrong in it. A leaf is what holds text of its own, or is drawn.
MEASURE = """
([outer, empty]) => {
  const found = [];
  const shown = (element) => element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const name = (element) => {
    const text = (element.innerText || element.value || element.alt || '').trim().slice(0, 40);
    return `<${element.tagName.toLowerCase()} ${element.className}> «${text}»`;
  };
  // What lies in something that scrolls sideways: that thing itself is the fault.
  const scrolled = (element) => {
    for (let around = element; around; around = around.parentElement) {
      const scrolls = ['auto', 'scroll'].includes(getComputedStyle(around).overflowX);
      if (scrolls && around.scrollWidth - around.clientWidth > 1) return true;
    }
    return false;
  };
  const texts = (element) => [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
  const box = (element) => {
    if (!texts(element).length) return element.getBoundingClientRect();
    const range = document.createRange();
    const rects = texts(element).map(node => (range.selectNodeContents(node), range.getBoundingClientRect()));
    const [left, top] = [Math.min(...rects.map(r => r.left)), Math.min(...rects.map(r => r.top))];
    const [right, bottom] = [Math.max(...rects.map(r => r.right)), Math.max(...rects.map(r => r.bottom))];
    return {left, top, right, bottom, width: right - left, height: bottom - top};
  };
  const drawn = new Set(['IMG', 'CANVAS', 'SVG', 'INPUT', 'SELECT', 'TEXTAREA', 'BUTTON', 'PROGRESS']);
  for (const output of document.querySelectorAll(`${outer} .jp-OutputArea-output`)) {
    const cell = output.closest('.jp-Cell').dataset.windowedListIndex;
    const fault = (what, element) => found.push(`cell ${cell}: ${what}: ${name(element)}`);
    const inside = [...output.querySelectorAll('*')].filter(shown);
    for (const element of [output, ...inside]) {
      if (element.closest('.noUi-target')) continue;
      const style = getComputedStyle(element);
      const wide = element.scrollWidth - element.clientWidth > 1 && element.clientWidth > 0;
      if (!wide || element.tagName === 'SVG') continue;
      if (element === output || ['auto', 'scroll'].includes(style.overflowX)) {
        fault('scrolls sideways', element);
      } else if (['hidden', 'clip'].includes(style.overflowX) || element.tagName === 'INPUT') {
        fault('cut', element);
      }
    }
    const leaves = inside.filter(e => (texts(e).length || drawn.has(e.tagName.toUpperCase()))
      && !['STYLE', 'SCRIPT', 'OPTION'].includes(e.tagName) && !e.closest('.noUi-target'))
      .map(element => ({element, box: box(element)})).filter(({box}) => box.width > 0 && box.height > 0);
    const right = output.getBoundingClientRect().right;
    leaves.forEach(({element, box: a}, i) => {
      if (a.right > right + 1 && !scrolled(element)) fault('sticks out', element);
      for (const {element: other, box: b} of leaves.slice(i + 1)) {
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 2 && y > 2 && !element.contains(other) && !other.contains(element)) {
          fault(`overlaps ${name(other)}`, element);
        }
      }
    });
    let bottom = output.getBoundingClientRect().top;
    const ends = leaves.map(({box}) => box).sort((a, b) => a.top - b.top);
    for (const {top, bottom: end} of [...ends, {top: output.getBoundingClientRect().bottom, bottom: 0}]) {
      if (top - bottom > empty) fault(`${Math.round(top - bottom)} px of nothing`, output);
      bottom = Math.max(bottom, end);
    }
    for (const image of output.querySelectorAll('img')) if (!image.naturalWidth) fault('no picture', image);
  }
  return found;
}
"""
MOST_EMPTY = 60  # px


def faults(page: Page) -> list[str]:
    """Every fault that is measured in the outputs of the notebook on top."""
    return page.evaluate(MEASURE, [OUTER, MOST_EMPTY])


def whole(page: Page, width: int) -> None:
    """Make the window `width` wide, and so high that the whole notebook shows."""
    for _ in range(4):  # what comes into view is laid out anew, and may be higher than was thought
        page.locator(OUTER).evaluate("outer => outer.scrollTop = 0")
        height = page.locator(OUTER).evaluate(
            """outer => {
                const cells = outer.querySelectorAll(".jp-Cell");
                const notebook = cells[cells.length - 1].getBoundingClientRect().bottom
                    - cells[0].getBoundingClientRect().top;
                return Math.ceil(notebook + innerHeight - outer.clientHeight) + 40;
            }"""
        )
        if page.viewport_size == {"width": width, "height": height}:
            return
        page.set_viewport_size({"width": width, "height": height})


def pictures_of(notebook: Notebook, folder: Path, name: str, cell: str = "") -> list[str]:
    """Photograph the whole notebook, or what a screen shows from `cell` on, narrow and wide, light and dark;
    returns what looks wrong."""
    page, found = notebook.page, []
    for theme, shade in ((DARK, "dark"), (LIGHT, "light")):
        notebook.theme(theme)
        for width in WIDTHS:
            if cell:
                page.set_viewport_size({"width": width, "height": 900})
                notebook.cell(cell).evaluate("cell => cell.scrollIntoView({block: 'start'})")
            else:
                whole(page, width)
            page.screenshot(path=folder / f"{name}-{width}-{shade}.png", animations="disabled")
            wrong = [fault for fault in faults(page) if width >= SCROLLS or "scrolls sideways" not in fault]
            found += [f"{name} {width} {shade}: {fault}" for fault in wrong]
        page.set_viewport_size({"width": 1280, "height": 900})
    return found
