/* Adam with decoupled weight decay: w <- (1 - lr * weight_decay) * w, then Adam without it.
 * Body: included by cext/isa/ only. */

KERNEL void adamw_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    adam_loop(n, w, dw, moment, s, penalty_of(0, s->option[RULE_L1]), (float)(1 - s->lr * s->option[RULE_WEIGHT_DECAY]));
}

static const update_kind update_adamw = {.name = "adamw", .n_moments = 2, .apply = adamw_apply};
