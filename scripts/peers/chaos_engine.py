"""chaos itself, in two settings: what the others are compared with. For sides."""

from __future__ import annotations

from .side import Side


class ChaosSide(Side):
    """The engine itself, strategy chaos: the training phase and nothing else."""

    read = "demand"

    def set_up(self):
        import chaos

        how = chaos.sync.STRATEGIES["chaos"]
        self.net = chaos.Network.from_config(self.job["config"])
        self.reset()
        self.x = self.x.reshape(-1)
        self.engine = chaos._core.Engine(
            self.net.plan,
            self.net.weights,
            workers=self.threads,
            strategy="chaos",
            batch_size=self.batch,
            strategy_options=how.core_options(how.resolve({"read": self.read})),
        )

    def reset(self):
        self.net.load_state_dict(self.job["state"])

    def advance(self, images):
        end = min(self.at + images, len(self.y))
        result = self.engine.run("train", values=self.x, labels=self.y, begin=self.at, end=end, lr=self.job["lr"])
        if result["status"] != "done" or result["images"] != end - self.at:
            raise RuntimeError(f"chaos: {result}")
        self.at = end % len(self.y)
        return result["images"]

    def loss(self):
        return self.engine.run("test", values=self.x, labels=self.y, end=512)["loss"] / 512


class CopyingChaosSide(ChaosSide):
    """Strategy chaos with read=publication, which only several workers do."""

    read = "publication"
