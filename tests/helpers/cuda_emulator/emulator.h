// Runs a CUDA kernel on the CPU, to test it without a GPU. It replaces the functions of
// CUDA and common.cuh by plain C++. The threads of a block are fibers that take turns:
// a fiber runs until it waits for the others of its block or warp.
#pragma once
#define EMULATED
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__
#define __align__(n)
using std::max;
using std::min;

typedef unsigned u32;
typedef unsigned short u16;
struct uint4 {
  u32 x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
static uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

constexpr size_t SHARED_LIMIT = 99 * 1024;  // bytes; the smallest of GPUs from sm_80 on
alignas(16) u32 shared[SHARED_LIMIT / 4];

// ---- Threads ----

struct Fiber {
  ucontext_t context;
  bool done;
};
struct Barrier {
  int arrived, passed;
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static int current;
static Barrier block_barrier, warp_barriers[32];
static void (*kernel)();

struct Dimensions {
  unsigned x;
};
static Dimensions blockIdx;
static struct {
  struct {
    operator int() const { return current; }
  } x;
} threadIdx;
static int thread_again() { return current; }

static void wait(Barrier& barrier, int members) {
  const int before = barrier.passed;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    barrier.passed++;
  }
  while (barrier.passed == before) swapcontext(&fibers[current].context, &scheduler);
}
static void __syncthreads() { wait(block_barrier, (int)fibers.size()); }
static void wait_for_warp() { wait(warp_barriers[current / 32], 32); }

static void run_fiber() {
  kernel();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

static void emulate(int grid, int threads, void (*body)()) {
  const size_t stack = 64 << 10;
  std::vector<char> stacks(stack * threads);
  kernel = body;
  fibers.resize(threads);
  for (int block = 0; block < grid; block++) {
    blockIdx.x = block;
    memset(shared, 0xff, sizeof shared);  // NaN: the kernel must not rely on zeros
    for (int i = 0; i < threads; i++) {
      Fiber& fiber = fibers[i];
      getcontext(&fiber.context);
      fiber.done = false;
      fiber.context.uc_stack.ss_sp = &stacks[stack * i];
      fiber.context.uc_stack.ss_size = stack;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, run_fiber, 0);
    }
    for (bool busy = true; busy;) {
      busy = false;
      for (current = 0; current < threads; current++)
        if (!fibers[current].done) {
          busy = true;
          swapcontext(&scheduler, &fibers[current].context);
        }
    }
  }
}

// ---- Values ----

template <class To, class From>
static To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

#if BF16
static float widen(u32 bits) { return same_bits<float>(bits << 16); }
static u32 narrow(float value) {  // to nearest even; no NaN comes here
  const u32 bits = same_bits<u32>(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
// Without _Float16, which g++ has only on some machines.
static float widen(u32 bits) {
  const u32 sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
  if (rest < 0x0400)  // subnormal, in units of 2^-24
    return (sign ? -1.f : 1.f) * (float)rest * 0x1p-24f;
  return same_bits<float>(sign | ((rest << 13) + (112u << 23)));
}
static u32 narrow(float value) {  // to nearest even; no NaN or infinity comes here
  const u32 bits = same_bits<u32>(value), sign = bits >> 16 & 0x8000;
  const float size = same_bits<float>(bits & 0x7fffffff);
  if (size < 0x1p-14f)  // adding 0.5 rounds to units of 2^-24
    return sign | (same_bits<u32>(size + 0.5f) - same_bits<u32>(0.5f));
  const u32 shifted = same_bits<u32>(size) - (112u << 23);
  return sign | (shifted + 0x0fff + (shifted >> 13 & 1)) >> 13;
}
#endif
static u32 pack(float low, float high) { return narrow(low) | narrow(high) << 16; }

template <class Value>
static Value __ldg(const Value* address) {
  return *address;
}
static u32 __byte_perm(u32 a, u32 b, u32 selector) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; i++)
    result |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return result;
}

// ---- The tensor core: instructions that a warp runs together ----

static const u32* row_addresses[32][32];
static void load_matrices(u32 (&matrices)[4], const u32* row) {
  const int warp = current / 32, lane = current % 32;
  if ((uintptr_t)row % 16) abort();
  row_addresses[warp][lane] = row;
  wait_for_warp();
  for (int i = 0; i < 4; i++)
    matrices[i] = row_addresses[warp][8 * i + lane / 4][lane % 4];
  wait_for_warp();
}

struct Fragments {
  u32 a[4], b[2];
};
static Fragments fragments[32][32];
static void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], float c0,
                     float c1, float c2, float c3) {
  const Fragments* const warp = fragments[current / 32];
  const int lane = current % 32;
  memcpy(fragments[current / 32][lane].a, a, sizeof a);
  memcpy(fragments[current / 32][lane].b, b, sizeof b);
  wait_for_warp();
  const float c[4] = {c0, c1, c2, c3};
  for (int e = 0; e < 4; e++) {
    const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
    double sum = c[e];
    for (int k = 0; k < 16; k++) {
      const int holder = k % 8 / 2, right = k >= 8, shift = k % 2 * 16;
      const u32 left = warp[row % 8 * 4 + holder].a[row / 8 + 2 * right];
      const u32 other = warp[column * 4 + holder].b[right];
      sum += (double)widen(left >> shift & 0xffff) * widen(other >> shift & 0xffff);
    }
    d[e] = (float)sum;
  }
  wait_for_warp();
}
