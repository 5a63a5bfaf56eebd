"""PyTorch's own list of modules with sample inputs, read by `chaos.from_torch`: outputs and gradients of every module in
scope. Counted for the README by scripts/judges.py."""

import warnings

import numpy as np
import pytest

import chaos

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from chaos.interop.torch_layers import MODULES, STATELESS  # noqa: E402


class Shifted(torch.nn.Module):
    """The module behind a parameter that is added to its input, whose gradient is the input's."""

    def __init__(self, module, shape):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(shape))
        self.inner = module

    def forward(self, x):
        return self.inner(x + self.shift)


def samples():
    """[(name of the module, number, arguments of the module, its input)]"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_modules import module_db
    found = []
    for info in module_db:
        name = info.module_cls.__name__
        if name not in MODULES and name not in STATELESS:
            continue
        torch.manual_seed(0)
        inputs = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True)
        for number, sample in enumerate(inputs):
            found.append((name, number, info.module_cls, sample))
    return found


SAMPLES = samples()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, number, kind, sample", SAMPLES, ids=[f"{s[0]}-{s[1]}" for s in SAMPLES])
def test_module(name, number, kind, sample):
    torch.manual_seed(0)
    module = kind(*sample.constructor_input.args, **sample.constructor_input.kwargs)
    args = sample.forward_input.args
    if len(args) != 1 or sample.forward_input.kwargs or args[0].dim() < 2 or not len(args[0]):
        pytest.skip("an input without images")
    x = args[0].detach()
    shape = tuple(x.shape[1:])
    wrapped = Shifted(module, shape)
    try:
        net = chaos.from_torch(wrapped, shape)
    except chaos.UnsupportedError as error:
        pytest.skip(str(error).splitlines()[-1].strip())
    random = any(isinstance(m, torch.nn.modules.dropout._DropoutNd) for m in module.modules())
    with torch.no_grad():
        used = wrapped.eval()(x)
    tolerance = 1e-5 * used.abs().nan_to_num().max().item()
    np.testing.assert_allclose(net.forward(x.numpy()), used.numpy(), rtol=0, atol=tolerance)
    if random or used.isnan().any():
        return
    wanted = wrapped.train()(x)
    target = np.random.default_rng(0).standard_normal(tuple(wanted.shape)).astype(np.float32)
    _, gradients = net.loss_and_gradients(x.numpy(), target, "mse")
    torch.nn.functional.mse_loss(wanted, torch.from_numpy(target)).backward()
    there = {key: p.grad.numpy() for key, p in wrapped.named_parameters() if p.grad is not None}
    assert gradients.keys() == there.keys()
    largest = max(np.abs(g).max() for g in there.values())
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, there[key], rtol=0, atol=1e-5 * max(largest, 1e-3), err_msg=key)
