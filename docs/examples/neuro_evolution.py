"""Neuro-evolution: architectures and settings of small networks evolve; a generation's fitness is one `chaos.train_many`.

    python docs/examples/neuro_evolution.py --population 8 --generations 4

An individual is a dict of genes. Its fitness is the error on held-out images after a short training. The better half stays
and has children by uniform crossover and mutation (a (mu + lambda) strategy; Eiben, Smith 2015, chapter 5)."""

import argparse

import numpy as np

import chaos

GENES = {
    "maps": lambda rng: int(rng.integers(2, 17)),
    "kernel": lambda rng: int(rng.integers(2, 6)),
    "hidden": lambda rng: int(rng.integers(8, 65)),
    "activation": lambda rng: ["Tanh", "ReLU", "SiLU"][rng.integers(3)],
    "lr": lambda rng: float(10 ** rng.uniform(-3, -1)),
}


def build(genes, seed):
    activation = getattr(chaos, genes["activation"])
    layers = [chaos.Conv2d(genes["maps"], genes["kernel"]), activation(), chaos.MaxPool2d(2), chaos.Flatten()]
    return chaos.Network((1, 8, 8), [*layers, chaos.Linear(genes["hidden"]), activation(), chaos.Linear(10)], seed=seed)


def fitness(population, train, held_out, epochs):
    """The errors of all, each trained on a core of its own; what cannot be trained is the worst there is."""
    jobs = [
        {
            "network": lambda genes=genes, seed=seed: build(genes, seed),
            "train": train,
            "test": held_out,
            "epochs": epochs,
            "lr": genes["lr"],
            "seed": seed,
        }
        for seed, genes in enumerate(population)
    ]
    rows = chaos.train_many(jobs, progress=False, keep_networks=False)
    return [row["test_error"] if row["status"] == "done" else 1.0 for row in rows]


def child(one, other, rng, mutation=0.2):
    """Each gene from one of the parents, or drawn anew."""
    return {
        name: draw(rng) if rng.random() < mutation else (one if rng.random() < 0.5 else other)[name]
        for name, draw in GENES.items()
    }


def evolve(train, held_out, population=8, generations=4, epochs=2, seed=0, tell=print):
    """The best genes, and their error."""
    rng = np.random.default_rng(seed)
    people = [{name: draw(rng) for name, draw in GENES.items()} for _ in range(population)]
    errors = fitness(people, train, held_out, epochs)
    for generation in range(1, generations + 1):
        best = [people[k] for k in np.argsort(errors, kind="stable")[: max(population // 2, 2)]]
        kept = sorted(errors)[: len(best)]
        children = [child(*(best[k] for k in rng.choice(len(best), 2)), rng) for _ in range(population - len(best))]
        people, errors = best + children, kept + fitness(children, train, held_out, epochs)
        tell(f"generation {generation}: best error {min(errors):.1%}, mean {np.mean(errors):.1%}")
    at = int(np.argmin(errors))
    return people[at], errors[at]


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args(words)
    train, test = chaos.data.load("digits")
    genes, error = evolve(train[:1000], train[1000:], args.population, args.generations, args.epochs)
    print(f"found {genes}: error {error:.1%} on the held-out images")
    net = build(genes, 0)
    run = chaos.train(net, train, test, epochs=5, lr=genes["lr"], progress=False)
    print(f"trained on all: test error {run.history[-1]['test_error']:.1%}")


if __name__ == "__main__":
    main()
