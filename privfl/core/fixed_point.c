/* Values to fixed point, rounded to the nearest integer (of two the even one): by the same
 * operations on doubles, one after the other, as `crypto.encoding` carries out block by block. A
 * product is cut to [-top, top] and added to 1.5 * 2^52, which leaves the integer in the low bits.
 *
 * Returns 1 where a value is NaN or infinite; what was written is then void.
 */
#include <stdint.h>
#include <string.h>

#define WHOLE 6755399441055744.0
#define SHIFT 0x4338000000000000LL

#define ENCODE(NAME, INTEGER)                                                                  \
    int NAME(const float *values, int64_t d, double factor, double top, INTEGER *out) {        \
        uint32_t odd = 0;                                                                      \
        for (int64_t i = 0; i < d; i++) {                                                      \
            uint32_t bits;                                                                     \
            int64_t whole;                                                                     \
            memcpy(&bits, values + i, sizeof bits);                                            \
            odd |= bits << 1 >= 0xff000000u;                                                   \
            double exact = values[i] * factor;                                                 \
            exact = exact < -top ? -top : exact;                                               \
            exact = exact > top ? top : exact;                                                 \
            exact += WHOLE;                                                                    \
            memcpy(&whole, &exact, sizeof whole);                                              \
            out[i] = (INTEGER)(whole - SHIFT);                                                 \
        }                                                                                      \
        return odd;                                                                            \
    }

ENCODE(fixed_point_int32, int32_t)
ENCODE(fixed_point_int64, int64_t)
