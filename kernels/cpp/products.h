// What a kernel with products stands on besides: whole samples times a matrix, inside the loop over time.
//
// Every sum starts at +0 and runs in ascending order of the index, each product rounded before it is added, so that it
// does not matter which of the ways below is taken: a row of the matrix is added for every source that is not zero, one
// sample at a time, or all rows, several samples at a time. A zero adds nothing to a sum that is never -0.

#define FX_LANES 8192  // a block is whole samples, several for every row of the matrix that is read
#include "scan.h"

namespace fx {

#if defined(__AVX512F__)
constexpr int WIDE = 64, VECTORS = 4;
#elif defined(__AVX__)
constexpr int WIDE = 32, VECTORS = 2;
#else
constexpr int WIDE = 16, VECTORS = 2;
#endif
constexpr int TOGETHER = 4;     // samples of a tile
constexpr int LARGEST = 1024;  // rows of a matrix at most

// Square, row by row.
template <class T> struct Matrix {
  const T* rows;
  int size;

  Matrix(const Call& call, int index) : rows(call.data<T>(index)), size(int(call.tensor(index)[1])) {}
};

template <class T, int BYTES> struct Wide {
  typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
};

// The columns from `column` on of several samples.
template <class T, int BYTES, int SAMPLES, int COUNT>
FX_APART void add_all_rows(const T* const* sources, const Matrix<T>& matrix, T* const* results, int column) {
  typedef typename Wide<T, BYTES>::type V;
  V sums[SAMPLES][COUNT] = {};
  const T* row = matrix.rows + column;
  for (int j = 0; j < matrix.size; ++j, row += matrix.size)
    for (int c = 0; c < COUNT; ++c) {
      const V values = reinterpret_cast<const V*>(row)[c];
      for (int s = 0; s < SAMPLES; ++s) sums[s][c] += sources[s][j] * values;
    }
  for (int s = 0; s < SAMPLES; ++s)
    for (int c = 0; c < COUNT; ++c) reinterpret_cast<V*>(results[s] + column)[c] = sums[s][c];
}

// The same of one sample, from the rows that are listed.
template <class T, int BYTES, int COUNT>
FX_APART void add_rows(const T* source, const int* which, int count, const Matrix<T>& matrix, T* result, int column) {
  typedef typename Wide<T, BYTES>::type V;
  V sums[COUNT] = {};
  for (int i = 0; i < count; ++i) {
    const T* row = matrix.rows + i64(which[i]) * matrix.size + column;
    for (int c = 0; c < COUNT; ++c) sums[c] += source[which[i]] * reinterpret_cast<const V*>(row)[c];
  }
  for (int c = 0; c < COUNT; ++c) reinterpret_cast<V*>(result + column)[c] = sums[c];
}

// Calls `of` with the widest vectors that fit, column by column.
template <class T, int BYTES, class Of> FX_INLINE void each_column(int size, int column, const Of& of) {
  constexpr int lanes = BYTES / int(sizeof(T));
  if constexpr (BYTES == WIDE)
    for (; column + VECTORS * lanes <= size; column += VECTORS * lanes) of.template run<BYTES, VECTORS>(column);
  for (; column + lanes <= size; column += lanes) of.template run<BYTES, 1>(column);
  if constexpr (lanes > 1) each_column<T, BYTES / 2>(size, column, of);
}

template <class T> struct SomeRows {
  const T* source;
  const int* which;
  int count;
  const Matrix<T>& matrix;
  T* result;
  template <int BYTES, int COUNT> void run(int column) const {
    add_rows<T, BYTES, COUNT>(source, which, count, matrix, result, column);
  }
};

template <class T> struct AllRows {
  const T* source;
  const int* samples;  // which of them
  int count;           // a multiple of TOGETHER
  const Matrix<T>& matrix;
  T* result;
  template <int BYTES, int COUNT> void run(int column) const {
    for (int i = 0; i < count; i += TOGETHER) {
      const T* sources[TOGETHER];
      T* results[TOGETHER];
      for (int s = 0; s < TOGETHER; ++s) {
        sources[s] = source + i64(samples[i + s]) * matrix.size;
        results[s] = result + i64(samples[i + s]) * matrix.size;
      }
      add_all_rows<T, BYTES, TOGETHER, COUNT>(sources, matrix, results, column);
    }
  }
};

// One bit for each of 16 (or 8) values that are not zero.
#if defined(__AVX512F__)
constexpr int BITS = 16;
FX_INLINE unsigned not_zero(const float* x) {
  typedef float V __attribute__((vector_size(64)));
  const V values = *reinterpret_cast<const Wide<float, 64>::type*>(x);
  return (unsigned short)__builtin_ia32_cmpps512_mask(values, V{}, 4, -1, 4);
}
FX_INLINE unsigned not_zero(const double* x) {
  typedef double V __attribute__((vector_size(64)));
  const V low = *reinterpret_cast<const Wide<double, 64>::type*>(x);
  const V high = *reinterpret_cast<const Wide<double, 64>::type*>(x + 8);
  return (unsigned char)__builtin_ia32_cmppd512_mask(low, V{}, 4, -1, 4) |
         (unsigned char)__builtin_ia32_cmppd512_mask(high, V{}, 4, -1, 4) << 8;
}
#else
constexpr int BITS = 16;
template <class T> FX_INLINE unsigned not_zero(const T* x) {
  unsigned bits = 0;
  for (int l = 0; l < BITS; ++l) bits |= unsigned(x[l] != 0) << l;
  return bits;
}
#endif

template <class T> FX_APART int count_not_zero(const T* x, int size) {
  int count = 0, j = 0;
  for (; j + BITS <= size; j += BITS) count += __builtin_popcount(not_zero(x + j));
  for (; j < size; ++j) count += x[j] != 0;
  return count;
}

template <class T, class Of> FX_INLINE void each_not_zero(const T* x, int size, const Of& of) {
  int j = 0;
  for (; j + BITS <= size; j += BITS)
    for (unsigned bits = not_zero(x + j); bits; bits &= bits - 1) of(j + __builtin_ctz(bits));
  for (; j < size; ++j)
    if (x[j] != 0) of(j);
}

// result[b, :] = sum over j of source[b, j] * matrix[j, :]
template <class T> FX_APART void contract(const T* source, const Matrix<T>& matrix, T* result, int lanes) {
  const int size = matrix.size, samples = lanes / size;
  int which[LARGEST], dense[LANES], num_dense = 0;
  const auto some = [&](int b) {
    const T* x = source + i64(b) * size;
    int count = 0;
    each_not_zero(x, size, [&](int j) { which[count++] = j; });
    each_column<T, WIDE>(size, 0, SomeRows<T>{x, which, count, matrix, result + i64(b) * size});
  };
  for (int b = 0; b < samples; ++b) {
    if (2 * count_not_zero(source + i64(b) * size, size) < size) some(b);
    else dense[num_dense++] = b;
  }
  for (; num_dense % TOGETHER; --num_dense) some(dense[num_dense - 1]);
  each_column<T, WIDE>(size, 0, AllRows<T>{source, dense, num_dense, matrix, result});
}

// ---- the gradient of a matrix: result[j, :] = sum over r of source[r, j] * other[r, :], of a source mostly zero --------

constexpr int ROWS = 512;  // whose sum is one of the summands: sums of very many would lose digits

template <class T> struct Outer {
  const T *source, *other;
  T* result;
  i64 rows;
  int size, threads, me;
  mutable int task;
  char* memory;

  // Each thread has columns of its own.
  template <int BYTES, int COUNT> void run(int column) const {
    if (task++ % threads == me) add<BYTES, COUNT>(column);
  }

  template <int BYTES, int COUNT> FX_APART void add(int column) const {
    typedef typename Wide<T, BYTES>::type V;
    V* sums = reinterpret_cast<V*>(memory);
    for (i64 first = 0; first < rows; first += ROWS) {
      for (i64 i = 0; i < i64(size) * COUNT; ++i) sums[i] = V{};
      for (i64 r = first; r < rows && r < first + ROWS; ++r) {
        const T* x = source + r * size;
        V values[COUNT];
        for (int c = 0; c < COUNT; ++c) values[c] = reinterpret_cast<const V*>(other + r * size + column)[c];
        each_not_zero(x, size, [&](int j) {
          for (int c = 0; c < COUNT; ++c) sums[i64(j) * COUNT + c] += x[j] * values[c];
        });
      }
      for (int j = 0; j < size; ++j) {
        V* to = reinterpret_cast<V*>(result + i64(j) * size + column);
        for (int c = 0; c < COUNT; ++c) to[c] = first ? to[c] + sums[i64(j) * COUNT + c] : sums[i64(j) * COUNT + c];
      }
    }
  }
};

// source, other, result, rows, size, threads
template <class T> double outer(const i64* a) {
  const int size = int(a[4]), threads = int(a[5]);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Scratch sums(i64(size) * VECTORS * WIDE);
    each_column<T, WIDE>(size, 0, Outer<T>{reinterpret_cast<const T*>(a[0]), reinterpret_cast<const T*>(a[1]),
                                          reinterpret_cast<T*>(a[2]), a[3], size, threads, omp_get_thread_num(), 0,
                                          sums.memory});
  }
  return 0;
}

}  // namespace fx
