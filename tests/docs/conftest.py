"""Makes `findings_kit` and `page_kit` known."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
