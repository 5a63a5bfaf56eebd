"""Competitor: JAX on the same network with the same weights. For sides and check."""

from __future__ import annotations

import numpy as np

from .chain import chain
from .side import Side


def jax_loss(config):
    """Mean cross-entropy of the network as a function of (state, images, labels) in JAX."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    def loss(state, x, y):
        for i, layer in chain(config):
            weight, bias, k = state.get(f"{i}.weight"), state.get(f"{i}.bias"), layer.get("kernel_size")
            if layer["kind"] == "conv2d":
                x = lax.conv_general_dilated(x, weight, (1, 1), "VALID") + bias[:, None, None]
            elif layer["kind"] == "linear":
                x = x @ weight.T + bias
            elif layer["kind"] == "max_pool2d":
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, k, k), (1, 1, k, k), "VALID")
            elif layer["kind"] == "flatten":
                x = x.reshape(len(x), -1)
            else:
                x = jnp.tanh(x) if layer["kind"] == "tanh" else jnp.maximum(x, 0)
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()

    return loss


class JaxSide(Side):
    """A jitted step that takes its batch out of the whole array itself; XLA decides on threads."""

    def set_up(self):
        import jax

        import chaos

        net = chaos.load(self.job["network"])
        self.initial = net.state_dict()
        n, lr, loss = self.batch, self.job["lr"], jax_loss(net.config())

        def step(state, x, y, at):
            part = jax.lax.dynamic_slice_in_dim(x, at, n), jax.lax.dynamic_slice_in_dim(y, at, n)
            return jax.tree.map(lambda w, g: w - lr * g, state, jax.grad(loss)(state, *part))

        self.jax, self.step, self.mean = jax, jax.jit(step, donate_argnums=0), jax.jit(loss)
        self.x, self.y = jax.numpy.asarray(self.x), jax.numpy.asarray(self.y.astype(np.int32))
        self.reset()

    def reset(self):
        self.state = {k: self.jax.numpy.array(v) for k, v in self.initial.items()}

    def advance(self, images):
        for part in self.batches(images):
            self.state = self.step(self.state, self.x, self.y, part.start)
        self.jax.block_until_ready(self.state)
        return images

    def loss(self):
        return float(self.mean(self.state, self.x[:512], self.y[:512]))
