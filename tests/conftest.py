import sys
from pathlib import Path

# Builders that several tests share (steps, handmade programs) lie beside the tests.
for folder in ("compiler", "lpu"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
