// Gradient of a depthwise 7x7 convolution's weight on the tensor cores: partial sums
//
//   partial[tile, c, 7 a + b] = sum over the pixels (n, i, j) of a tile of
//                               x[n, i, j, c] gradient[n, i + 3 - a, j + 3 - b, c]
//
// x, the convolution's input, and gradient, that of its output, are 16-bit maps
// (N, H, W, C). partial is (tiles, C, 49) in fp32; all of it is written. Sums are fp32.
//
// For one channel, two rows of x and the 8 rows of the gradient that they meet, it is a
// matrix product that sums over the columns of the map:
//
//      left matrix, 16 x columns            right matrix, columns x 8
//      x row 0, shifted by -3               gradient row  -3 .. 4,
//      ...                                  counted from x row 0
//      x row 0, shifted by  4
//      x row 1, shifted by -3
//      ...
//      x row 1, shifted by  4
//
// Kernel row i takes from x row 0 the gradient's row 3 - i, from x row 1 the one below.
// So of both halves 7 shifts by 7 rows are used: 98 of the 128 sums.
//
// The instruction reads pairs of columns as words. Odd shifts begin within a word, so
// shared memory holds x twice, the second time shifted by a column. The gradient's rows
// are in a ring of 10: the 8 rows of the window and the next 2.

constexpr int X_WORDS = SEGMENT_WORDS * SEGMENTS;  // of one channel's row
// The distance to the second copy, which is in other banks: 16 more than a multiple
// of 32.
constexpr int COPY_WORDS = (X_WORDS + 15) / 32 * 32 + 16;
constexpr int X_CHANNEL_WORDS = COPY_WORDS + X_WORDS;
constexpr int X_OCTET_WORDS = 8 * X_CHANNEL_WORDS + OCTET_PADDING;
constexpr int X_ROW_WORDS = OCTETS * X_OCTET_WORDS - OCTET_PADDING;
constexpr int RING = 10;        // rows
constexpr int LINE_WORDS = 68;  // 64 and 4 more: 8 rows lie in different banks
constexpr int G_CHANNEL_WORDS = RING * LINE_WORDS;
constexpr int G_OCTET_WORDS = 8 * G_CHANNEL_WORDS + OCTET_PADDING;
constexpr int G_WORDS = OCTETS * G_OCTET_WORDS - OCTET_PADDING;
constexpr int SHARED_WORDS = 4 * X_ROW_WORDS + G_WORDS;
static_assert(COPY_WORDS >= X_WORDS, "the copies overlap");

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
weight_gradient(const u16* __restrict__ x, const u16* __restrict__ gradient,
                float* __restrict__ partial, int H, int W, int C, int R, int chunks,
                int across, int units, int channel_blocks) {
  extern __shared__ __align__(16) u32 shared[];
  u32* const input = shared;                   // [2 steps][2 rows][X_ROW_WORDS]
  u32* const ring = shared + 4 * X_ROW_WORDS;  // [octets][8 channels][RING][LINE_WORDS]
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int lane_row = lane >> 2, lane_column = lane & 3;
  const int first = blockIdx.x % channel_blocks * CHANNELS;
  const int tile = blockIdx.x / channel_blocks;
  const long long row_stride = (long long)W * C;

  for (int i = thread; i < SHARED_WORDS; i += THREADS) shared[i] = 0;

  // What this thread loads at each step, in one of the two rows: an octet of two
  // columns of the gradient and of three columns of x.
  const int octet = thread % OCTETS, pair = thread / OCTETS % 64;
  const int row = thread / (64 * OCTETS);
  const int segment = pair / (4 * STRIPS), word = pair % (4 * STRIPS);
  const Corner corner = corner_of(tile * SEGMENTS + segment, R, chunks, across, units);
  const int rows = min(R, H - corner.top);  // of this unit
  bool has_x[3], has_gradient[2];
  int x_row = row - 6, gradient_row = row - 3;  // of the unit
  const u16 *x_from, *gradient_from;
  {
    const bool exists = first + 8 * octet < C && corner.exists;
    const int gradient_column = corner.left + 2 * word;
    const int x_column = gradient_column - (FULL ? 0 : 4);
    const int end = min(W, corner.left + SEGMENT_OUTPUTS);
#pragma unroll
    for (int i = 0; i < 3; i++)
      has_x[i] = exists && x_column + i >= 0 && x_column + i < W &&
                 2 * word + i < 8 * STRIPS;
#pragma unroll
    for (int i = 0; i < 2; i++) has_gradient[i] = exists && gradient_column + i < end;
    const long long top = (long long)corner.image * H + corner.top;
    x_from = x + (top + x_row) * row_stride + (long long)x_column * C + first +
             8 * octet;
    gradient_from = gradient + (top + gradient_row) * row_stride +
                    (long long)gradient_column * C + first + 8 * octet;
  }
  u32* const put_x = input + row * X_ROW_WORDS + octet * X_OCTET_WORDS +
                     segment * SEGMENT_WORDS + word + (FULL ? 2 : 0);
  u32* const put_gradient = ring + octet * G_OCTET_WORDS + pair;

  uint4 loaded_x[3], loaded_gradient[2];
  auto load = [&]() {
#pragma unroll
    for (int i = 0; i < 3; i++) {
      loaded_x[i] = make_uint4(0, 0, 0, 0);
      if (x_row >= 0 && x_row < rows && has_x[i])
        loaded_x[i] = __ldg((const uint4*)(x_from + i * C));
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      loaded_gradient[i] = make_uint4(0, 0, 0, 0);
      if (gradient_row + corner.top >= 0 && gradient_row + corner.top < H &&
          has_gradient[i])
        loaded_gradient[i] = __ldg((const uint4*)(gradient_from + i * C));
    }
    x_row += 2;
    gradient_row += 2;
    x_from += 2 * row_stride;
    gradient_from += 2 * row_stride;
  };
  load();
  __syncthreads();

  const int own_octet = 2 * warp / 8, own_channel = 2 * warp % 8;
  // Lane row l is shift l - 3. Odd l, even shifts: the first copy; else the second.
  const u32* const get_x = input + own_octet * X_OCTET_WORDS +
                           own_channel * X_CHANNEL_WORDS + lane_column +
                           (lane_row + 1) / 2 + (lane_row & 1 ? 0 : COPY_WORDS);
  const u32* const get_gradient = ring + own_octet * G_OCTET_WORDS +
                                  own_channel * G_CHANNEL_WORDS + (lane >> 3) * 4;
  float sums[2][2][4];  // in two halves, so that products do not wait for each other
#pragma unroll
  for (int c = 0; c < 2; c++)
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[c][h][e] = 0.f;

  // The gradient is 3 rows ahead of x, so the first 3 steps only fill the ring.
  const int steps = R / 2 + 3;
  int slot = 0;  // of the ring, for the first of the two new rows
  for (int step = 0; step < steps; step++) {
    {
      u32* const to_x = put_x + (step & 1) * 2 * X_ROW_WORDS;
      u32* const to_gradient = put_gradient + (slot + row) * LINE_WORDS;
      const u32 x0[4] = {loaded_x[0].x, loaded_x[0].y, loaded_x[0].z, loaded_x[0].w};
      const u32 x1[4] = {loaded_x[1].x, loaded_x[1].y, loaded_x[1].z, loaded_x[1].w};
      const u32 x2[4] = {loaded_x[2].x, loaded_x[2].y, loaded_x[2].z, loaded_x[2].w};
      const u32 g0[4] = {loaded_gradient[0].x, loaded_gradient[0].y,
                         loaded_gradient[0].z, loaded_gradient[0].w};
      const u32 g1[4] = {loaded_gradient[1].x, loaded_gradient[1].y,
                         loaded_gradient[1].z, loaded_gradient[1].w};
#pragma unroll
      for (int e = 0; e < 4; e++) {
        to_gradient[2 * e * G_CHANNEL_WORDS] = first_channel(g0[e], g1[e]);
        to_gradient[(2 * e + 1) * G_CHANNEL_WORDS] = second_channel(g0[e], g1[e]);
      }
      if (step >= 3) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          u32* const to = to_x + 2 * e * X_CHANNEL_WORDS;
          to[0] = first_channel(x0[e], x1[e]);
          to[X_CHANNEL_WORDS] = second_channel(x0[e], x1[e]);
          to[COPY_WORDS] = first_channel(x1[e], x2[e]);
          to[X_CHANNEL_WORDS + COPY_WORDS] = second_channel(x1[e], x2[e]);
          if (FULL && word == 0) {  // in the second copy column 0 is half a word
            to[COPY_WORDS - 1] = x0[e] << 16;
            to[X_CHANNEL_WORDS + COPY_WORDS - 1] = x0[e] & 0xffff0000u;
          }
        }
      }
    }
    __syncthreads();
    if (step + 1 < steps) load();
    if (step >= 3) {
      // The window's 8 rows end with the two new ones.
      int window_row = slot - 6 + (lane & 7);
      if (window_row < 0) window_row += RING;
      if (window_row >= RING) window_row -= RING;
      const u32* const from_gradient = get_gradient + window_row * LINE_WORDS;
      const u32* const from_x = get_x + (step & 1) * 2 * X_ROW_WORDS;
#pragma unroll
      for (int k = 0; k < 4; k++) {  // 32 of the tile's 128 columns
        u32 columns[2][4];
#pragma unroll
        for (int c = 0; c < 2; c++)
          load_matrices(columns[c], from_gradient + c * G_CHANNEL_WORDS + k * 16);
#pragma unroll
        for (int h = 0; h < 2; h++) {  // 16 of them
          const int strips = 2 * k + h;  // a pair of strips
          const int place = strips / (STRIPS / 2) * SEGMENT_WORDS +
                            strips % (STRIPS / 2) * 8;
#pragma unroll
          for (int c = 0; c < 2; c++) {
            const u32* const from = from_x + c * X_CHANNEL_WORDS + place;
            const u32 a[4] = {from[0], from[X_ROW_WORDS], from[4],
                              from[X_ROW_WORDS + 4]};
            const u32 b[2] = {columns[c][2 * h], columns[c][2 * h + 1]};
            multiply(sums[c][h], a, b, sums[c][h][0], sums[c][h][1], sums[c][h][2],
                     sums[c][h][3]);
          }
        }
      }
    }
    slot += 2;
    if (slot >= RING) slot -= RING;
  }
  __syncthreads();
  float* const products = (float*)shared;  // [CHANNELS][16][8]
#pragma unroll
  for (int c = 0; c < 2; c++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      products[(2 * warp + c) * 128 + (lane_row + (e >> 1) * 8) * 8 + 2 * lane_column +
               (e & 1)] = sums[c][0][e] + sums[c][1][e];
  __syncthreads();
  float* const to = partial + ((long long)tile * C + first) * 49;
  const int count = min(CHANNELS, C - first) * 49;
  for (int i = thread; i < count; i += THREADS) {
    const int tap = i % 49, kernel_row = tap / 7, kernel_column = tap % 7;
    const float* const product = products + i / 49 * 128;
    to[i] = product[kernel_column * 8 + 6 - kernel_row] +
            product[(8 + kernel_column) * 8 + 7 - kernel_row];
  }
}
