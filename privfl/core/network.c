/* One coordinate of n rows in order, by a network of comparators (Batcher 1968; Knuth, The Art of
 * Computer Programming 3, Algorithm 5.2.2M).
 *
 * A tile of the rows, LANES bytes of columns of each, stays in the first cache. Rows come in by
 * eights, those that are `step` apart, and are put in order in registers: the network's first three
 * phases. Then each pair (i, j) leaves the lesser of two rows of the tile in i and the greater in
 * j, while the next tile's columns are asked for. Which pairs there are, and in which order what is
 * kept is added up, is handed in: bits must be those of the sort that this stands in for. Where
 * there are no sums, the result is the midpoint of the rows `low` and `high` of the tile.
 *
 * The tile has room for n + 3 rows. Returns 1 where a value is NaN or infinite; what was written
 * is then void.
 */
#ifndef VALUE
#include <float.h>
#include <stdint.h>

#define LANES 256
#define SWAP(x, y) { const VALUE least = x < y ? x : y; y = x < y ? y : x; x = least; }

#define VALUE float
#define BITS uint32_t
#define LARGEST FLT_MAX
#define ODD(x) (*(const BITS *)&(x) << 1 >= 0xff000000u)
#define NETWORK network_float32
#include "network.c"
#undef VALUE
#undef BITS
#undef LARGEST
#undef ODD
#undef NETWORK

#define VALUE double
#define BITS uint64_t
#define LARGEST DBL_MAX
#define ODD(x) (*(const BITS *)&(x) << 1 >= 0xffe0000000000000u)
#define NETWORK network_float64
#include "network.c"

#else

int NETWORK(const VALUE *rows, int64_t stride, int64_t n, int64_t d, int64_t step,
            const int32_t *pairs, int64_t n_pairs, const int32_t *sums, int64_t n_sums, VALUE kept,
            int64_t low, int64_t high, VALUE *tile, VALUE *out) {
    enum { W = LANES / sizeof(VALUE), LINE = 64 / sizeof(VALUE) };
    VALUE *total = tile + n * W, *filler = total + W, *waste = filler + W;
    for (int64_t start = 0; start < d; start += W) {
        const int64_t width = d - start < W ? d - start : W;
        BITS odd = 0;
        if (width < W)
            for (int64_t i = 0; i < n; i++)
                for (int64_t l = 0; l < W; l++)
                    tile[i * W + l] = l < width ? rows[i * stride + start + l] : 0;
        for (int64_t l = 0; l < W; l++) filler[l] = LARGEST;
        for (int64_t first = 0; first < step && first < n; first++) {
            const VALUE *from[8];
            VALUE *to[8];
            for (int64_t k = 0; k < 8; k++) {
                const int64_t i = first + k * step;
                to[k] = i < n ? tile + i * W : waste;
                from[k] = i >= n ? filler : width < W ? to[k] : rows + i * stride + start;
            }
            const VALUE *f0 = from[0], *f1 = from[1], *f2 = from[2], *f3 = from[3], *f4 = from[4],
                    *f5 = from[5], *f6 = from[6], *f7 = from[7];
            VALUE *t0 = to[0], *t1 = to[1], *t2 = to[2], *t3 = to[3], *t4 = to[4], *t5 = to[5],
              *t6 = to[6], *t7 = to[7];
#pragma GCC ivdep
            for (int64_t l = 0; l < W; l++) {
                VALUE a = f0[l], b = f1[l], c = f2[l], e = f3[l], g = f4[l], h = f5[l], p = f6[l],
                  q = f7[l];
                odd |= ODD(a) | ODD(b) | ODD(c) | ODD(e) | ODD(g) | ODD(h) | ODD(p) | ODD(q);
                SWAP(a, g) SWAP(b, h) SWAP(c, p) SWAP(e, q)
                SWAP(a, c) SWAP(b, e) SWAP(g, p) SWAP(h, q)
                SWAP(c, g) SWAP(e, h)
                SWAP(a, b) SWAP(c, e) SWAP(g, h) SWAP(p, q)
                SWAP(b, g) SWAP(e, p)
                SWAP(b, c) SWAP(e, g) SWAP(h, p)
                t0[l] = a; t1[l] = b; t2[l] = c; t3[l] = e;
                t4[l] = g; t5[l] = h; t6[l] = p; t7[l] = q;
            }
        }
        if (odd) return 1;
        const VALUE *next = rows + start + W;
        for (int64_t k = 0; k < n_pairs; k++) {
            if (k < 4 * n) __builtin_prefetch(next + (k >> 2) * stride + (k & 3) * LINE);
            VALUE *x = tile + pairs[2 * k] * (int64_t)W, *y = tile + pairs[2 * k + 1] * (int64_t)W;
#pragma GCC ivdep
            for (int64_t l = 0; l < W; l++) SWAP(x[l], y[l])
        }
        if (n_sums) {
            for (int64_t l = 0; l < W; l++) total[l] = 0;
            for (int64_t k = 0; k < n_sums; k++) {
                VALUE *x = tile + sums[2 * k] * (int64_t)W;
                const VALUE *y = tile + sums[2 * k + 1] * (int64_t)W;
#pragma GCC ivdep
                for (int64_t l = 0; l < W; l++) x[l] += y[l];
            }
            for (int64_t l = 0; l < W; l++) total[l] /= kept;
        } else {
            const VALUE *x = tile + low * W, *y = tile + high * W;
            for (int64_t l = 0; l < W; l++) total[l] = x[l] + (y[l] - x[l]) / 2;
        }
        for (int64_t l = 0; l < width; l++) out[start + l] = total[l];
    }
    return 0;
}
#endif
