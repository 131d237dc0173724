/* The checksum of a block of weights, as SPEC.md defines it; redline/engine/checksum.py is the same in numpy.
 *
 * Words of 64 bits in rows of 64; each column is a polynomial in P, and the columns are folded one after the other. Every
 * step is a bijection of the word that it takes in, so a block in which one word has changed never passes.
 */

#define ROW_BYTES 512
#define P UINT64_C(0x9e3779b97f4a7c15)
#define Q UINT64_C(0xd6e8feb86659fd93)

typedef uint64_t words __attribute__((vector_size(64), aligned(8), may_alias));

static inline void add_row(words sums[8], const char *row) {
    for (int i = 0; i < 8; i++) sums[i] = sums[i] * P + ((const words *)row)[i];
}

uint64_t rl_checksum(const void *block, int64_t num_bytes) {
    words sums[8] = {0};
    int64_t whole = num_bytes / ROW_BYTES * ROW_BYTES;
    for (int64_t at = 0; at < whole; at += ROW_BYTES) add_row(sums, (const char *)block + at);
    if (whole < num_bytes) {
        char last[ROW_BYTES] = {0};
        memcpy(last, (const char *)block + whole, (size_t)(num_bytes - whole));
        add_row(sums, last);
    }
    uint64_t result = (uint64_t)num_bytes;
    for (int i = 0; i < 64; i++) {
        result = (result ^ sums[i / 8][i % 8]) * Q;
        result ^= result >> 29;
    }
    return result;
}
