"""Controlled Hogwild with arbitrary order of synchronisation. Imported by chaos.sync; the fast half is cext/sync/chaos.c."""


class Chaos:
    """CHAOS (Viebke, Memeti, Pllana, Abraham 2017): workers share one weight vector and meet it in arbitrary order.

    A worker reads weights on demand, whatever is there. It gathers the gradient of a layer privately and publishes it when
    the layer's back-propagation is complete, stripe by stripe (16 KiB): a stripe that another worker is writing is passed
    over and visited again before every further layer, at the latest before its gradient buffer is needed again.

    Promises: no update is lost (writers exclude each other per stripe); no worker waits in line; an update is at most one
    step of its own worker late; one worker equals `sequential` bit for bit. With several workers the order of updates,
    hence the last digits of the result, differ from run to run.
    """

    name = "chaos"
    single = False
    exact = True
    equals_sequential = True
