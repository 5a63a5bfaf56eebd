"""`chaos simulate` and virtual.train: same seed, same bits; runs that stop and go on; the clock's arithmetic; reports."""

import json

import pytest
from nets import images
from orders import PRIVATE, SIMULATED, engine_of, flat_times, options_of, small_net, without_tail

import chaos
from chaos import cli, virtual
from chaos.loading import load_with_state
from chaos.sync import STRATEGIES
from chaos.training import MODEL, no_counts
from chaos.virtual import Machine, Order, Times, Virtual


@pytest.mark.parametrize("strategy", SIMULATED)
def test_same_seed_same_bits(few_digits, strategy):
    workers = 1 if STRATEGIES[strategy].single else 30
    results = []
    for seed in (0, 0, 1):
        net = chaos.models.small(seed=0)
        run = chaos.train(
            net,
            *few_digits,
            strategy=strategy,
            workers=workers,
            epochs=2,
            lr=0.01,
            seed=seed,
            progress=False,
            batch_size=8 if strategy == "synchronous" else 1,
            runner=Virtual(),
        )
        results.append((net.weights.tobytes(), json.dumps(run.history)))
    assert results[0] == results[1] and results[0][0] != results[2][0]


@pytest.mark.parametrize("strategy", ["chaos", *PRIVATE, "hybrid"])
def test_continued_run_has_the_same_bits(few_digits, tmp_path, strategy):
    whole, parts = chaos.models.small(), chaos.models.small()
    arguments = dict(workers=20, lr=0.01, progress=False, strategy=strategy, update="adam")
    chaos.train(whole, *few_digits, epochs=3, runner=Virtual(), **arguments)
    chaos.train(parts, *few_digits, epochs=1, runner=Virtual(), run_dir=tmp_path, **arguments)
    chaos.train(parts, *few_digits, epochs=3, runner=Virtual(), run_dir=tmp_path, resume=True, **arguments)
    assert (whole.weights == parts.weights).all()


def test_runs_of_virtual_workers_and_of_threads_do_not_continue_each_other(few_digits, tmp_path):
    """Whether the state tells who ran, as now, or only the history, as once."""
    runners = {"real threads": lambda: None, "virtual workers": Virtual}
    arguments = dict(workers=2, lr=0.01, progress=False)
    for begun, other in (list(runners), list(runners)[::-1]):
        folder = tmp_path / begun
        chaos.train(chaos.models.small(), *few_digits, epochs=1, runner=runners[begun](), run_dir=folder, **arguments)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for old in (False, True):
            if old:
                net, metadata, tensors = chaos.loading.load_with_state(folder / "model.safetensors")
                state = json.loads(metadata["training"])
                del state["runner"], state["epochs"], state["metrics"]
                state["history"] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                net.save(folder / "model.safetensors", {"training": json.dumps(state)}, tensors)
                before["model.safetensors"] = (folder / "model.safetensors").read_bytes()
            with pytest.raises(chaos.CheckpointError, match=f"of a run of {begun}; it cannot be continued with {other}"):
                chaos.train(
                    chaos.models.small(),
                    *few_digits,
                    epochs=2,
                    runner=runners[other](),
                    run_dir=folder,
                    resume=True,
                    **arguments,
                )
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        run = chaos.train(
            chaos.models.small(), *few_digits, epochs=2, runner=runners[begun](), run_dir=folder, resume=True, **arguments
        )
        assert len(run.history) == 2


@pytest.mark.parametrize("strategy", ["chaos", *PRIVATE, "hybrid"])
def test_stopping_goes_back_to_the_beginning_of_the_epoch(few_digits, tmp_path, monkeypatch, strategy):
    arguments = dict(workers=5, epochs=1, lr=0.01, progress=False, strategy=strategy, update="momentum")
    net = chaos.models.small()
    blocks = Order.blocks

    def stop(self, n):
        for i, block in enumerate(blocks(self, n)):
            yield block
            if i == 0:
                import os
                import signal
                import time

                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)

    before = net.weights.copy()
    monkeypatch.setattr("chaos.virtual.clock.BLOCK", 500)
    monkeypatch.setattr(Order, "blocks", stop)
    with pytest.raises(KeyboardInterrupt):
        chaos.train(net, *few_digits, runner=Virtual(), run_dir=tmp_path, **arguments)
    assert (net.weights == before).all()
    assert json.loads(load_with_state(tmp_path / MODEL)[1]["training"])["partial"] == no_counts()
    monkeypatch.undo()
    chaos.train(net, *few_digits, runner=Virtual(), run_dir=tmp_path, resume=True, **arguments)
    other = chaos.models.small()
    chaos.train(other, *few_digits, runner=Virtual(), **arguments)
    assert (net.weights == other.weights).all()


def test_clock_of_one_worker_adds_up():
    net = small_net()
    engine = engine_of(net, 1)
    times = flat_times(net, publish=1e-6)
    seconds = Order(net, engine, times, Machine(jitter=0), "chaos", options_of("chaos"), [0]).seconds(50)
    learning = sum(engine.learns(node) for node in range(1, len(net.nodes())))
    layers = len({node for node, _ in engine.stripe_table})
    assert seconds == pytest.approx(50 * (len(times.forward) * 1e-5 + learning * 2e-5 + layers * 1e-6))


def test_clock_scales_where_nothing_stands_in_the_way():
    net = small_net()
    arguments = flat_times(net), Machine(line_ns=0, jitter=0.1), "chaos", options_of("chaos"), [0]
    alone = Order(net, engine_of(net, 1), *arguments).seconds(4000)
    assert alone / Order(net, engine_of(net, 20), *arguments).seconds(4000) == pytest.approx(20, rel=0.03)


def test_hardware_threads_stragglers_and_speed():
    machine = Machine(cores=61, threads_per_core=4, slowdown=(1.0, 1.0, 1.5, 2.0))
    assert (machine.factors(61) == 1).all() and (machine.factors(122) == 1).all() and (machine.factors(244) == 2).all()
    assert sorted(set(machine.factors(130))) == [1.0, 1.5]
    assert (machine.factors(488) == 4).all(), "twice the hardware threads: in turn"
    assert (Machine(speed=0.5).factors(3) == 2).all()
    assert list(Machine(stragglers=1, straggling=3).factors(3)) == [1, 1, 3]
    with pytest.raises(ValueError, match="at most the 2 workers"):
        Machine(stragglers=3).factors(2)
    for bad in (
        dict(cores=0),
        dict(threads_per_core=2, slowdown=(1.0,)),
        dict(threads_per_core=2, slowdown=(1.0, 0.5)),
        dict(jitter=-1),
        dict(line_ns=float("nan")),
        dict(straggling=0.5),
        dict(speed=0),
    ):
        with pytest.raises(ValueError):
            Machine(**bad)


def test_stragglers_do_not_hold_up_chaos_but_turns_and_meetings():
    net = small_net()
    seconds = {}
    for strategy in ("chaos", "delayed", "averaging", "elastic", "replicated"):
        for stragglers in (0, 1):
            machine = Machine(stragglers=stragglers, straggling=10, jitter=0)
            order = Order(net, engine_of(net, 8, strategy), flat_times(net), machine, strategy, options_of(strategy), [0])
            seconds[strategy, stragglers] = order.seconds(4000)
    for strategy in ("chaos", "elastic", "replicated"):
        assert seconds[strategy, 1] < 1.3 * seconds[strategy, 0]
    for strategy in ("delayed", "averaging"):
        assert seconds[strategy, 1] > 5 * seconds[strategy, 0]


def test_clock_of_exchanges_adds_up():
    """Seconds of phases of one worker and of two that do the same at the same time, beside what chaos takes for as much."""
    net, step = small_net(), 1e-6  # of an update of all weights, per layer
    times, machine = flat_times(net, publish=step), Machine(jitter=0, line_ns=0)
    layers = len({node for node, _ in engine_of(net, 1).stripe_table})

    def seconds(strategy, workers, n, **given):
        options = options_of(strategy, **given)
        return Order(
            net,
            engine_of(net, workers, strategy, strategy_options=STRATEGIES[strategy].core_options(options)),
            times,
            machine,
            strategy,
            options,
            [0],
        ).seconds(n)

    alone, copy = seconds("chaos", 1, 50), layers * step
    # a copy; per round an average of one replica and a copy
    assert seconds("averaging", 1, 50, period=5) == pytest.approx(alone + copy + 10 * 2 * copy)
    assert seconds("averaging", 1, 50) == pytest.approx(alone + copy + 2 * copy)
    # two workers; each averages the other's half too, where stripes can be halved: at most as long as all of them by one
    assert alone + 3 * copy <= seconds("averaging", 2, 100) <= alone + 4 * copy
    # a copy; an exchange after each period and in the end
    assert seconds("elastic", 1, 50, period=5) == pytest.approx(alone + copy + 11 * 2 * copy)
    # two copies for each group; an exchange after the first step, none before the token has gone round
    assert seconds("replicated", 2, 100, period=1000) == pytest.approx(alone + 2 * copy + 3 * copy, rel=0.02)
    assert seconds("replicated", 1, 50) == pytest.approx(alone)
    # two copies for each group; an exchange after each period, none in the end
    assert seconds("domains", 2, 100, period=25) == pytest.approx(alone + 2 * copy + 2 * 2 * copy, rel=0.02)
    assert seconds("domains", 1, 50) == pytest.approx(alone)


def test_leashed_workers_try_until_nobody_was_faster():
    net = small_net()
    found = {}
    for publish in (1e-9, 1e-4):
        order = Order(
            net,
            engine_of(net, 8, "leashed"),
            flat_times(net, publish=publish),
            Machine(line_ns=0),
            "leashed",
            options_of("leashed"),
            [0],
        )
        seconds = order.seconds(4000)
        found[publish] = order.clock.counts["failures"], seconds
    layers = len({node for node, _ in engine_of(net, 1).stripe_table})
    assert found[1e-9][0] < 400 < 4000 < found[1e-4][0], "tries fail where updates take long, at most once per other worker"
    assert found[1e-4][0] < 7 * 4000
    assert found[1e-4][1] >= 4000 * 2 * layers * 1e-4, "a copy and an update, of which only one at a time can succeed"


def test_244_workers_on_many_images_take_seconds():
    net = chaos.models.small()
    order = Order(net, engine_of(net, 244), virtual.nominal(net), Machine(speed=0.01), "chaos", options_of("chaos"), [0])
    events = sum(len(block) for block in order.blocks(20_000))
    assert events >= 20_000 * 14


def test_times_are_kept_and_checked(tmp_path):
    net = chaos.models.small()
    times = virtual.measured(net)
    assert times.source == "measured" and times.per_image > 0 and times.gflops > 0
    times.write(tmp_path / "t.json")
    assert virtual.read_times(tmp_path / "t.json", net) == times
    with pytest.raises(ValueError, match="the network 1[0-9] layers"):
        virtual.read_times(tmp_path / "t.json", chaos.models.large())
    for text in ("{", "[]", '{"format": "chaos-times-1"}', '{"format": "other"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="bad.json"):
            virtual.read_times(tmp_path / "bad.json", net)
    with pytest.raises(ValueError, match="at least 0"):
        Times("test", 1.0, 0.0, (-1.0,), (0.0,), (0.0,))


def test_what_cannot_be_simulated_is_refused(few_digits):
    net = chaos.models.small()
    with pytest.raises(ValueError, match="'other' cannot be simulated; these can: averaging, chaos"):
        virtual.clock.check_strategy("other", {})
    with pytest.raises(ValueError, match="clipping with strategy 'hybrid' cannot be simulated"):
        chaos.train(
            without_tail(),
            chaos.data.Dataset(*images(20, (2, 9, 8), classes=5)),
            strategy="hybrid",
            batch_size=20,
            workers=2,
            epochs=1,
            progress=False,
            runner=Virtual(),
            update_options={"clip_norm": 1.0},
        )
    for options in (
        dict(strategy="leashed", strategy_options={"persistence": 1}),
        dict(strategy_options={"max_staleness": 3}),
        dict(update_options={"max_norm": 1.0}),
        dict(strategy="hogwild", strategy_options={"grain": "instant"}),
        dict(strategy="synchronous", update_options={"clip_norm": 1.0}),
    ):
        with pytest.raises(ValueError, match="cannot be simulated"):
            chaos.train(net, *few_digits, workers=2, epochs=1, progress=False, runner=Virtual(), **options)
    with pytest.raises(ValueError, match="workers"):
        chaos.train(net, *few_digits, workers=5000, epochs=1, progress=False, runner=Virtual())
    with pytest.raises(ValueError, match="pin"):
        chaos.train(net, *few_digits, workers=5, epochs=1, pin="compact", progress=False, runner=Virtual())


def test_comparison_with_real_workers(few_digits):
    net = chaos.models.small()
    one, two = virtual.compare(net, few_digits[0], (1, 2), repeats=1, lr=0.01)
    assert one["staleness_distance"] == 0 and one["real"]["train_error"] == one["simulated"]["train_error"]
    assert two["workers"] == 2 and 0 <= two["staleness_distance"] <= 1 and two["simulated"]["speedup"] > 0


def test_what_workers_cost_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["simulate", "small", "--data", "digits", "--epochs", "2", "--lr", "0.01", "--quiet", "--beside-sequential"]
    assert cli.main([*arguments, "--workers", "1"]) == 0
    assert "1 workers cost +0.00 points" in capsys.readouterr().out
    assert cli.main([*arguments, "--workers", "244", "--subset", "500"]) == 0
    out = capsys.readouterr().out
    assert out.count(" with --") == 4 and "staleness_step=tail" in out and "--lr 0.005" in out


def test_command(tmp_path, capsys, monkeypatch):
    """One run, gone on with and reported: each step needs the one before."""
    monkeypatch.chdir(tmp_path)
    arguments = [
        "simulate",
        "small",
        "--data",
        "digits",
        "--subset",
        "300",
        "--workers",
        "50",
        "--epochs",
        "2",
        "--lr",
        "0.01",
        "--cores",
        "10",
        "--threads-per-core",
        "4",
        "--slowdown",
        "1,1,1.5,2",
        "--quiet",
    ]
    for folder, jobs in (("a", "1"), ("b", "3")):
        assert cli.main([*arguments, "--run-dir", folder, "--jobs", jobs]) == 0
    out = capsys.readouterr().out
    assert "50 virtual workers on 10 cores of 4 hardware threads" in out and "speed-up" in out and "this host" in out
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    record = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["workers"] == 50 and record["virtual"]["cores"] == 10 and record["seconds"] < 1
    # continued with the machine and the times of the run
    assert cli.main(["simulate", "--resume", "--run-dir", "a", "--epochs", "3", "--quiet"]) == 0
    assert cli.main([*arguments, "--epochs", "3", "--run-dir", "c", "--times", "a/times.json"]) == 0
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "c/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert (
        cli.main(
            [
                "simulate",
                "small",
                "--machine",
                "xeon-phi-7120p",
                "--data",
                "digits",
                "--subset",
                "50",
                "--epochs",
                "1",
                "--quiet",
                "--run-dir",
                "d",
            ]
        )
        == 0
    )
    assert "244 virtual workers on 61 cores of 4 hardware threads" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert cli.main(["train", "--resume", "--run-dir", "a", "--epochs", "4", "--quiet"]) == 2
    assert "a holds a run of virtual workers; continue it with chaos simulate" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert (
        cli.main(
            [
                "simulate",
                "small",
                "--data",
                "digits",
                "--subset",
                "20",
                "--epochs",
                "1",
                "--strategy",
                "sequential",
                "--run-dir",
                "one",
                "--quiet",
            ]
        )
        == 0
    )
    assert "1 virtual worker on 1 core, sequential" in capsys.readouterr().out
    assert cli.main(["simulate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(strategy in out for strategy in STRATEGIES)
    for bad, message in (
        (["--strategy-option", "max_staleness=2"], "cannot be simulated"),
        (["--slowdown", "1,2"], "slowdown"),
        (["--slowdown", "1,a"], "numbers with commas between, such as 1,1.2, not '1,a'"),
        (["--times", "nothing.json"], "nothing.json"),
        (["--cores", "0"], "cores"),
    ):
        assert cli.main([*arguments, "--run-dir", "e", *bad]) == 2
        assert message in capsys.readouterr().err
