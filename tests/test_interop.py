"""Doors to PyTorch and ONNX: every kind of layer there and back, modules that people write, and what is refused."""

import numpy as np
import pytest
from nets import Oracle, examples

import chaos
from chaos.layers import LAYERS
from chaos.layers.examples import Picker

# what each door has no equal of, of all or of some examples of a kind; everything else must pass
NO_TORCH = {
    "Resample", "LocallyConnected2d", "Subsampling2d", "StochasticPool2d", "BlurPool2d", "SpatialPyramidPool2d", "RoIPool",
    "RoIAlign", "GaussianNoise", "DropConnectLinear", "Maxout", "ChannelScale", "RBF",
    "Conv2d",  # connection_table
    "BatchNorm1d", "BatchNorm2d",  # use_running_stats, groups_of
}  # fmt: skip
NO_ONNX = {
    "Resample", "LocallyConnected2d", "Subsampling2d", "StochasticPool2d", "BlurPool2d", "SpatialPyramidPool2d", "RoIPool",
    "RoIAlign", "Maxout", "RBF",
    "Conv2d",  # connection_table
    "ConvTranspose1d", "ConvTranspose2d",  # output_padding that is not below the stride
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",  # windows of different sizes
    "LPPool1d", "LPPool2d", "AvgPool1d", "AvgPool2d", "MaxPool1d", "MaxPool2d",  # ceil_mode, divisor_override
    "LocalResponseNorm",  # even sizes
}  # fmt: skip
NO_WAY_BACK = {"Where", "Sqrt"}  # operators that are written, and not read


def network(kind, rng, tries=20):
    """A network of one layer of the kind, its weights and running statistics at random."""
    layer, shapes = LAYERS[kind].example(Picker(rng))
    sources = [chaos.Input(shape) for shape in shapes]
    net = chaos.Network(sources, layer(*sources), seed=1)
    state = {
        name: (
            np.abs(value) + 0.5 if name.endswith("running_var") else value + 0.1 * rng.standard_normal(value.shape)
        ).astype("f")
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    x = [rng.standard_normal((3, *shape)).astype(np.float32) for shape in shapes]
    return net, x if len(x) > 1 else x[0]


def same(got, net, x, looseness=1.0):
    oracle = Oracle(net, x)
    np.testing.assert_allclose(got, oracle.exact["output"], rtol=0, atol=looseness * (oracle.tolerance["output"] + 1e-7))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_to_pytorch_and_back(kind):
    torch = pytest.importorskip("torch")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(12):
        net, x = network(kind, rng)
        try:
            module = net.to_torch().eval()
        except chaos.UnsupportedError:
            refused += 1
            continue
        given = [torch.from_numpy(a) for a in (x if isinstance(x, list) else [x])]
        with torch.no_grad():
            y = module(*given)
        same(y.detach().numpy(), net, x)
        shapes = [tuple(a.shape[1:]) for a in given]
        back = chaos.from_torch(module, shapes if len(shapes) > 1 else shapes[0])
        same(back.forward(x), net, x)
        names = set(net.state_dict())
        assert {name for name in module.state_dict() if not name.endswith("num_batches_tracked")} == names
        assert set(back.state_dict()) >= names
    assert refused == 0 or type(net.outputs[0].layer).__name__ in NO_TORCH, f"{refused} refused"


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_to_onnx_and_back(kind):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(examples(5, 24)):
        net, x = network(kind, rng)
        try:
            model = net.to_onnx()
        except chaos.UnsupportedError:
            refused += 1
            continue
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = dict(zip([i.name for i in session.get_inputs()], x if isinstance(x, list) else [x], strict=True))
        same(session.run(None, given)[0], net, x)
        if {node.op_type for node in model.graph.node} & NO_WAY_BACK:
            continue
        same(chaos.from_onnx(model).forward(x), net, x)
    assert refused == 0 or type(net.outputs[0].layer).__name__ in NO_ONNX, f"{refused} refused"


def modules(torch):
    """Networks as people write them: (name, module, shape of an image)."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, into, out, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.shortcut = nn.Sequential()
            if stride != 1 or into != out:
                self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = F.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            y += self.shortcut(x)
            return F.relu(y)

    class ResNet(nn.Module):
        def __init__(self, blocks=1):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
            widths = [8] * blocks + [16] * blocks + [32] * blocks
            self.blocks = nn.ModuleList(
                Block(a, b, 2 if a != b else 1) for a, b in zip([8, *widths[:-1]], widths, strict=True)
            )
            self.fc = nn.Linear(32, 10)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            x = F.adaptive_avg_pool2d(x, 1)
            return self.fc(torch.flatten(x, 1))

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
            self.gain = nn.Parameter(torch.rand(10, 1, 1))
            self.register_buffer("mean", torch.rand(1, 10, 1, 1))
            self.head = nn.Linear(40, 5)

        def forward(self, x):
            y = torch.cat([torch.tanh(self.a(x)), F.leaky_relu(self.b(x), 0.1)], dim=1)
            y = y * self.gain + self.mean - 0.5
            y = F.max_pool2d(y, 2)
            y = y.view(y.size(0), 2, 5, *y.shape[2:]).transpose(1, 2).reshape(x.shape[0], 10, y.shape[2], -1)
            gate = torch.sigmoid(y.mean(dim=(2, 3), keepdim=True))
            y = F.interpolate(y * gate, size=(2, 2), mode="bilinear", align_corners=False)
            return self.head(y.flatten(1))

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            y = x
            for _ in range(3):
                y = torch.relu(self.step(y)) + x
            return y.amax(dim=(2, 3))

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.ELU())
            self.left, self.right = nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x):
            y = self.body(x)
            return self.left(y), {"right": self.right(y)}["right"]

    class Branching(nn.Module):  # cannot be traced, only exported
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            if x.shape[2] > 4:
                x = self.bn(self.conv(x)).relu()
            for _ in range(len(x.shape) - 2):
                x = x.mean(-1)
            return self.fc(x)

    return {
        "sequential": nn.Sequential(
            nn.Conv2d(3, 6, 5, padding="same"),
            nn.PReLU(6),
            nn.AvgPool2d(2),
            nn.Dropout2d(0.2),
            nn.Flatten(),
            nn.Linear(96, 4),
        ),
        "resnet": ResNet(),
        "functional": Functional(),
        "shared": Shared(),
        "two outputs": Two(),
        "branching": Branching(),
    }


MODULES = ("sequential", "resnet", "functional", "shared", "two outputs", "branching")


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    """The same outputs as the module's, and the same names of parameters; both ways."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = modules(torch)[name]
    net = chaos.from_torch(module, (3, 8, 8))
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    got = net.forward(x)
    for y, t in zip(got if isinstance(got, tuple) else (got,), wanted, strict=True):
        np.testing.assert_allclose(y, t.numpy(), rtol=0, atol=1e-5)
    state = {k: torch.from_numpy(v) for k, v in net.state_dict().items()}
    module.load_state_dict(state)  # strictly: no name is missing, and none is strange
    net.load_state_dict(module.state_dict())


@pytest.mark.parametrize("name", ("sequential", "resnet", "functional", "shared"))
def test_gradients_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = modules(torch)[name]
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout2d):
            layer.p = 0.0
    net = chaos.from_torch(module, (3, 8, 8))
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((6, 3, 8, 8)).astype(np.float32), rng.integers(0, 2, 6)
    loss, gradients = net.loss_and_gradients(x, labels)
    wanted = torch.nn.functional.cross_entropy(module.train()(torch.from_numpy(x)), torch.from_numpy(labels))
    wanted.backward()
    assert abs(loss - wanted.item()) < 1e-5
    there = {k: p.grad.numpy() for k, p in module.named_parameters()}
    assert gradients.keys() == there.keys()
    largest = max(np.abs(g).max() for g in there.values())
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, there[key], rtol=0, atol=2e-5 * max(1, largest), err_msg=key)


def test_the_largest_along_a_dimension():
    """PyTorch gives its place beside it, which no layer does."""
    torch = pytest.importorskip("torch")

    class Largest(torch.nn.Module):
        def forward(self, x):
            first, _ = torch.max(x, 1)
            return first.movedim(1, 2) + torch.stack(x.min(1).values.unbind(2), 1) + x.max(1)[0].movedim(2, 1)

    x = np.random.default_rng(0).standard_normal((5, 3, 4, 6)).astype(np.float32)
    wanted = Largest()(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(chaos.from_torch(Largest(), (3, 4, 6)).forward(x), wanted)

    class Place(torch.nn.Module):
        def forward(self, x):
            return x.max(1).indices + 1

    with pytest.raises(chaos.UnsupportedError, match="places of the largest or smallest"):
        chaos.from_torch(Place(), (3, 4, 6))


def test_shuffled_vectors_to_pytorch_and_back():
    """PyTorch's ChannelShuffle takes no vectors."""
    torch = pytest.importorskip("torch")
    net = chaos.Network((8,), [chaos.ChannelShuffle(2), chaos.Linear(3)], seed=1)
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    wanted, module = net.forward(x), net.to_torch()
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(chaos.from_torch(module, (8,)).forward(x), wanted, rtol=0, atol=1e-6)


def test_what_is_not_supported_is_told_at_once():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.RReLU(), torch.nn.Flatten(0), torch.nn.FractionalMaxPool2d(2, 2)
    )
    with pytest.raises(chaos.UnsupportedError) as caught:
        chaos.from_torch(module, (3, 8, 8))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines[0] == "1 (RReLU): chaos has no layer for it; the nearest is ReLU"
    assert lines[1].startswith("3 (FractionalMaxPool2d): chaos has no layer for it; the nearest is ")
    with pytest.raises(chaos.UnsupportedError, match="beside each other|counts the images"):
        chaos.from_torch(torch.nn.Flatten(0), (3, 8, 8))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        chaos.from_torch("net", (3, 8, 8))
    with pytest.raises(chaos.UnsupportedError, match="needs images"):
        chaos.from_torch(torch.nn.Conv2d(3, 4, 3), (3, 8))


def test_a_deep_network_is_read_quickly():
    """In time that grows with its length, by the number of places that are looked at."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        *[torch.nn.Conv2d(4, 4, 3, padding=1) if i % 2 == 0 else torch.nn.ReLU() for i in range(200)]
    )
    net = chaos.from_torch(module, (4, 8, 8))
    assert len(net.nodes()) == 201


def test_importing_chaos_imports_neither():
    import subprocess
    import sys

    code = "import chaos, sys; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "make",
    [
        lambda o, p: o.SGD(p, lr=0.1),
        lambda o, p: o.SGD(p, lr=0.05, momentum=0.9, dampening=0.2, weight_decay=0.01),
        lambda o, p: o.SGD(p, lr=0.05, momentum=0.8, nesterov=True),
        lambda o, p: o.Adam(p, lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.02),
        lambda o, p: o.AdamW(p, lr=0.01, weight_decay=0.1),
        lambda o, p: o.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5, centered=True, eps=1e-3),
        lambda o, p: o.Adagrad(p, lr=0.05, lr_decay=0.1, eps=1e-3),
    ],
)
def test_settings_of_optimisers_train_alike(make):
    """Three epochs of full batches: the same weights as by the optimiser itself."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    net = chaos.from_torch(module, (5,))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    optimiser = make(torch.optim, module.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5)
    settings = chaos.interop.settings_from_torch(optimiser, schedule)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimiser.step()
        schedule.step()
    data = chaos.data.Dataset(x, y)
    chaos.train(net, data, epochs=3, batch_size=12, strategy="sequential", progress=False, **settings)
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value.numpy(), rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("named", [False, True])
def test_groups_of_parameters_train_alike(kind, named):
    """As above, with another learning rate for one layer and no decay for biases."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    net = chaos.from_torch(module, (5,))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    there = list(module.named_parameters())
    groups = [(there[:1], dict(lr=0.02)), (there[1:2], dict(lr=0.01, weight_decay=0)), (there[2:], dict(weight_decay=0))]
    groups = [{"params": found if named else [p for _, p in found], **more} for found, more in groups]
    optimiser = getattr(torch.optim, kind)(groups, lr=0.01, weight_decay=0.1)
    settings = chaos.interop.settings_from_torch(optimiser, module=None if named else module)
    assert settings["update_options"]["no_decay"] == "0.bias,2.weight,2.bias" and settings["lr"] == 0.02
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimiser.step()
    more = dict(epochs=3, batch_size=12, strategy="sequential", progress=False)
    chaos.train(net, chaos.data.Dataset(x, y), **more, **settings)
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value.numpy(), rtol=0, atol=2e-6, err_msg=name)


def test_settings_that_are_not_known():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 2)

    def two(**more):
        return [dict(params=[module.weight]), dict(params=[module.bias], lr=0.2) | more]

    with pytest.raises(chaos.UnsupportedError, match="give the module"):
        chaos.interop.settings_from_torch(torch.optim.SGD(two(), lr=0.1))
    for option, text in ((dict(momentum=0.5), "differ in momentum"), (dict(weight_decay=0.2), r"decays \[0.1, 0.2\]")):
        optimiser = torch.optim.SGD(two(**option), lr=0.1, weight_decay=0.1)
        with pytest.raises(chaos.UnsupportedError, match=text):
            chaos.interop.settings_from_torch(optimiser, module=module)
    optimiser = torch.optim.SGD(two(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5, eta_min=0.01)
    with pytest.raises(chaos.UnsupportedError, match="eta_min"):
        chaos.interop.settings_from_torch(optimiser, scheduler, module)
    with pytest.raises(ValueError, match="settings_from_torch"):
        chaos.train(chaos.Network((2,), [chaos.Linear(2)]), chaos.data.Dataset([[0, 1.0]], [0]), update=optimiser)
    with pytest.raises(chaos.UnsupportedError, match="Adam with amsgrad=True"):
        chaos.interop.settings_from_torch(torch.optim.Adam(module.parameters(), amsgrad=True))
    with pytest.raises(chaos.UnsupportedError, match="the optimiser LBFGS: SGD, Adam"):
        chaos.interop.settings_from_torch(torch.optim.LBFGS(module.parameters()))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(chaos.UnsupportedError, match="the schedule LambdaLR: ExponentialLR, "):
        chaos.interop.settings_from_torch(optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1.0))


@pytest.mark.parametrize(
    "name, options",
    [
        ("ExponentialLR", dict(gamma=0.7)),
        ("StepLR", dict(step_size=2, gamma=0.3)),
        ("MultiStepLR", dict(milestones=[1, 4, 4], gamma=0.5)),
        ("LinearLR", dict(total_iters=4)),
        ("PolynomialLR", dict(total_iters=9, power=2.0)),
        ("CosineAnnealingLR", dict(T_max=8, eta_min=0.01)),
        ("CosineAnnealingWarmRestarts", dict(T_0=2, T_mult=2)),
    ],
)
def test_schedules_of_pytorch_give_their_learning_rates(name, options):
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimiser, **options)
    found = chaos.interop.settings_from_torch(optimiser, scheduler)
    schedule = chaos.updates.SCHEDULES[found["lr_schedule"]]
    given = schedule.settle(schedule.resolve(found.get("schedule_options", {})), 7)
    for epoch in range(1, 8):
        rate = schedule.rate(found["lr"], found.get("lr_decay", 0.9), epoch, **given)
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9, abs=1e-15)
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize("ending", ["npz", "pt", "safetensors"])
def test_weights_of_files(tmp_path, ending):
    net, other = chaos.models.small(seed=1), chaos.models.small(seed=2)
    path = tmp_path / f"weights.{ending}"
    if ending == "npz":
        np.savez(path, **net.state_dict())
    elif ending == "pt":
        torch = pytest.importorskip("torch")
        torch.save({"epoch": 3, "state_dict": {k: torch.from_numpy(v) for k, v in net.state_dict().items()}}, path)
    else:
        net.save(path)
    other.load_state_dict(chaos.interop.read_weights(path))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
    path.write_bytes(path.read_bytes()[: 100 + path.stat().st_size // 2])
    with pytest.raises(chaos.CheckpointError, match="weights"):
        chaos.interop.read_weights(path)


class Payload:
    """Ends the process when it is unpickled."""

    def __reduce__(self):
        import os

        return os._exit, (3,)


def test_weights_execute_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.array([Payload()], object))
    with pytest.raises(chaos.CheckpointError, match="a.npz: w: holds Python objects"):
        chaos.interop.read_weights(tmp_path / "a.npz")
    with pytest.raises(chaos.CheckpointError, match=r"weights are read from \.safetensors"):
        chaos.interop.read_weights(tmp_path / "a.pickle")
    torch = pytest.importorskip("torch")
    torch.save({"w": Payload()}, tmp_path / "a.pt")
    with pytest.raises(chaos.CheckpointError, match="a.pt"):
        chaos.interop.read_weights(tmp_path / "a.pt")


def test_onnx_files_that_are_none(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(chaos.CheckpointError, match=r"a\.onnx"):
        chaos.from_onnx(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        chaos.from_onnx(tmp_path / "b.onnx")
    with pytest.raises(TypeError, match=r"a path or an onnx\.ModelProto"):
        chaos.from_onnx(3)
