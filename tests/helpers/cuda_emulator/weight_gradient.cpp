// The kernel of cuda/weight_gradient.cu on the CPU, to be called from Python.
#include "emulator.h"
// After it, as in a compilation for GPUs:
#include "common.cuh"
#include "weight_gradient.cu"

static struct {
  const u16 *x, *gradient;
  float* partial;
  const int* integers;
} given;

extern "C" int shared_bytes() { return 4 * SHARED_WORDS; }

extern "C" void run(int grid, const void* x, const void* gradient, void* partial,
                    const int* integers) {
  static_assert(4 * SHARED_WORDS <= SHARED_LIMIT, "a block's shared memory");
  given = {(const u16*)x, (const u16*)gradient, (float*)partial, integers};
  emulate(grid, THREADS, [] {
    const int* const i = given.integers;
    weight_gradient(given.x, given.gradient, given.partial, i[0], i[1], i[2], i[3],
                    i[4], i[5], i[6], i[7]);
  });
}
