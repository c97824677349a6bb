"""`make bench`: every benchmark; `python -m benchmarks demo tiny_clip` those alone. Needs `semivl up`."""

import runpy
import sys

BENCHMARKS = ("tiny_clip", "demo", "cost", "evaluation", "predict", "gate_power")

chosen = sys.argv[1:] or list(BENCHMARKS)
unknown = sorted(set(chosen) - set(BENCHMARKS))
if unknown:
    sys.exit(f"no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
for name in chosen:
    print(f"\n## {name}", flush=True)
    sys.argv = [name]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
