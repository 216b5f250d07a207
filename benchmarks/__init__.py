"""Benchmarks: what ablate takes beside plain torch, timm and a textbook loop.

    python -m ablate bench                 # all of them, a few minutes
    python -m ablate bench loss step       # some of them
    python -m pytest benchmarks/test_epoch.py --images 0 --benchmark-max-time 300 --benchmark-json out.json

They need the extra `bench` and a machine that does nothing else. All peers of a case are timed in turn, round
by round (`interleaved.py`), after each has been seen to compute what its reference does. They are of the CPU;
what a GPU does is measured by `cuda.py`, alone.

`simulated_studies.py` and `simulated_searches.py` time nothing: how often do verdicts err, what do searches
find?
"""
