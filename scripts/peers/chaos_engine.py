"""chaos itself, training and predicting: what the others are compared with. For sides."""

from __future__ import annotations

from .side import Side


class ChaosSide(Side):
    """The engine itself: the training phase and nothing else, with the fastest of the job's strategies.

    A variant is the name of a strategy, or "name option=value".
    """

    def set_up(self):
        import chaos

        self.net = chaos.load(self.job["network"])
        self.initial = self.net.weights.copy()
        self.flat, self.labels = self.x.reshape(-1), self.y.reshape(-1)
        self.variants = self.job["strategies"] if self.threads > 1 else ("chaos",)

    def use(self, variant):
        import chaos

        name, *options = variant.split()
        how = chaos.sync.STRATEGIES[name]
        given = how.resolve(dict(option.split("=") for option in options))
        self.reset()
        self.engine = chaos._core.Engine(
            self.net.plan,
            self.net.weights,
            workers=self.threads,
            strategy=name,
            batch_size=self.batch,
            loss=self.net.core_loss("cross_entropy"),
            strategy_options=how.core_options(given),
        )

    def reset(self):
        self.net.weights[:] = self.initial

    def run(self, what, begin, end):
        result = self.engine.run(
            what, inputs=[self.flat], labels=self.labels, begin=begin, end=end, lr=self.job["lr"] * (what == "train")
        )
        if result["status"] != "done" or result["images"] != end - begin:
            raise RuntimeError(f"chaos: {result}")
        return result

    def advance(self, images):
        end = min(self.at + images, len(self.y))
        result = self.run("train", self.at, end)
        self.at = end % len(self.y)
        return result["images"]

    def loss(self):
        some = min(512, len(self.y))
        return self.run("test", 0, some)["loss"] / some


class ChaosPrediction(Side):
    """`Network.forward`, as users call it."""

    def set_up(self):
        import chaos

        self.net = chaos.load(self.job["network"])

    def advance(self, images):
        for part in self.batches(images):
            self.net.forward(self.x[part], workers=self.threads)
        return images // self.batch * self.batch
