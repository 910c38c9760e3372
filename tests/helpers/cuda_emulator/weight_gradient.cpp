// cuda/weight_gradient.cu for the CPU, as a library that Python calls.
#include "emulator.h"
// Then the files of a compilation for GPUs, in their order:
#include "common.cuh"
#include "weight_gradient.cu"

static struct {
  const u16 *x, *gradient;
  float* partial;
  const int* integers;
} args;

extern "C" int shared_bytes() { return 4 * SHARED_WORDS; }

extern "C" void run(int grid, const void* x, const void* gradient, void* partial,
                    const int* integers) {
  static_assert(4 * SHARED_WORDS <= SHARED_LIMIT, "a block's shared memory");
  args = {(const u16*)x, (const u16*)gradient, (float*)partial, integers};
  emulate(grid, THREADS, [] {
    const int* const i = args.integers;
    weight_gradient(args.x, args.gradient, args.partial, i[0], i[1], i[2], i[3],
                    i[4], i[5], i[6], i[7]);
  });
}
