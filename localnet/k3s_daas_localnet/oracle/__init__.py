"""The interpreter held against the real Move VM.

`sui_sandbox` runs Sui's own loader, verifier and interpreter for one call at a time, on what it is given; it
writes nothing. `framework` compares functions of 0x1 and 0x2 on plain values, `contracts` every view function
of a package on state that random transactions made here. Only tests and benchmarks use this package.
"""

from .cases import Case, Difference
from .contracts import Reading, World, compare_views, new_world, random_state
from .framework import KNOWN_DIFFERENCES, Branch, Survey, name_of, plain_functions, reached_by_package, survey

__all__ = [
    "KNOWN_DIFFERENCES",
    "Branch",
    "Case",
    "Difference",
    "Reading",
    "Survey",
    "World",
    "compare_views",
    "name_of",
    "new_world",
    "plain_functions",
    "random_state",
    "reached_by_package",
    "survey",
]
