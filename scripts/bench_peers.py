"""Benchmark of chaos against PyTorch (and JAX, where installed) on this machine's CPU. For whoever wants to
check a claim about speed; needs `pip install torch`, imports chaos as installed, changes nothing. Its parts are in peers/.

    python scripts/bench_peers.py                               about five minutes on two cores
    python scripts/bench_peers.py --models small --quick        a minute; shows that all of it works
    python scripts/bench_peers.py --json peers.json --plot peers.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.pipe import SideFailed  # noqa: E402
from peers.run import main  # noqa: E402

if __name__ == "__main__":
    try:
        sys.exit(main())
    except SideFailed as error:
        sys.exit(f"bench_peers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
