// What every generated C++ scan stands on: tensors seen one block of lanes at a time, and torch's arithmetic.
// No standard headers, and nothing inlined that is not of a lane loop: a kernel builds in a quarter of a second.

namespace fx {
struct Place {
  void* at;
};
}  // namespace fx
inline void* operator new(decltype(sizeof 0), fx::Place place) noexcept { return place.at; }

namespace fx {

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned char u8;

#ifndef FX_LANES
#define FX_LANES 512
#endif
constexpr int LANES = FX_LANES;  // lanes of a block at most; states of a block live in L1
constexpr int THREADS = 256;  // of a call at most
constexpr int PAD = 64;     // lane loops run in multiples of this, so that no lane meets a scalar remainder

#define FX_INLINE inline __attribute__((always_inline))
// Compiled once and called: inlined at every load of every tensor it would be most of what a kernel takes to build.
// Not cold, though much of it runs once a block: GCC takes what calls the cold for cold too, down to the lane loops.
#define FX_APART __attribute__((noinline))

// ---- 16-bit floats ----------------------------------------------------------------------------------------

// Plain integers in memory and fp32 in registers: GCC vectorises neither the copy of a struct nor the conversions
// of _Float16.

enum class bf16 : unsigned short {};
enum class f16 : unsigned short {};

FX_INLINE float to_float(bf16 x) { return __builtin_bit_cast(float, unsigned(x) << 16); }
FX_INLINE bf16 to_bf16(float x) {
  const unsigned u = __builtin_bit_cast(unsigned, x);
  const unsigned rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = -unsigned(x != x);
  return bf16((0x7fc0u & nan) | (rounded & ~nan));
}

FX_INLINE float to_float(f16 x) {
  const unsigned u = unsigned(x), magnitude = (u & 0x7fffu) << 13, sign = (u & 0x8000u) << 16;
  const float scaled = __builtin_bit_cast(float, magnitude) * 0x1p112f;  // rebias the exponent, subnormals included
  const unsigned special = -unsigned((u & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return __builtin_bit_cast(float, __builtin_bit_cast(unsigned, scaled) | special | sign);
}
FX_INLINE f16 to_f16(float x) {
  const unsigned u = __builtin_bit_cast(unsigned, x), sign = u & 0x80000000u, magnitude = u ^ sign;
  // normal: rebias and round half to even; subnormal: let an addition align and round the bits
  const unsigned normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  const unsigned subnormal =
      __builtin_bit_cast(unsigned, __builtin_bit_cast(float, magnitude) + 0.5f) - 0x3f000000u;
  const unsigned small = -unsigned(magnitude < 0x38800000u), large = -unsigned(magnitude >= 0x477ff000u);
  const unsigned nan = -unsigned(magnitude > 0x7f800000u);
  unsigned half = (subnormal & small) | (normal & ~small);
  half = (0x7c00u & large) | (half & ~large);
  return f16((half | (0x0200u & nan)) | sign >> 16);
}

// ---- the call: one array of integers ------------------------------------------------------------------------
//
// T, N, D, threads, lanes per block, sizes[D], then per tensor: address, time stride, dense, strides[D]

struct Call {
  const i64* sizes;
  i64 T, N, blocks;
  int D, threads, block;

  explicit Call(const i64* a)
      : sizes(a + 5), T(a[0]), N(a[1]), blocks((a[1] + a[4] - 1) / a[4]), D(int(a[2])), threads(int(a[3])),
        block(int(a[4])) {}
  const i64* tensor(int index) const { return sizes + D + index * (3 + D); }
  template <class T> T* data(int index) const { return reinterpret_cast<T*>(tensor(index)[0]); }
  int lanes(i64 block_index) const {
    const i64 left = N - block_index * block;
    return int(left < block ? left : block);
  }
};

// ---- who computes which blocks ----------------------------------------------------------------------------------

#ifdef _OPENMP
extern "C" int omp_get_thread_num() noexcept;
extern "C" double omp_get_wtime() noexcept;
#else
inline int omp_get_thread_num() { return 0; }
inline double omp_get_wtime() { return 0; }
#endif

// Each thread begins with blocks of its own, which its cache may hold from the forward pass, and goes on with what
// others have not begun: whoever is late finds less to do.
struct Team {
  struct alignas(64) Run {
    i64 next, end;
    i64 done;        // blocks that the thread itself has computed
    double seconds;  // that it took for them
  };
  Run runs[THREADS];
  const int threads;
  const i64 blocks;
  const double start;

  FX_APART explicit Team(const Call& call) : threads(call.threads), blocks(call.blocks), start(time()) {
    for (int i = 0; i < threads; ++i) runs[i] = {blocks * i / threads, blocks * (i + 1) / threads, 0, 0};
  }

  FX_APART bool take(i64& b) {
    const int me = omp_get_thread_num();
    for (int i = 0; i < threads; ++i) {
      Run& run = runs[(me + i) % threads];
      if (__atomic_load_n(&run.next, __ATOMIC_RELAXED) >= run.end) continue;
      b = __atomic_fetch_add(&run.next, 1, __ATOMIC_RELAXED);
      if (b < run.end) {
        ++runs[me].done;
        return true;
      }
    }
    runs[me].seconds = time() - start;
    return false;
  }

  // Seconds that it took longer than the quickest thread alone would have: any may have had to wait for a processor,
  // the calling one as well.
  FX_APART double lost() const {
    if (threads == 1) return 0;
    double pace = __builtin_inf();
    for (int i = 0; i < threads; ++i)
      if (runs[i].done && runs[i].seconds / double(runs[i].done) < pace) pace = runs[i].seconds / double(runs[i].done);
    const double loss = time() - start - pace * double(blocks);
    return loss > 0 ? loss : 0;
  }

 private:
  double time() const { return threads > 1 ? omp_get_wtime() : 0; }
};

FX_INLINE int padded(int n) { return (n + PAD - 1) / PAD * PAD; }

// One tensor, seen through one block of lanes. A dense tensor is used in place; any other layout (broadcast,
// batch-first, sliced) and a ragged last block are staged through a buffer, run of equal stride by run.
template <class T>
struct Tensor {
  struct Run {
    int lane, size;
    i64 offset;
  };
  T* data;
  i64 time, step;
  const i64* strides;
  const Call* call;
  T* base;
  bool dense, direct;
  int runs;
  Run run[LANES];
  alignas(64) T buffer[LANES];

  FX_APART Tensor(const Call& c, int index) : call(&c) {
    const i64* record = c.tensor(index);
    data = c.data<T>(index);
    time = record[1];
    dense = record[2] != 0;
    strides = record + 3;
  }

  FX_APART void bind(i64 lane, int n) {
    if (dense) {
      base = data + lane;
      direct = n % PAD == 0;
      step = 1;
      runs = 1;
      run[0] = {0, n, 0};
    } else {
      find_runs(lane, n);
      base = data;
      direct = runs == 1 && step == 1 && n % PAD == 0;
      if (direct) base += run[0].offset;
    }
    if (!direct) for (int l = step ? n / PAD * PAD : 0; l < padded(n); ++l) buffer[l] = T(0);
  }

  FX_INLINE const T* load(i64 t) {
    const T* from = base + t * time;
    return direct ? from : gather(from);
  }

  // Ask for step t early: a block's row is too short for the hardware to see it coming.
  void prefetch(i64 t, int n) const {
    if (!direct) return;
    const T* row = base + t * time;
    for (int l = 0; l < n; l += 64 / int(sizeof(T))) __builtin_prefetch(row + l, 0, 2);
  }

  T* store(i64 t) { return direct ? base + t * time : buffer; }

  FX_INLINE void flush(i64 t) {
    if (!direct) scatter(base + t * time);
  }

 private:
  FX_APART const T* gather(const T* from) {
    for (int r = 0; r < runs; ++r) {
      const T* source = from + run[r].offset;
      T* target = buffer + run[r].lane;
      if (step == 1) for (int i = 0; i < run[r].size; ++i) target[i] = source[i];
      else if (step == 0) fill(target, run[r].size, *source);
      else for (int i = 0; i < run[r].size; ++i) target[i] = source[i * step];
    }
    return buffer;
  }

  // Most often the value is the one of the step before: masks and lengths change seldom.
  FX_INLINE static void fill(T* target, int size, const T value) {
    if (__builtin_memcmp(target, &value, sizeof(T)) == 0) return;
    for (int i = 0; i < size; ++i) target[i] = value;
  }

  FX_APART void scatter(T* to) {
    for (int r = 0; r < runs; ++r)
      for (int i = 0; i < run[r].size; ++i) to[run[r].offset + i * step] = buffer[run[r].lane + i];
  }

  FX_APART void find_runs(i64 lane, int n) {
    const int last = call->D - 1;
    step = strides[last];
    runs = 0;
    for (int done = 0; done < n;) {
      i64 rest = lane + done, offset = 0;
      const i64 inner = rest % call->sizes[last];
      rest /= call->sizes[last];
      for (int d = last - 1; d >= 0; --d) {
        offset += rest % call->sizes[d] * strides[d];
        rest /= call->sizes[d];
      }
      const i64 left = call->sizes[last] - inner;
      const int size = int(left < n - done ? left : n - done);
      run[runs++] = {done, size, offset + inner * step};
      done += size;
    }
  }
};

// The sum over each GROUP lanes of a block.
template <int GROUP, class T>
void sum_groups(const T* values, int lanes, T* sums) {
  for (int first = 0; first < lanes; first += GROUP) {
    const int end = first + GROUP < lanes ? first + GROUP : lanes;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int l = first; l < end; ++l) sum += values[l];
    sums[first / GROUP] = sum;
  }
}

extern "C" void* aligned_alloc(unsigned long, unsigned long) noexcept;
extern "C" void free(void*) noexcept;

// Memory of a thread for the length of a call: recomputed states, and what would be too much for a small stack.
struct Scratch {
  char* memory;

  explicit Scratch(i64 bytes) : memory(static_cast<char*>(aligned_alloc(64, (bytes + 63) / 64 * 64))) {}
  ~Scratch() { free(memory); }
  Scratch(const Scratch&) = delete;
};

// Hands out pieces of it, one after the other; a copy starts again where it was copied.
struct Pieces {
  static constexpr int GAP = 128;  // or many arrays would begin at the same place of a page
  char* next;
  int lanes;

  static i64 bytes(const Call& call, int arrays) { return arrays * (8LL * padded(call.block) + GAP); }
  Pieces(const Scratch& heap, const Call& call) : next(heap.memory), lanes(padded(call.block)) {}

  template <class T> T* array() {
    T* values = reinterpret_cast<T*>(next);
    next += i64(sizeof(T)) * lanes + GAP;
    return values;
  }
  template <class T> Tensor<T>& tensor(const Call& call, int index) {
    auto* made = new (Place{next}) Tensor<T>(call, index);
    next += sizeof(Tensor<T>);
    return *made;
  }
};

// ---- vector functions: FX_MVEC 0 none, 1 the first six of libmvec, 2 all of them --------------------------------

#define FX_VECTOR __attribute__((simd("notinbranch")))
#if FX_MVEC >= 1
#define FX_VECTOR1 FX_VECTOR
#else
#define FX_VECTOR1
#endif
#if FX_MVEC >= 2
#define FX_VECTOR2 FX_VECTOR
#else
#define FX_VECTOR2
#endif

// What the compiler cannot vectorise, as a vector function that goes lane by lane: otherwise it would keep its
// whole loop scalar, and an exp beside it would round differently than in the next kernel.
#define FX_LANEWISE __attribute__((noinline)) FX_VECTOR1 static

FX_LANEWISE float scalar_fmodf(float a, float b) { return __builtin_fmodf(a, b); }
FX_LANEWISE double scalar_fmod(double a, double b) { return __builtin_fmod(a, b); }
FX_LANEWISE i64 scalar_divide(i64 a, i64 b) { return a / b; }

// ---- arithmetic as torch does it ------------------------------------------------------------------------------

constexpr float infinity = __builtin_inff();

// c ? a : b with both computed: a branch around a call, or one choice inside another, is not vectorised.
FX_INLINE float select(int c, float a, float b) {
  const unsigned mask = -unsigned(c), x = __builtin_bit_cast(unsigned, a), y = __builtin_bit_cast(unsigned, b);
  return __builtin_bit_cast(float, y ^ ((x ^ y) & mask));
}
FX_INLINE double select(int c, double a, double b) {
  const u64 mask = -u64(c), x = __builtin_bit_cast(u64, a), y = __builtin_bit_cast(u64, b);
  return __builtin_bit_cast(double, y ^ ((x ^ y) & mask));
}
template <class T> FX_INLINE T select(int c, T a, T b) {
  return T(b ^ ((a ^ b) & T(-T(c))));
}

#define FX_FLOATS(NAME, F32, F64)                              \
  FX_INLINE float NAME(float x) { return F32(x); }              \
  FX_INLINE double NAME(double x) { return F64(x); }
FX_FLOATS(floor, __builtin_floorf, __builtin_floor)
FX_FLOATS(ceil, __builtin_ceilf, __builtin_ceil)
FX_FLOATS(trunc, __builtin_truncf, __builtin_trunc)
FX_FLOATS(round, __builtin_rintf, __builtin_rint)  // half to even
FX_FLOATS(sqrt, __builtin_sqrtf, __builtin_sqrt)
FX_FLOATS(fabs, __builtin_fabsf, __builtin_fabs)

FX_INLINE float abs(float x) { return fabs(x); }
FX_INLINE double abs(double x) { return fabs(x); }
template <class T> FX_INLINE T abs(T x) { return select(x < 0, T(-x), x); }
template <class T> FX_INLINE T sign(T x) { return T(int(x > 0) - int(x < 0)); }
template <class T> FX_INLINE T maximum(T a, T b) { return select((a > b) | (a != a), a, b); }
template <class T> FX_INLINE T minimum(T a, T b) { return select((a < b) | (a != a), a, b); }
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
FX_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FX_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else  // nor does torch fuse here
template <class T> FX_INLINE T fma(T a, T b, T c) { return a * b + c; }
#endif
FX_INLINE int signbit(float x) { return __builtin_bit_cast(int, x) < 0; }
FX_INLINE int signbit(double x) { return __builtin_bit_cast(i64, x) < 0; }
FX_INLINE float copysign(float a, float b) { return __builtin_copysignf(a, b); }
FX_INLINE double copysign(double a, double b) { return __builtin_copysign(a, b); }
FX_INLINE float fmod(float a, float b) { return scalar_fmodf(a, b); }
FX_INLINE double fmod(double a, double b) { return scalar_fmod(a, b); }
template <class T> FX_INLINE T divide(T a, T b) { return a / b; }
FX_INLINE i64 divide(i64 a, i64 b) { return scalar_divide(a, b); }
template <class T> FX_INLINE T fmod(T a, T b) { return a - divide(a, b) * b; }

template <class T> FX_INLINE T float_remainder(T a, T b) {
  const T m = fmod(a, b);
  return select((m != 0) & ((b < 0) ^ (m < 0)), T(m + b), m);
}
FX_INLINE float remainder(float a, float b) { return float_remainder(a, b); }
FX_INLINE double remainder(double a, double b) { return float_remainder(a, b); }
template <class T> FX_INLINE T remainder(T a, T b) {
  const T m = fmod(a, b);
  return select((m != 0) & ((b < 0) ^ (m < 0)), T(m + b), m);
}
template <class T> FX_INLINE T float_floor_divide(T a, T b) {
  const T m = fmod(a, b);
  T d = (a - m) / b;
  d = select((m != 0) & ((b < 0) ^ (m < 0)), d - 1, d);
  T f = floor(d);
  f = select(d - f > T(0.5), f + 1, f);
  f = select(d != 0, f, copysign(T(0), a / b));
  return select(b == 0, a / b, f);
}
FX_INLINE float floor_divide(float a, float b) { return float_floor_divide(a, b); }
FX_INLINE double floor_divide(double a, double b) { return float_floor_divide(a, b); }
template <class T> FX_INLINE T floor_divide(T a, T b) {
  const T q = divide(a, b);
  return select((a - q * b != 0) & ((a < 0) ^ (b < 0)), T(q - 1), q);
}
template <class T> FX_INLINE T shift_left(T a, T b) {
  return select((b < 0) | (b >= T(sizeof(T) * 8)), T(0), T(a << (b & T(sizeof(T) * 8 - 1))));
}
template <class T> FX_INLINE T shift_right(T a, T b) {
  constexpr int most = sizeof(T) * 8 - (T(-1) < T(0));
  return T(a >> select((b < 0) | (b >= T(sizeof(T) * 8)), T(most), b));
}

// ---- library functions --------------------------------------------------------------------------------------------

#define FX_MATH1(ATTRIBUTE, NAME)                                                              \
  extern "C" ATTRIBUTE float NAME##f(float) noexcept;                                          \
  extern "C" ATTRIBUTE double NAME(double) noexcept;                                           \
  FX_INLINE float NAME(float x) { return ::fx::NAME##f(x); }
#define FX_MATH2(ATTRIBUTE, NAME)                                                              \
  extern "C" ATTRIBUTE float NAME##f(float, float) noexcept;                                   \
  extern "C" ATTRIBUTE double NAME(double, double) noexcept;                                   \
  FX_INLINE float NAME(float x, float y) { return ::fx::NAME##f(x, y); }
FX_MATH1(FX_VECTOR1, exp)
FX_MATH1(FX_VECTOR1, log)
FX_MATH1(FX_VECTOR1, sin)
FX_MATH1(FX_VECTOR1, cos)
FX_MATH2(FX_VECTOR1, pow)
FX_MATH1(FX_VECTOR2, exp2)
FX_MATH1(FX_VECTOR2, expm1)
FX_MATH1(FX_VECTOR2, log2)
FX_MATH1(FX_VECTOR2, log10)
FX_MATH1(FX_VECTOR2, log1p)
FX_MATH1(FX_VECTOR2, tan)
FX_MATH1(FX_VECTOR2, asin)
FX_MATH1(FX_VECTOR2, acos)
FX_MATH1(FX_VECTOR2, atan)
FX_MATH2(FX_VECTOR2, atan2)
FX_MATH1(FX_VECTOR2, sinh)
FX_MATH1(FX_VECTOR2, cosh)
FX_MATH1(FX_VECTOR2, tanh)
FX_MATH1(FX_VECTOR2, asinh)
FX_MATH1(FX_VECTOR2, acosh)
FX_MATH1(FX_VECTOR2, atanh)
FX_MATH1(FX_VECTOR2, erf)
FX_MATH1(FX_VECTOR2, erfc)
FX_MATH2(FX_VECTOR2, hypot)

}  // namespace fx
