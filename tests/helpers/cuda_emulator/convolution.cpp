// The convolution of cuda/convolution.cu on the CPU, to be called from Python.
#include "emulator.h"
// After it, as in a compilation for GPUs:
#include "common.cuh"
#include "convolution.cu"

static struct {
  const u16* x;
  const WEIGHT *weight, *bias;
  const Addend* g;
  float* wide;
  u16* y;
  const int* integers;
} given;

extern "C" int shared_bytes() { return 4 * SHARED_WORDS; }

extern "C" void run(int grid, const void* x, const void* weight, const void* bias,
                    const void* g, void* wide, void* y, const int* integers) {
  static_assert(4 * SHARED_WORDS <= SHARED_LIMIT, "a block's shared memory");
  given = {(const u16*)x,   (const WEIGHT*)weight, (const WEIGHT*)bias,
           (const Addend*)g, (float*)wide,          (u16*)y,
           integers};
  emulate(grid, THREADS, [] {
    const int* const i = given.integers;
    convolution(given.x, given.weight, given.bias, given.g, given.wide, given.y, i[0],
                i[1], i[2], i[3], i[4], i[5], i[6], i[7]);
  });
}
