#!/usr/bin/env python
"""Trains across MPI ranks from a script: mpirun -n 4 scripts/train_mpi.py --model small --cluster local

A template for scripts of one's own: everything is as in a script for one process, except that every rank runs it and
`chaos.train` is told how the ranks keep their weights together. All ranks get the same result; rank 0 writes the run
directory and the progress. `python -m mpi4py scripts/train_mpi.py` also ends the job where the script fails outside
`chaos.train`."""

import argparse

import chaos
from chaos.cluster import MODES


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", choices=chaos.models.MODELS, help="network (default: small)")
    parser.add_argument("--data", default="mnist", help="data set: mnist, digits or an .npz file (default: mnist)")
    parser.add_argument("--cluster", default="local", choices=MODES, help="exchange mode (default: local)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the mode; may be repeated")
    parser.add_argument("--workers", type=int, help="per rank (default: the ranks of a machine share its cores)")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", help="where rank 0 keeps the run; continued if it holds one (default: nowhere)")
    args = parser.parse_args()

    net = chaos.models.MODELS[args.model](seed=args.seed)
    train, test = chaos.data.load(args.data, size=net.input_shape[1])
    run = chaos.train(
        net,
        train,
        test,
        cluster=args.cluster,
        cluster_options=MODES[args.cluster]({}).parse(args.option),
        workers=args.workers,
        epochs=args.epochs,
        lr=args.lr,
        seed=args.seed,
        run_dir=args.run_dir,
        resume=args.run_dir is not None,
    )
    if run.is_root:
        last = run.history[-1]
        print(
            f"test error {last['test_error']:.2%}, {last['images_per_second']:,.0f} images/s, {last['workers']} workers, "
            f"{last.get('cluster', {}).get('ranks', 1)} ranks"
        )


if __name__ == "__main__":
    main()
