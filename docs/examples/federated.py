"""Federated learning, simulated: clients train on data of their own, a server averages their weights (FedAvg; McMahan,
Moore, Ramage, Hampson, Aguera y Arcas 2017).

    python docs/examples/federated.py --clients 10 --rounds 5

`Client` has the methods of Flower's `flwr.client.NumPyClient`, so that it serves in a real federation, too:
``flwr.client.start_client(server_address=..., client=Client(net, train, test).to_client())`` where it also inherits from
`NumPyClient`. The simulation needs no Flower: a round of all clients is one `chaos.train_many`.
"""

import argparse

import numpy as np

import chaos


class Client:
    """A network and data that stay where they are; weights come and go as lists of arrays.

    Parameters
    ----------
    net : chaos.Network
    train, test : chaos.data.Dataset
    """

    def __init__(self, net, train, test):
        self.net, self.train, self.test = net, train, test

    def get_parameters(self, config):
        return list(self.net.state_dict().values())

    def set_parameters(self, parameters):
        self.net.load_state_dict(dict(zip(self.net.state_dict(), parameters, strict=True)))

    def fit(self, parameters, config):
        """(weights, number of images, measures) after a training from these weights."""
        self.set_parameters(parameters)
        run = chaos.train(self.net, self.train, **self.settings(config), workers=1, progress=False)
        return self.get_parameters(config), len(self.train), {"train_loss": run.history[-1]["train_loss"]}

    def evaluate(self, parameters, config):
        """(loss, number of images, measures) with these weights."""
        self.set_parameters(parameters)
        found = chaos.evaluate(self.net, self.test, workers=1)
        return found["loss"], len(self.test), {"error": found["error"]}

    @staticmethod
    def settings(config):
        return {"epochs": 1, "lr": 0.01, "lr_schedule": "constant"} | config


def average(weights, counts):
    """The mean of lists of arrays, weighted by numbers of images."""
    return [
        np.average(arrays, axis=0, weights=counts).astype(np.float32) for arrays in zip(*weights, strict=True)
    ]  # fmt: skip


def simulate(clients, rounds, config=None, tell=print):
    """Rounds in which all clients train, one core each; returns the weights and the error after each round."""
    parameters, errors = clients[0].get_parameters({}), []
    for number in range(1, rounds + 1):
        for client in clients:
            client.set_parameters(parameters)
        settings = Client.settings({"seed": number} | (config or {}))
        rows = chaos.train_many([{"network": c.net, "train": c.train, **settings} for c in clients], progress=False)
        rows.raise_failed()
        parameters = average([c.get_parameters({}) for c in clients], [len(c.train) for c in clients])
        loss, _, measures = clients[0].evaluate(parameters, {})
        errors.append(measures["error"])
        tell(f"round {number}: loss {loss:.3f}, error {measures['error']:.1%}")
    return parameters, errors


def uneven(data, clients, seed=0):
    """Parts of a data set in which some classes are more frequent than others (Dirichlet, Hsu, Qi, Brown 2019)."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(clients, 1.0), data.classes)
    owner = np.array([rng.choice(clients, p=shares[label]) for label in data.labels])
    return [data[owner == k] for k in range(clients) if (owner == k).any()]


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(words)
    train, test = chaos.data.load("digits", size=29)
    simulate([Client(chaos.models.small(seed=0), part, test) for part in uneven(train, args.clients)], args.rounds)


if __name__ == "__main__":
    main()
