"""Learning-rate schedules: functions of the epoch. Imported by chaos.updates."""


def exponential(lr, decay, epoch):
    """lr * decay^(epoch - 1): the learning rate of epoch 1, 2, ...; the paper's schedule is 0.001 and 0.9."""
    return lr * decay ** (epoch - 1)
