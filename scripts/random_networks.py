"""Random networks against PyTorch in float64: outputs, gradients, three steps of every update rule. Counts what fails.

scripts/random_networks.py [--count N] [--first SEED] [--json FILE]. Needs torch and pytest: pip install '.[test,torch]'
"""

import argparse
import collections
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    arguments = parser.parse_args()
    from dags import RULES, check, kinds_of

    warnings.filterwarnings("ignore", message="Using padding='same'")
    kinds, failed = collections.Counter(), []
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            kinds.update(kinds_of(check(seed, RULES)))
        except AssertionError as error:
            failed.append(seed)
            print(f"seed {seed}: {' '.join(str(error).split())[:300]}", flush=True)
    print(f"{arguments.count} networks of {len(kinds)} kinds, {len(failed)} failed: {failed}")
    print(", ".join(f"{name} {count}" for name, count in sorted(kinds.items())))
    if arguments.json:
        import torch

        from chaos.bench import machine

        seeds = {"first": arguments.first, "count": arguments.count}
        found = {
            "about": machine() | {"torch": torch.__version__},
            **seeds,
            "failed": failed,
            "kinds": dict(sorted(kinds.items())),
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
