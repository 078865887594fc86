// Mathematics, and products of small float32 matrices whose sizes and strides are known when this is
// compiled. Nothing is included: reading headers would take longer than all else.

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL (2 * LANES)  // columns at a time: with six rows of the other matrix, twelve sums in registers
#define INLINE static inline __attribute__((always_inline))

typedef long long i64;

#ifdef VECTOR_MATH // glibc has these for several numbers at a time
#define MATH __attribute__((simd("notinbranch"), const))
#else
#define MATH __attribute__((const))
#endif
extern "C" {
MATH float expf(float);
MATH float logf(float);
MATH float log1pf(float);
MATH float powf(float, float);
MATH float tanhf(float);
MATH float erff(float);
MATH double exp(double);
MATH double log(double);
MATH double log1p(double);
MATH double pow(double, double);
MATH double tanh(double);
MATH double erf(double);
}

#define OF_ONE(name, with_float, with_double)       \
  INLINE float name(float x) { return with_float; } \
  INLINE double name(double x) { return with_double; }
OF_ONE(absolute, __builtin_fabsf(x), __builtin_fabs(x))
OF_ONE(root, __builtin_sqrtf(x), __builtin_sqrt(x))
OF_ONE(exponential, expf(x), exp(x))
OF_ONE(logarithm, logf(x), log(x))
OF_ONE(logarithm_of_1_and, log1pf(x), log1p(x))
OF_ONE(hyperbolic, tanhf(x), tanh(x))
OF_ONE(normal_cdf, 0.5f * (1 + erff(x * 0.70710678f)), 0.5 * (1 + erf(x * 0.7071067811865476)))
OF_ONE(normal_density, 0.3989422804f * expf(-0.5f * x * x), 0.3989422804014327 * exp(-0.5 * x * x))
INLINE i64 absolute(i64 x) { return x < 0 ? -x : x; }
INLINE float power(float x, float y) { return powf(x, y); }
INLINE double power(double x, double y) { return pow(x, y); }

template <class T> INLINE T silu_slope(T x) {
  const T s = 1 / (1 + exponential(-x));
  return s * (1 + x * (1 - s));
}
template <class T> INLINE T gelu_inner(T x) { return T(0.7978845608028654) * (x + T(0.044715) * x * x * x); }
template <class T> INLINE T gelu_by_tanh(T x) { return T(0.5) * x * (1 + hyperbolic(gelu_inner(x))); }
template <class T> INLINE T gelu_by_tanh_slope(T x) {
  const T t = hyperbolic(gelu_inner(x));
  const T slope = T(0.7978845608028654) * (1 + T(3 * 0.044715) * x * x);
  return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * slope;
}
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vec load(const float* from) { return *(const vec*)from; }

// (k, n) with strides → panels of (k, PANEL), the last one filled up with zeros
INLINE void pack(i64 n, i64 k, const float* b, i64 bk, i64 bn, float* panels) {
  for (i64 j = 0; j < n; j += PANEL) {
    const i64 width = n - j < PANEL ? n - j : PANEL;
    for (i64 p = 0; p < k; p++) {
      float* row = panels + j * k + p * PANEL;
      for (i64 l = 0; l < width; l++) row[l] = b[p * bk + (j + l) * bn];
      for (i64 l = width; l < PANEL; l++) row[l] = 0;
    }
  }
}

INLINE void rows(i64 count, i64 width, i64 k, const float* a, i64 am, i64 ak, const float* panel, i64 step,
                 float* c, i64 cm) {
  vec sums[6][2];
#pragma GCC unroll 6
  for (i64 r = 0; r < count; r++) sums[r][0] = sums[r][1] = (vec){0};
  for (i64 p = 0; p < k; p++) {
    const vec left = load(panel + p * step), right = load(panel + p * step + LANES);
#pragma GCC unroll 6
    for (i64 r = 0; r < count; r++) {
      const float factor = a[r * am + p * ak];
      sums[r][0] += factor * left;
      sums[r][1] += factor * right;
    }
  }
#pragma GCC unroll 6
  for (i64 r = 0; r < count; r++) {
    if (width == PANEL) {
      *(vec*)(c + r * cm) = sums[r][0];
      *(vec*)(c + r * cm + LANES) = sums[r][1];
    } else {
      float row[PANEL];
      *(vec*)row = sums[r][0];
      *(vec*)(row + LANES) = sums[r][1];
      for (i64 l = 0; l < width; l++) c[r * cm + l] = row[l];
    }
  }
}

INLINE void panel_of_rows(i64 m, i64 width, i64 k, const float* a, i64 am, i64 ak, const float* panel, i64 step,
                          float* c, i64 cm) {
  const i64 whole = m - m % 6;
  for (i64 i = 0; i < whole; i += 6) rows(6, width, k, a + i * am, am, ak, panel, step, c + i * cm, cm);
  a += whole * am;
  c += whole * cm;
  switch (m % 6) {
    case 1: rows(1, width, k, a, am, ak, panel, step, c, cm); break;
    case 2: rows(2, width, k, a, am, ak, panel, step, c, cm); break;
    case 3: rows(3, width, k, a, am, ak, panel, step, c, cm); break;
    case 4: rows(4, width, k, a, am, ak, panel, step, c, cm); break;
    case 5: rows(5, width, k, a, am, ak, panel, step, c, cm); break;
  }
}

// c = a b: (m, k) by (k, n) → (m, n), whose rows lie one after another
INLINE void product(i64 m, i64 n, i64 k, const float* a, i64 am, i64 ak, const float* b, i64 bk, i64 bn, float* c,
                    float* panels) {
  if (n < LANES / 2 && ak == 1 && bk == 1) {
    for (i64 i = 0; i < m; i++)
      for (i64 j = 0; j < n; j++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (i64 p = 0; p < k; p++) sum += a[i * am + p] * b[j * bn + p];
        c[i * n + j] = sum;
      }
    return;
  }
  const i64 whole = n - n % PANEL;
  if (bn == 1) { // read where it lies; only what remains is packed
    for (i64 j = 0; j < whole; j += PANEL) panel_of_rows(m, PANEL, k, a, am, ak, b + j, bk, c + j, n);
  } else {
    pack(whole, k, b, bk, bn, panels);
    for (i64 j = 0; j < whole; j += PANEL) panel_of_rows(m, PANEL, k, a, am, ak, panels + j * k, PANEL, c + j, n);
  }
  if (whole < n) {
    pack(n - whole, k, b + whole * bn, bk, bn, panels + whole * k);
    panel_of_rows(m, n - whole, k, a, am, ak, panels + whole * k, PANEL, c + whole, n);
  }
}
