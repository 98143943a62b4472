"""The workshop's modules are imported as its own script imports them."""

import sys

from farense_qlora.model.download import MINIATURE

sys.path.insert(0, str(MINIATURE.parent))
