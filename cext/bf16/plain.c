/* The products of bf16.h in plain C: what the other units are compared with. */
#include "bf16.h"

#include <string.h>

static uint16_t rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t size = bits & 0x7fffffff;
    if (size > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    if (size < 0x00800000)
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float widened(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static void plain_round(size_t n, const float *from, uint16_t *to)
{
    size_t i = 0;
    for (; i < n; i++)
        to[i] = rounded(from[i]);
    for (; i % BF16_DEPTH; i++)
        to[i] = 0;
}

static void plain_pairs(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t panel)
{
    for (size_t n = 0; n < columns; n += BF16_LINES, to += panel)
        for (size_t k = 0; k < BF16_DEPTH; k++)
            for (size_t j = 0; j < BF16_LINES; j++)
                to[k / 2 * BF16_DEPTH + 2 * j + k % 2] = row[k] && n + j < columns ? rounded(row[k][n + j]) : 0;
}

static void plain_turned(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t step)
{
    for (size_t c = 0; c < columns; c++)
        for (size_t k = 0; k < BF16_DEPTH; k++)
            to[c * step + k] = row[k] ? rounded(row[k][c]) : 0;
}

static void plain_turned_pairs(const float *const row[BF16_LINES], size_t terms, uint16_t *to)
{
    for (size_t k = 0; k < (terms + BF16_DEPTH - 1) / BF16_DEPTH * BF16_DEPTH; k++)
        for (size_t j = 0; j < BF16_LINES; j++)
            to[k / 2 * BF16_DEPTH + 2 * j + k % 2] = row[j] && k < terms ? rounded(row[j][k]) : 0;
}

static void plain_product(const bf16_product *p)
{
    for (int m = 0; m < p->rows; m++) {
        const uint16_t *a = p->a + m / p->wide * p->a_row + m % p->wide * p->a_step;
        float *to = p->to + m / p->wide * p->to_row + m % p->wide * p->to_step;
        for (int n = 0; n < p->columns; n += BF16_LINES) {
            const int live = p->columns - n < BF16_LINES ? p->columns - n : BF16_LINES;
            const uint16_t *b = p->b + (size_t)(n / BF16_LINES) * (size_t)p->depth * BF16_TILE;
            float sum[BF16_LINES] = {0};
            for (int j = 0; j < live; j++)
                sum[j] = p->adds ? to[n + j] : p->from ? p->from[n + j] : 0;
            for (int k = 0; k < p->depth; k++, b += BF16_TILE) {
                float part[BF16_DEPTH] = {0}; /* even and odd terms in turns */
                for (int q = 0; q < BF16_LINES; q++) {
                    const float even = widened(a[p->run[k] + 2 * q]), odd = widened(a[p->run[k] + 2 * q + 1]);
                    for (int j = 0; j < BF16_LINES; j++) {
                        part[2 * j] += even * widened(b[q * BF16_DEPTH + 2 * j]);
                        part[2 * j + 1] += odd * widened(b[q * BF16_DEPTH + 2 * j + 1]);
                    }
                }
                for (int j = 0; j < BF16_LINES; j++)
                    sum[j] += part[2 * j] + part[2 * j + 1];
            }
            memcpy(to + n, sum, (size_t)live * sizeof(float));
        }
    }
}

const bf16_unit bf16_plain = {"plain", plain_round, plain_pairs, plain_turned, plain_turned_pairs, plain_product};
