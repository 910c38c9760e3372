// Code shared by convolution.cu and weight_gradient.cu: the tensor core's instructions,
// 16-bit conversions, and the division of a map.
//
// Maps are (N, H, W, C), contiguous, of 16-bit values; C is a multiple of 8.
//
//   strip     8 adjoining columns of a row: one row of the tensor core's left matrix
//   segment   STRIPS adjoining strips, kept in shared memory with 4 columns on the left
//             and at least 4 on the right. FULL: a segment spans the whole row of the
//             map, and the border is zeros. Otherwise the last strip only serves as
//             border, and the segment outputs 8 * (STRIPS - 1) columns
//   unit      a segment followed down R rows of one image
//   tile      the SEGMENTS units that a block computes at the same time
//   octet     8 channels of a pixel: 16 bytes, what a thread loads at once
//   word      32 bits of shared memory: one channel at two adjoining columns
//
// A block has 8 warps (256 threads) and computes 16 channels of a tile, two per warp.
// The grid has tiles times channel_blocks blocks, channel_blocks = ceil(C / 16). Both
// kernels end with the same integers, from depthwise_cuda.layout:
//
//   H, W, C            size of the map
//   R, chunks          rows of a unit; units of a column of segments, ceil(H / R)
//   across, units      segments of a row; units of all images
//   channel_blocks     blocks that have the same tile
//
// Macros: STRIPS (16, 8, 4 or 2), FULL, BF16 (otherwise fp16), BLOCKS (that run on a
// multiprocessor at the same time).
#ifndef EMULATED
typedef unsigned u32;
typedef unsigned short u16;

#if BF16
#define HALF "bf16"
#else
#define HALF "f16"
#endif

// Loads four 8x8 matrices of 16-bit values. Lanes 8i to 8i+7 pass the addresses of the
// rows of matrix i. Lane l receives, of each matrix, row l / 4, columns 2 * (l % 4) and
// the next.
__device__ __forceinline__ void load_matrices(u32 (&matrices)[4], const u32* row) {
  const u32 address = (u32)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]),
                 "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

// d = a b + c; a is 16x16, b is 16x8, c and d are 16x8 in fp32. Lane l holds, of c and
// d, the rows l / 4 (elements 0, 1) and l / 4 + 8 (2, 3), columns 2 * (l % 4) and the
// next.
__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4],
                                         const u32 (&b)[2], float c0, float c1,
                                         float c2, float c3) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." HALF "." HALF ".f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c0),
        "f"(c1), "f"(c2), "f"(c3));
}

// Two fp32 values as 16-bit ones, rounded to nearest even.
__device__ __forceinline__ u32 pack(float low, float high) {
  u32 bits;
#if BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#endif
  return bits;
}

// The low 16 bits as fp32.
__device__ __forceinline__ float widen(u32 bits) {
#if BF16
  return __uint_as_float(bits << 16);
#else
  float value;
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}"
      : "=f"(value)
      : "r"(bits));
  return value;
#endif
}

// Reads threadIdx.x again, so that values computed from it take no register before.
__device__ __forceinline__ int thread_again() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}
#endif

constexpr int THREADS = 256;
constexpr int CHANNELS = 16;  // of a block
constexpr int OCTETS = CHANNELS / 8;
constexpr int SEGMENTS = 16 / STRIPS;
constexpr int SEGMENT_WORDS = 4 * STRIPS + 4;  // of one channel, with the border
constexpr int SEGMENT_OUTPUTS = FULL ? 8 * STRIPS : 8 * (STRIPS - 1);  // columns
constexpr int OCTET_PADDING = 16;  // words that keep two octets in different banks

// The upper-left corner of the unit that a segment of a tile works on.
struct Corner {
  bool exists;  // false for units beyond the last one, in the last tile
  int image, top, left;
};

__device__ __forceinline__ Corner corner_of(int unit, int rows, int chunks, int across,
                                            int units) {
  const int of_image = unit % (chunks * across);
  return {unit < units, unit / (chunks * across), of_image / across * rows,
          of_image % across * SEGMENT_OUTPUTS};
}

// a and b hold a pair of channels at two adjoining columns. These return the word of
// the first and of the second channel.
__device__ __forceinline__ u32 first_channel(u32 a, u32 b) {
  return __byte_perm(a, b, 0x5410);
}
__device__ __forceinline__ u32 second_channel(u32 a, u32 b) {
  return __byte_perm(a, b, 0x7632);
}
