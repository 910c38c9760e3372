// Depthwise 7x7 convolution on the tensor cores, with sums in fp32:
//
//   convolution[n, i, j, c] = bias[c] + sum over a, b = -3 .. 3 of
//                             weight[c, 0, a + 3, b + 3] x[n, i + a, j + b, c]
//
// x, g, wide, y are maps (N, H, W, C); weight is (C, 1, 7, 7), bias (C). x and y are
// 16-bit maps. The weight is rounded to the type of x.
//
// Macros, beside those of common.cuh: WEIGHT, the type of weight and bias (float, or
// u16 for the type of x); FLIP, which rotates the kernel by 180 degrees, so that x is the
// gradient of the output and y that of the input; BIAS, whether there is a bias; ADD;
// PREFETCH, how many steps ahead rows are loaded.
//
//   ADD 0     y = convolution
//   ADD 1     y = convolution + g; g has the type of x and may be y itself
//   ADD 2     wide = convolution + g in fp32, y = wide rounded; g is fp32 and may be
//             wide itself
// The convolution is rounded to 16 bits before g is added.
//
// How a convolution becomes a matrix product: for one channel and one row w0..w6 of the
// kernel, the 8 outputs of a strip are 16 inputs, from 4 columns left of it on, times
//
//                          output column
//                   0   1   2   3   4   5   6   7
//      input   -4   .   .   .   .   .   .   .   .
//     column   -3  w0   .   .   .   .   .   .   .
//              -2  w1  w0   .   .   .   .   .   .
//              -1  w2  w1  w0   .   .   .   .   .
//               0  w3  w2  w1  w0   .   .   .   .
//               1  w4  w3  w2  w1  w0   .   .   .
//               2  w5  w4  w3  w2  w1  w0   .   .
//               3  w6  w5  w4  w3  w2  w1  w0   .
//               4   .  w6  w5  w4  w3  w2  w1  w0
//               5   .   .  w6  w5  w4  w3  w2  w1
//               6   .   .   .  w6  w5  w4  w3  w2
//               7   .   .   .   .  w6  w5  w4  w3
//               8   .   .   .   .   .  w6  w5  w4
//               9   .   .   .   .   .   .  w6  w5
//              10   .   .   .   .   .   .   .  w6
//              11   .   .   .   .   .   .   .   .
//
// a banded matrix. One instruction computes that for 16 strips. An input row is
// multiplied by the seven banded matrices of the kernel's seven rows. Matrix i adds to
// the output row that already has i kernel rows. So with every input row the sums move
// from accumulator i - 1 to accumulator i. Moving costs nothing, since the instruction
// writes its sum to another register than it reads. A block goes down two rows in each
// step.

#define ADD_NONE 0
#define ADD_HALF 1
#define ADD_FLOAT 2

constexpr int CHANNEL_WORDS = SEGMENT_WORDS * SEGMENTS;  // of an input row
constexpr int OCTET_WORDS = 8 * CHANNEL_WORDS + OCTET_PADDING;
constexpr int ROW_WORDS = OCTETS * OCTET_WORDS;
constexpr int PIXEL_WORDS = CHANNELS / 2 + 1;  // of the output: channel pairs, one spare
constexpr int OUTPUT_WORDS = 128 * PIXEL_WORDS;  // of an output row
constexpr int SHARED_WORDS = 4 * ROW_WORDS + 4 * OUTPUT_WORDS;

// Eight channels of a pixel of g.
#if ADD == ADD_FLOAT
typedef float Addend;
struct Addends {
  float4 low, high;
};
__device__ __forceinline__ Addends load_addends(const float* g) {
  return {((const float4*)g)[0], ((const float4*)g)[1]};
}
#else
typedef u16 Addend;
typedef uint4 Addends;
__device__ __forceinline__ Addends load_addends(const u16* g) {
  return *(const uint4*)g;
}
#endif

__device__ __forceinline__ float parameter(float value) { return value; }
__device__ __forceinline__ float parameter(u16 value) { return widen(value); }

// g, wide and y are not __restrict__, since two of them may be the same buffer.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
convolution(const u16* __restrict__ x, const WEIGHT* __restrict__ weight,
            const WEIGHT* __restrict__ bias, const Addend* g, float* wide, u16* y, int H,
            int W, int C, int R, int chunks, int across, int units,
            int channel_blocks) {
  extern __shared__ __align__(16) u32 shared[];
  u32* const input = shared;                   // [2 steps][2 rows][ROW_WORDS]
  u32* const output = shared + 4 * ROW_WORDS;  // [2 steps][2 rows][OUTPUT_WORDS]
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int lane_row = lane >> 2, lane_column = lane & 3;  // of the instruction
  // Blocks that differ only in their channels are neighbours: they share cache lines.
  const int first = blockIdx.x % channel_blocks * CHANNELS;
  const int tile = blockIdx.x / channel_blocks;
  const long long row_stride = (long long)W * C;

  for (int i = thread; i < 4 * ROW_WORDS; i += THREADS) input[i] = 0;
  float* const taps = (float*)output;  // free until the first output
  for (int i = thread; i < CHANNELS * 49; i += THREADS)
    taps[i] = first * 49 + i < C * 49 ? parameter(weight[first * 49 + i]) : 0.f;

  const int octet = thread % OCTETS;
  const bool octet_exists = first + 8 * octet < C;

  // What this thread loads at each step: one octet of two adjoining columns in one of
  // the two rows.
  int load_row;  // of the map
  const u16* load_from;
  bool load_left, load_right;
  u32* put;
  {
    const int row = thread / (64 * OCTETS), pair = thread / OCTETS % 64;
    const int segment = pair / (4 * STRIPS), word = pair % (4 * STRIPS);
    const Corner corner =
        corner_of(tile * SEGMENTS + segment, R, chunks, across, units);
    const int column = corner.left + 2 * word - (FULL ? 0 : 4);
    const bool exists = octet_exists && corner.exists;
    load_row = corner.top - 3 + row;
    load_left = exists && column >= 0 && column < W;
    load_right = exists && column + 1 >= 0 && column + 1 < W;
    load_from = x + ((long long)corner.image * H + load_row) * row_stride +
                (long long)column * C + first + 8 * octet;
    put = input + row * ROW_WORDS + octet * OCTET_WORDS + segment * SEGMENT_WORDS +
          word + (FULL ? 2 : 0);
  }
  // And what it stores: one octet of one pixel in both rows.
  const int pixel = thread / OCTETS;
  int store_rows;  // 0 if it stores nothing
  long long store_at;  // offset in y, and in g and wide
  {
    const int segment = pixel / (8 * STRIPS), place = pixel % (8 * STRIPS);
    const Corner corner =
        corner_of(tile * SEGMENTS + segment, R, chunks, across, units);
    const int column = corner.left + place;
    const bool exists =
        octet_exists && corner.exists && place < SEGMENT_OUTPUTS && column < W;
    store_rows = exists ? min(R, H - corner.top) : 0;
    store_at = ((long long)corner.image * H + corner.top) * row_stride +
               (long long)column * C + first + 8 * octet;
  }

  uint4 loaded[PREFETCH][2];
  auto load = [&](uint4 (&columns)[2]) {
    const bool inside = load_row >= 0 && load_row < H;
    columns[0] = columns[1] = make_uint4(0, 0, 0, 0);
    if (inside && load_left) columns[0] = __ldg((const uint4*)load_from);
    if (inside && load_right) columns[1] = __ldg((const uint4*)(load_from + C));
    load_row += 2;
    load_from += 2 * row_stride;
  };
#pragma unroll
  for (int i = 0; i < PREFETCH; i++) load(loaded[i]);

  __syncthreads();
  u32 bands[2][7][2];  // the banded matrices of this warp's two channels
  float start[2];
#pragma unroll
  for (int c = 0; c < 2; c++) {
    const float* const own_taps = taps + (2 * warp + c) * 49;
#pragma unroll
    for (int i = 0; i < 7; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int tap = 2 * lane_column + 8 * h - lane_row - 1;  // and the next one
        const float* const kernel_row = own_taps + (FLIP ? 6 - i : i) * 7;
        float low = 0.f, high = 0.f;
        if (tap >= 0 && tap < 7) low = kernel_row[FLIP ? 6 - tap : tap];
        if (tap >= -1 && tap < 6) high = kernel_row[FLIP ? 5 - tap : tap + 1];
        bands[c][i][h] = pack(low, high);
      }
    const int channel = first + 2 * warp + c;
    start[c] = BIAS && channel < C ? parameter(bias[channel]) : 0.f;
  }
  // Each lane passes the address of 8 input columns: the left or right half of a strip.
  const int strip = lane & 15;
  const u32* const get = input + 2 * warp / 8 * OCTET_WORDS +
                         2 * warp % 8 * CHANNEL_WORDS +
                         strip / STRIPS * SEGMENT_WORDS + strip % STRIPS * 4 +
                         (lane >> 4) * 4;

  float sums[2][6][4];  // of output rows that have 1 to 6 rows of the kernel so far
#pragma unroll
  for (int c = 0; c < 2; c++)
#pragma unroll
    for (int i = 0; i < 6; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[c][i][e] = 0.f;

  // R + 6 input rows give R output rows. Each step stores the sums of the step before.
  const int steps = R / 2 + 3;
  for (int step = 0; step <= steps; step++) {
    const int buffer = step & 1;
    if (step < steps) {
      u32* const to = put + buffer * 2 * ROW_WORDS;
      const uint4 left = loaded[0][0], right = loaded[0][1];
      const u32 a[4] = {left.x, left.y, left.z, left.w};
      const u32 b[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
      for (int e = 0; e < 4; e++) {
        to[2 * e * CHANNEL_WORDS] = first_channel(a[e], b[e]);
        to[(2 * e + 1) * CHANNEL_WORDS] = second_channel(a[e], b[e]);
      }
    }
    __syncthreads();
    const int store_row = 2 * (step - 1) - 6;  // of the unit, and the next one
    Addends addends[2];
    if (ADD && store_row >= 0) {
#pragma unroll
      for (int r = 0; r < 2; r++)
        if (store_row + r < store_rows)
          addends[r] = load_addends(g + store_at + r * row_stride);
    }
    if (step < steps) {
#pragma unroll
      for (int i = 0; i + 1 < PREFETCH; i++) {
        loaded[i][0] = loaded[i + 1][0];
        loaded[i][1] = loaded[i + 1][1];
      }
      load(loaded[PREFETCH - 1]);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        u32 strips[2][4];
        float done[2][4];
#pragma unroll
        for (int c = 0; c < 2; c++)
          load_matrices(strips[c],
                        get + (buffer * 2 + r) * ROW_WORDS + c * CHANNEL_WORDS);
#pragma unroll
        for (int c = 0; c < 2; c++) {
          multiply(done[c], strips[c], bands[c][6], sums[c][5][0], sums[c][5][1],
                   sums[c][5][2], sums[c][5][3]);
#pragma unroll
          for (int i = 5; i > 0; i--)
            multiply(sums[c][i], strips[c], bands[c][i], sums[c][i - 1][0],
                     sums[c][i - 1][1], sums[c][i - 1][2], sums[c][i - 1][3]);
          multiply(sums[c][0], strips[c], bands[c][0], 0.f, 0.f, 0.f, 0.f);
        }
        if (step >= 3) {
          u32* const to = output + (buffer * 2 + r) * OUTPUT_WORDS +
                          (8 * lane_row + 2 * lane_column) * PIXEL_WORDS + warp;
#pragma unroll
          for (int e = 0; e < 4; e++)
            to[((e >> 1) * 64 + (e & 1)) * PIXEL_WORDS] =
                pack(done[0][e] + start[0], done[1][e] + start[1]);
        }
      }
    }
    if (store_row >= 0) {
      const int same = thread_again();  // saves registers during the products
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const u32* const from = output + ((buffer ^ 1) * 2 + r) * OUTPUT_WORDS +
                                same / OCTETS * PIXEL_WORDS + same % OCTETS * 4;
        u32 bits[4] = {from[0], from[1], from[2], from[3]};
        if (store_row + r < store_rows) {
#if ADD == ADD_HALF
          const u32 added[4] = {addends[r].x, addends[r].y, addends[r].z, addends[r].w};
#pragma unroll
          for (int e = 0; e < 4; e++)
            bits[e] = pack(widen(bits[e] & 0xffff) + widen(added[e] & 0xffff),
                           widen(bits[e] >> 16) + widen(added[e] >> 16));
#elif ADD == ADD_FLOAT
          float4 low = addends[r].low, high = addends[r].high;
          low.x += widen(bits[0] & 0xffff), low.y += widen(bits[0] >> 16);
          low.z += widen(bits[1] & 0xffff), low.w += widen(bits[1] >> 16);
          high.x += widen(bits[2] & 0xffff), high.y += widen(bits[2] >> 16);
          high.z += widen(bits[3] & 0xffff), high.w += widen(bits[3] >> 16);
          float4* const sum = (float4*)(wide + store_at + r * row_stride);
          sum[0] = low;
          sum[1] = high;
          bits[0] = pack(low.x, low.y), bits[1] = pack(low.z, low.w);
          bits[2] = pack(high.x, high.y), bits[3] = pack(high.z, high.w);
#endif
          *(uint4*)(y + store_at + r * row_stride) =
              make_uint4(bits[0], bits[1], bits[2], bits[3]);
        }
      }
      store_at += 2 * row_stride;
    }
  }
}
