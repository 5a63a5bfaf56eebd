/* The orders of the clock: one file each in orders/, listed by setup.py. For the door. */
#ifndef CHAOS_ORDERS_H
#define CHAOS_ORDERS_H

#include "order.h"

#define KIND(name) extern const clock_order clock_order_##name;
#include "lists/orders.h"
#undef KIND

/* The i-th; NULL past the last. */
const clock_order *orders_at(int i);

#endif
