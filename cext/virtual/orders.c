/* The list of orders; see orders.h. */
#include "orders.h"

const clock_order *orders_at(int i)
{
#define KIND(name) &clock_order_##name,
    static const clock_order *const orders[] = {
#include "lists/orders.h"
    };
#undef KIND
    return i >= 0 && i < (int)(sizeof orders / sizeof *orders) ? orders[i] : NULL;
}
