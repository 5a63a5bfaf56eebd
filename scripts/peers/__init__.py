"""Benchmark of chaos against PyTorch (and JAX, where installed), behind scripts/bench_peers.py.

chain, side        what all competitors have in common: the network they copy, the protocol of a turn
chaos_engine, pytorch, hogwild, jax_xla    one competitor each; sides is their table
check              loss, gradients and a step of all compared before anything is timed
pipe, processes    a process per side
figures, table, plot, surroundings         what is made of the turns, and what is told beside them
arguments, run     the command
"""
