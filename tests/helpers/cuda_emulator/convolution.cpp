// cuda/convolution.cu for the CPU, as a library that Python calls.
#include "emulator.h"
// Then the files of a compilation for GPUs, in their order:
#include "common.cuh"
#include "convolution.cu"

static struct {
  const u16* x;
  const WEIGHT *weight, *bias;
  const Addend* g;
  float* wide;
  u16* y;
  const int* integers;
} args;

extern "C" int shared_bytes() { return 4 * SHARED_WORDS; }

extern "C" void run(int grid, const void* x, const void* weight, const void* bias,
                    const void* g, void* wide, void* y, const int* integers) {
  static_assert(4 * SHARED_WORDS <= SHARED_LIMIT, "a block's shared memory");
  args = {(const u16*)x,   (const WEIGHT*)weight, (const WEIGHT*)bias,
           (const Addend*)g, (float*)wide,          (u16*)y,
           integers};
  emulate(grid, THREADS, [] {
    const int* const i = args.integers;
    convolution(args.x, args.weight, args.bias, args.g, args.wide, args.y, i[0],
                i[1], i[2], i[3], i[4], i[5], i[6], i[7]);
  });
}
