// rl_half: IEEE binary16 in memory; arithmetic is done in float.
typedef _Float16 rl_half;

// rl_bf16: bfloat16 in memory, as its bits.
typedef uint16_t rl_bf16;

// rl_bits: the bits of a float.
static inline uint32_t rl_bits(float x) { uint32_t u; __builtin_memcpy(&u, &x, 4); return u; }

// rl_float: the float of these bits.
static inline float rl_float(uint32_t u) { float x; __builtin_memcpy(&x, &u, 4); return x; }

// rl_from_bf16: exact.
static inline float rl_from_bf16(rl_bf16 x) { return rl_float((uint32_t)x << 16); }

// rl_to_bf16: rounds to nearest even; a NaN stays a NaN. The instruction makes denormal numbers zero.
static inline rl_bf16 rl_to_bf16(float x) {
#if defined(__AVX512BF16__) && defined(__clang__)
  __bf16 narrow = (__bf16)x;
  rl_bf16 bits;
  __builtin_memcpy(&bits, &narrow, 2);
  return bits;
#else
  uint32_t u = rl_bits(x);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (rl_bf16)(x != x ? (u >> 16) | 0x40u : rounded);
#endif
}

// rl_scale: x * 2^n for an integral n, also where 2^n itself is no normal float.
static inline float rl_scale(float x, float n) {
#ifdef __AVX512F__
  return __builtin_ldexpf(x, (int)n);
#else
  int32_t k = (int32_t)n, half = k >> 1;
  return x * rl_float((uint32_t)(half + 127) << 23) * rl_float((uint32_t)(k - half + 127) << 23);
#endif
}

// rl_rint32: the nearest integer, halves to even, of a float below 2^22 in size: one addition, and one of constants.
static inline int32_t rl_rint32(float x) { return (int32_t)(rl_bits(x + 12582912.0f) - 0x4b400000u); }

// rl_exp: e^x within 2 ulp (denormal results within one denormal step); NaN, infinities and overflow as expf.
static inline float rl_exp(float x) {
  x = -104.0f > x ? -104.0f : x;
  x = 89.0f < x ? 89.0f : x;
  float n = __builtin_rintf(x * 1.44269504f);
  float r = x - n * 0.693145752f;
  r = r - n * 1.42860677e-6f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return rl_scale(p, n);
}

// rl_exp_below: e^x for x <= 0 within 2e-7 + 2e-8 |x| of itself; 0 below -88, so that e^-inf = 0 without a comparison. The power
// of 2 is built in the exponent: after the addition the low bits hold n + 127, which is 0 for n = -127.
static inline float rl_exp_below(float x) {
  x = -88.0f > x ? -88.0f : x;
  float y = x * 1.4427f + 12583039.0f; /* another number than below, whose product must not be rounded */
  float f = x * 1.44269502f - (y - 12583039.0f);
  float p = 1.326472731e-3f;
  p = p * f + 9.671512991e-3f;
  p = p * f + 5.550733581e-2f;
  p = p * f + 2.402224243e-1f;
  p = p * f + 6.931470037e-1f;
  p = p * f + 1.0f;
  return p * rl_float(rl_bits(y) << 23);
}

// rl_exp_below_short: the same within 1.1e-4 of itself, for results that are rounded to 16 bits (half a step of bfloat16 is 2e-3).
static inline float rl_exp_below_short(float x) {
  x = -88.0f > x ? -88.0f : x;
  float y = x * 1.4427f + 12583039.0f;
  float f = x * 1.44269502f - (y - 12583039.0f);
  float p = 5.500893295e-2f;
  p = p * f + 2.422109693e-1f;
  p = p * f + 6.932829022e-1f;
  p = p * f + 1.0f;
  return p * rl_float(rl_bits(y) << 23);
}

// rl_rest_bf16: what rounding to bfloat16 takes from x; 0 where that cannot be told.
static inline float rl_rest_bf16(float x) {
  float rest = x - rl_from_bf16(rl_to_bf16(x));
  return __builtin_fabsf(rest) < __builtin_inff() ? rest : 0.0f;
}

// rl_bf16_pair: two numbers of no negative sign as neighbouring bfloat16, the first in the low half; halves round up.
static inline uint32_t rl_bf16_pair(float a, float b) {
  return ((rl_bits(a) + 0x8000u) >> 16) | ((rl_bits(b) + 0x8000u) & 0xffff0000u);
}

// rl_log: natural logarithm within 2 ulp; log(0) = -inf, NaN below 0, denormals exact.
static inline float rl_log(float x) {
  float tiny = x < 1.17549435e-38f ? 1.0f : 0.0f;
  float y = tiny != 0.0f ? x * 8388608.0f : x;
  uint32_t u = rl_bits(y) - 0x3f3504f3u;
  float e = (float)((int32_t)u >> 23) - 23.0f * tiny;
  float r = rl_float((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  float z = r * r;
  p = p * r * z - 2.12194440e-4f * e - 0.5f * z;
  float result = (r + p) + 0.693359375f * e;
  result = x == 0.0f ? -__builtin_inff() : result;
  result = x < 0.0f ? __builtin_nanf("") : result;
  return x < __builtin_inff() ? result : x;
}

// rl_sigmoid: 1 / (1 + e^-x) within 5 ulp; e^-87 below -87. The power of 2 by a minimax polynomial, for 1 + e^-x needs no more;
// its exponent n + 127 is what adding 3 * 2^22 + 127 leaves in the lowest bits.
static inline float rl_sigmoid(float x) {
  x = -87.0f > x ? -87.0f : x;
  x = 87.0f < x ? 87.0f : x;
  float m = x * -1.4427f + 12583039.0f; /* another number than below, whose product must not be rounded */
  float n = m - 12583039.0f;
  float f = x * -1.44269502f - n;
  f = x * -1.925963033e-8f + f;
  float p = 1.326472731e-3f;
  p = p * f + 9.671512991e-3f;
  p = p * f + 5.550733581e-2f;
  p = p * f + 2.402224243e-1f;
  p = p * f + 6.931470037e-1f;
  p = p * f + 1.0f;
  return 1.0f / (p * rl_float(rl_bits(m) << 23) + 1.0f);
}

// rl_sigmoid_f64: 1 / (1 + e^-x).
static inline double rl_sigmoid_f64(double x) { return 1.0 / (1.0 + exp(-x)); }

// rl_tanh: within 5 ulp; a rational approximation, x itself near 0, and +-1 beyond 9.
static inline float rl_tanh(float x) {
  float c = -7.90531111f > x ? -7.90531111f : x;
  c = 7.90531111f < c ? 7.90531111f : c;
  float s = c * c;
  float p = -2.76076847742355e-16f;
  p = p * s + 2.00018790482477e-13f;
  p = p * s - 8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  float q = 1.19825839466702e-06f;
  q = q * s + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  float t = c * p / q;
  t = __builtin_fabsf(x) > 9.0f ? __builtin_copysignf(1.0f, x) : t;
  return __builtin_fabsf(x) < 0.0004f ? x : t;
}

// rl_erf: within 2e-7, relative error within 5e-7; a minimax polynomial in x^2, and +-1 beyond 3.92.
static inline float rl_erf(float x) {
  float t = x * x * 0.1301541f - 1.0f;
  float p = -0.000775409164f;
  p = p * t + 0.00204576435f;
  p = p * t - 0.0016187029f;
  p = p * t + 0.00208712765f;
  p = p * t - 0.00737193599f;
  p = p * t + 0.0140048862f;
  p = p * t - 0.0201804452f;
  p = p * t + 0.0298208389f;
  p = p * t - 0.04337468f;
  p = p * t + 0.0583584942f;
  p = p * t - 0.0740301684f;
  p = p * t + 0.0906023085f;
  p = p * t - 0.109178498f;
  p = p * t + 0.134084269f;
  p = p * t - 0.180108637f;
  p = p * t + 0.360736817f;
  return __builtin_fabsf(x) > 3.92f ? __builtin_copysignf(1.0f, x) : x * p;
}

// rl_gelu: x * (1 + erf(x / sqrt 2)) / 2, within 1e-7 |x|.
static inline float rl_gelu(float x) { return 0.5f * x * (1.0f + rl_erf(x * 0.707106781f)); }

// rl_gelu_f64: x * (1 + erf(x / sqrt 2)) / 2.
static inline double rl_gelu_f64(double x) { return 0.5 * x * (1.0 + erf(x * 0.70710678118654752)); }

// rl_floordivf: numpy's floor division of floats.
static inline float rl_floordivf(float a, float b) {
  float m = fmodf(a, b);
  if (b == 0) return a / b;
  float q = (a - m) / b;
  if (m != 0 && (b < 0) != (m < 0)) q -= 1;
  float f = __builtin_floorf(q);
  return q == 0 ? __builtin_copysignf(0, a / b) : q - f > 0.5f ? f + 1 : f;
}

// rl_floordiv: numpy's floor division of doubles.
static inline double rl_floordiv(double a, double b) {
  double m = fmod(a, b);
  if (b == 0) return a / b;
  double q = (a - m) / b;
  if (m != 0 && (b < 0) != (m < 0)) q -= 1;
  double f = __builtin_floor(q);
  return q == 0 ? __builtin_copysign(0, a / b) : q - f > 0.5 ? f + 1 : f;
}

// rl_modf: remainder with the sign of the divisor.
static inline float rl_modf(float a, float b) {
  float m = fmodf(a, b);
  return m == 0 ? __builtin_copysignf(0, b) : (b < 0) != (m < 0) ? m + b : m;
}

// rl_mod: remainder with the sign of the divisor.
static inline double rl_mod(double a, double b) {
  double m = fmod(a, b);
  return m == 0 ? __builtin_copysign(0, b) : (b < 0) != (m < 0) ? m + b : m;
}

// rl_div_i64: towards zero; 0 where the divisor is 0.
static inline int64_t rl_div_i64(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

// rl_fmod_i64: remainder with the sign of the dividend; 0 where the divisor is 0.
static inline int64_t rl_fmod_i64(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }

// rl_floordiv_i64: towards minus infinity; 0 where the divisor is 0.
static inline int64_t rl_floordiv_i64(int64_t a, int64_t b) {
  int64_t m = rl_fmod_i64(a, b);
  return rl_div_i64(a, b) - (m != 0 && (m < 0) != (b < 0));
}

// rl_mod_i64: remainder with the sign of the divisor; 0 where the divisor is 0.
static inline int64_t rl_mod_i64(int64_t a, int64_t b) {
  int64_t m = rl_fmod_i64(a, b);
  return m != 0 && (m < 0) != (b < 0) ? m + b : m;
}

// rl_upow: a to the power b, wrapping.
static inline uint64_t rl_upow(uint64_t a, uint64_t b) {
  uint64_t result = 1;
  for (; b; b >>= 1, a *= a) result *= b & 1 ? a : 1;
  return result;
}

// rl_ipow: a to the power b, wrapping; for a negative power 0 except where a is 1 or -1.
static inline int64_t rl_ipow(int64_t a, int64_t b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? 1 - 2 * (b & 1) : 0;
  return (int64_t)rl_upow((uint64_t)a, (uint64_t)b);
}

// rl_row16: sixteen floats side by side, at any address.
typedef float rl_row16 __attribute__((vector_size(64), aligned(4), may_alias));

// rl_bits16: their bits, and the outcome of comparing them.
typedef int32_t rl_bits16 __attribute__((vector_size(64), aligned(4), may_alias));

// rl_add16: the sum of two rows.
static inline rl_row16 rl_add16(rl_row16 a, rl_row16 b) { return a + b; }

// rl_max16: the larger of each two, b where one is NaN.
static inline rl_row16 rl_max16(rl_row16 a, rl_row16 b) {
  rl_bits16 mine = a > b;
  return (rl_row16)(((rl_bits16)a & mine) | ((rl_bits16)b & ~mine));
}

// rl_min16: the smaller of each two, b where one is NaN.
static inline rl_row16 rl_min16(rl_row16 a, rl_row16 b) {
  rl_bits16 mine = a < b;
  return (rl_row16)(((rl_bits16)a & mine) | ((rl_bits16)b & ~mine));
}

// rl_power16: 2^x of sixteen numbers within 8e-5 of itself; 0 at -inf. With the part of x below its floor, a cubic.
static inline rl_row16 rl_power16(rl_row16 x) {
  rl_row16 part, p = {0};
  __asm__("vreduceps $9, %1, %0" : "=v"(part) : "v"(x));
  p = p + 7.802454052e-2f;
  p = p * part + 2.260671817e-1f;
  p = p * part + 6.958335026e-1f;
  p = p * part + 9.999252255e-1f;
  __asm__("vscalefps %2, %1, %0" : "=v"(p) : "v"(p), "v"(x));
  return p;
}

// rl_pair16: numbers of no negative sign as neighbouring bfloat16, those of a in the low halves; halves round up.
static inline rl_bits16 rl_pair16(rl_row16 a, rl_row16 b) {
  const rl_bits16 low = (rl_bits16)a + 0x8000, high = (rl_bits16)b + 0x8000;
  return (rl_bits16)((low >> 16) & 0xffff) | (high & (int32_t)0xffff0000);
}

// rl_gelu_table: h(t) = t (1 - erf(t / sqrt 2)) / 2 in 32 pieces about t = k / 5.430862, each a polynomial of degree 4 in the
// distance in pieces, by interpolation at Chebyshev's points: coefficients by power. The last piece, from 5.62 on, is zero.
static const float rl_gelu_table[5][32] __attribute__((aligned(64))) = {
  {0.0f, 0.0786163658f, 0.131226897f, 0.160382092f, 0.169920504f, 0.164442495f, 0.148731947f, 0.127231866f, 0.103655107f,
   0.0807716772f, 0.0603711382f, 0.0433651581f, 0.0299768485f, 0.0199614875f, 0.0128138158f, 0.00793379638f,
   0.00474005099f, 0.00273354142f, 0.00152201811f, 0.000818377128f, 0.000425008038f, 0.000213210078f, 0.000103331244f,
   4.83845906e-05f, 2.18909954e-05f, 9.57046723e-06f, 4.04326283e-06f, 1.65074709e-06f, 6.51320079e-07f, 2.48363079e-07f,
   9.15313194e-08f, 0.0f},
  {0.0920664147f, 0.0653176755f, 0.0403349213f, 0.018624451f, 0.00122918864f, -0.0113787856f, -0.0192950871f,
   -0.0230826624f, -0.0236086417f, -0.0218618382f, -0.0187906511f, -0.0151879806f, -0.0116330162f, -0.00848475751f,
   -0.00591251208f, -0.00394547684f, -0.00252556964f, -0.00155276724f, -0.000917842088f, -0.000522011716f,
   -0.000285832852f, -0.000150758569f, -7.66248486e-05f, -3.75426389e-05f, -1.77367274e-05f, -8.08207369e-06f,
   -3.55274824e-06f, -1.50687617e-06f, -6.16781051e-07f, -2.43660395e-07f, -9.29164088e-08f, 0.0f},
  {-0.0135261109f, -0.0130732767f, -0.0117822289f, -0.00984042976f, -0.00751553569f, -0.00510127516f, -0.00286333449f,
   -0.000998051954f, 0.000388307119f, 0.00127850531f, 0.00172613456f, 0.00182823557f, 0.00169708533f, 0.00143749185f,
   0.00113276765f, 0.000839486485f, 0.00058902544f, 0.000393037684f, 0.000250188168f, 0.000152271299f, 8.87628703e-05f,
   4.96228422e-05f, 2.66332354e-05f, 1.37348816e-05f, 6.81059328e-06f, 3.24902749e-06f, 1.49190055e-06f, 6.59663385e-07f,
   2.80965878e-07f, 1.15309589e-07f, 4.56113405e-08f, 0.0f},
  {1.13691435e-07f, 0.000297345949f, 0.000550757453f, 0.000725811406f, 0.000804434589f, 0.00078731298f, 0.000691580761f,
   0.00054493983f, 0.000378267956f, 0.000218889007f, 8.60912915e-05f, -1.04905093e-05f, -6.99520751e-05f,
   -9.75869989e-05f, -0.000101840844f, -9.16418212e-05f, -7.46015867e-05f, -5.61790657e-05f, -3.96202377e-05f,
   -2.63670245e-05f, -1.66412228e-05f, -9.99578151e-06f, -5.72892714e-06f, -3.13906889e-06f, -1.64686298e-06f,
   -8.28260227e-07f, -3.99717777e-07f, -1.85253882e-07f, -8.25088549e-08f, -3.53346152e-08f, -1.45571954e-08f, 0.0f},
  {7.61605625e-05f, 7.06034625e-05f, 5.47281343e-05f, 3.20826912e-05f, 7.26604821e-06f, -1.51318145e-05f,
   -3.16201367e-05f, -4.04652383e-05f, -4.17844094e-05f, -3.71451315e-05f, -2.88818137e-05f, -1.93849701e-05f,
   -1.05657891e-05f, -3.59295132e-06f, 1.10976396e-06f, 3.68907922e-06f, 4.61774789e-06f, 4.46859758e-06f,
   3.75704144e-06f, 2.86324848e-06f, 2.01884313e-06f, 1.33232925e-06f, 8.28981797e-07f, 4.88689352e-07f, 2.73898706e-07f,
   1.46331828e-07f, 7.46687192e-08f, 3.64472541e-08f, 1.70396053e-08f, 7.6377642e-09f, 3.28513505e-09f, 0.0f},
};

// rl_pick32: the elements of table[0 .. 32) that the low five bits say.
static inline rl_row16 rl_pick32(const float *table, rl_bits16 at) {
#ifdef __clang__
  return __builtin_ia32_vpermi2varps512(*(const rl_row16 *)table, at, *(const rl_row16 *)(table + 16));
#else
  return __builtin_shuffle(*(const rl_row16 *)table, *(const rl_row16 *)(table + 16), at);
#endif
}

// rl_gelu_lanes: rl_gelu of sixteen numbers in place, within 3 ulp above -1 and 6e-8 below; 0 at -inf. GELU is max(x, 0) -
// h(|x|), and h is looked up: 15 instructions instead of 24.
static inline void rl_gelu_lanes(float *lanes) {
  rl_row16 x = *(const rl_row16 *)lanes, zero = {0};
  rl_row16 t = rl_min16(zero + 5.8f, (rl_row16)((rl_bits16)x & 0x7fffffff));
  rl_row16 u = t * 5.430862f + 12582912.0f; /* 3 * 2^22: the low bits hold the piece */
  rl_row16 r = t * 5.430862f - (u - 12582912.0f);
  rl_row16 p = rl_pick32(rl_gelu_table[4], (rl_bits16)u);
  p = p * r + rl_pick32(rl_gelu_table[3], (rl_bits16)u);
  p = p * r + rl_pick32(rl_gelu_table[2], (rl_bits16)u);
  p = p * r + rl_pick32(rl_gelu_table[1], (rl_bits16)u);
  p = p * r + rl_pick32(rl_gelu_table[0], (rl_bits16)u);
  *(rl_row16 *)lanes = rl_max16(zero, x) - p;
}

// rl_sigmoid_lanes: rl_sigmoid of sixteen numbers in place, with an estimated reciprocal and one step of Newton's instead of a
// division, which takes as long as everything else. For AVX-512.
static inline void rl_sigmoid_lanes(float *lanes) {
  rl_row16 x = *(const rl_row16 *)lanes, least = (rl_row16){0} - 87.0f, most = (rl_row16){0} + 87.0f, r;
  __asm__("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(least)); /* a NaN stays one */
  __asm__("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(most));
  rl_row16 m = x * -1.4427f + 12583039.0f;
  rl_row16 f = x * -1.44269502f - (m - 12583039.0f);
  f = x * -1.925963033e-8f + f;
  rl_row16 p = f * 1.326472731e-3f + 9.671512991e-3f;
  p = p * f + 5.550733581e-2f;
  p = p * f + 2.402224243e-1f;
  p = p * f + 6.931470037e-1f;
  p = p * f + 1.0f;
  rl_row16 d = p * (rl_row16)((rl_bits16)m << 23) + 1.0f;
  __asm__("vrcp14ps %1, %0" : "=v"(r) : "v"(d));
  *(rl_row16 *)lanes = r + r * (1.0f - d * r);
}

// rl_sigmoid_lanes_bf16: the same within a relative 1.4e-4, for what is rounded to bfloat16 afterwards: the power of 2 by a cubic,
// and the estimated reciprocal as it is.
static inline void rl_sigmoid_lanes_bf16(float *lanes) {
  rl_row16 x = *(const rl_row16 *)lanes, least = (rl_row16){0} - 87.0f, most = (rl_row16){0} + 87.0f, r;
  __asm__("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(least)); /* a NaN stays one */
  __asm__("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(most));
  rl_row16 m = x * -1.4427f + 12583039.0f;
  rl_row16 f = x * -1.44269502f - (m - 12583039.0f);
  rl_row16 p = f * 0.055171574f + 0.242611145f;
  p = p * f + 0.693261006f;
  p = p * f + 0.999928073f;
  rl_row16 d = p * (rl_row16)((rl_bits16)m << 23) + 1.0f;
  __asm__("vrcp14ps %1, %0" : "=v"(r) : "v"(d));
  *(rl_row16 *)lanes = r;
}

// rl_large16: the larger of each two non-negative integers.
static inline rl_bits16 rl_large16(rl_bits16 a, rl_bits16 b) {
  rl_bits16 mine = a > b;
  return (a & mine) | (b & ~mine);
}

// RL_FOLD16: folds the rows lanes[0 .. count) into one number.
#define RL_FOLD16(row, fold) \
  row v = *(const row *)lanes; \
  for (int k = 16; k < count; k += 16) v = fold(v, *(const row *)(lanes + k)); \
  v = fold(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
  v = fold(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3)); \
  v = fold(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1)); \
  v = fold(v, __builtin_shufflevector(v, v, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0)); \
  return v[0];

// rl_sum_lanes: the sum of count (a multiple of 16) floats.
static inline float rl_sum_lanes(const float *lanes, int count) { RL_FOLD16(rl_row16, rl_add16) }

// rl_max_lanes: the largest of them.
static inline float rl_max_lanes(const float *lanes, int count) { RL_FOLD16(rl_row16, rl_max16) }

// rl_min_lanes: the smallest of them.
static inline float rl_min_lanes(const float *lanes, int count) { RL_FOLD16(rl_row16, rl_min16) }

// rl_large_lanes: the largest of count integers below 2^31.
static inline uint32_t rl_large_lanes(const uint32_t *lanes, int count) { RL_FOLD16(rl_bits16, rl_large16) }

// RL_TRANSPOSE16: the function that sets to[r * to_step + c] = from[c * from_step + r] for a tile of 16 x 16 elements.
#define RL_LOW(s, e) ((e) & (s) ? 16 + (e) - (s) : (e))
#define RL_HIGH(s, e) ((e) & (s) ? 16 + (e) : (e) + (s))
#define RL_EVEN(s, a, b) __builtin_shufflevector(a, b, \
  RL_LOW(s, 0), RL_LOW(s, 1), RL_LOW(s, 2), RL_LOW(s, 3), RL_LOW(s, 4), RL_LOW(s, 5), RL_LOW(s, 6), RL_LOW(s, 7), \
  RL_LOW(s, 8), RL_LOW(s, 9), RL_LOW(s, 10), RL_LOW(s, 11), RL_LOW(s, 12), RL_LOW(s, 13), RL_LOW(s, 14), RL_LOW(s, 15))
#define RL_ODD(s, a, b) __builtin_shufflevector(a, b, \
  RL_HIGH(s, 0), RL_HIGH(s, 1), RL_HIGH(s, 2), RL_HIGH(s, 3), RL_HIGH(s, 4), RL_HIGH(s, 5), RL_HIGH(s, 6), RL_HIGH(s, 7), \
  RL_HIGH(s, 8), RL_HIGH(s, 9), RL_HIGH(s, 10), RL_HIGH(s, 11), RL_HIGH(s, 12), RL_HIGH(s, 13), RL_HIGH(s, 14), RL_HIGH(s, 15))
#define RL_STAGE(row, s) \
  for (int k = 0; k < 16; ++k) if (!(k & (s))) { \
    row a = r[k], b = r[k + (s)]; r[k] = RL_EVEN(s, a, b); r[k + (s)] = RL_ODD(s, a, b); }
#define RL_TRANSPOSE16(name, element) \
  typedef element name##_row __attribute__((vector_size(16 * sizeof(element)), aligned(sizeof(element)), may_alias)); \
  static inline void name(void *to, int64_t to_step, const void *from, int64_t from_step) { \
    name##_row r[16]; \
    for (int k = 0; k < 16; ++k) r[k] = *(const name##_row *)((const element *)from + k * from_step); \
    RL_STAGE(name##_row, 8) RL_STAGE(name##_row, 4) RL_STAGE(name##_row, 2) RL_STAGE(name##_row, 1) \
    for (int k = 0; k < 16; ++k) *(name##_row *)((element *)to + k * to_step) = r[k]; \
  }

// rl_transpose16_1: elements of one byte.
RL_TRANSPOSE16(rl_transpose16_1, int8_t)

// rl_transpose16_2: elements of two bytes.
RL_TRANSPOSE16(rl_transpose16_2, int16_t)

// rl_transpose16_4: elements of four bytes.
RL_TRANSPOSE16(rl_transpose16_4, float)

// rl_transpose16_8: elements of eight bytes.
RL_TRANSPOSE16(rl_transpose16_8, double)

// rl_word: 16 integers, as vectors.
typedef int32_t rl_word __attribute__((vector_size(64), may_alias));
typedef int16_t rl_half_word __attribute__((vector_size(64), may_alias));

// rl_whole: 16 floats, rounded to nearest even.
#ifdef __clang__
static inline __attribute__((always_inline)) rl_word rl_whole(const float *x) {
  typedef float floats __attribute__((vector_size(64), may_alias));
  return (rl_word)__builtin_ia32_cvtps2dq512_mask(*(const floats *)x, (rl_word){0}, (uint16_t)-1, 4);
}
#endif

// rl_bytes_of: 32 and 32 halves plus zero as bytes, in the order of four vectors of floats. All saturates.
#ifdef __clang__
static inline __attribute__((always_inline)) rl_word rl_bytes_of(rl_half_word a, rl_half_word b, int zero) {
  const rl_half_word by = (rl_half_word){0} + (int16_t)zero;
  if (zero) {
    a = __builtin_elementwise_add_sat(a, by);
    b = __builtin_elementwise_add_sat(b, by);
  }
  const rl_word c = (rl_word)__builtin_ia32_packuswb512(a, b);
  return __builtin_shufflevector(c, c, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}
#endif

// rl_bytes_slowly: for other compilers.
static inline void rl_bytes_slowly(const float *x, int count, int zero, uint8_t *out) {
  for (int i = 0; i < count; ++i) {
    const int y = (int)__builtin_rintf(x[i] < -512.0f ? -512.0f : x[i]) + zero;
    out[i] = (uint8_t)(y < 0 ? 0 : y > 255 ? 255 : y);
  }
}

// rl_bytes4: 64 floats below 2^31, rounded, plus zero, as bytes.
static inline __attribute__((always_inline)) void rl_bytes4(const float *x, int zero, uint8_t *out) {
#ifdef __clang__
  const rl_half_word a = (rl_half_word)__builtin_ia32_packssdw512(rl_whole(x), rl_whole(x + 16));
  const rl_half_word b = (rl_half_word)__builtin_ia32_packssdw512(rl_whole(x + 32), rl_whole(x + 48));
  const rl_word c = rl_bytes_of(a, b, zero);
  __builtin_memcpy(out, &c, 64);
#else
  rl_bytes_slowly(x, 64, zero, out);
#endif
}

// rl_bytes2: 32 floats.
static inline __attribute__((always_inline)) void rl_bytes2(const float *x, int zero, uint8_t *out) {
#ifdef __clang__
  const rl_half_word a = (rl_half_word)__builtin_ia32_packssdw512(rl_whole(x), rl_whole(x + 16));
  const rl_word c = rl_bytes_of(a, a, zero);
  __builtin_memcpy(out, &c, 32);
#else
  rl_bytes_slowly(x, 32, zero, out);
#endif
}

// rl_bytes1: 16 floats.
static inline __attribute__((always_inline)) void rl_bytes1(const float *x, int zero, uint8_t *out) {
#ifdef __clang__
  const rl_word whole = rl_whole(x);
  const rl_half_word a = (rl_half_word)__builtin_ia32_packssdw512(whole, whole);
  const rl_word c = rl_bytes_of(a, a, zero);
  __builtin_memcpy(out, &c, 16);
#else
  rl_bytes_slowly(x, 16, zero, out);
#endif
}
