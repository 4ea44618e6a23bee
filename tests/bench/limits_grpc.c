/* The messages and settings of bare gRPC: the library's message size, and its references instead of copies; of the
 * settings that the server and the library give their connections those that have to do with speed, at both ends. */
#include "tests/bench/limits_grpc.h"

#include <stdlib.h>
#include <string.h>

static void leave(void *data) {
  (void)data; /* arrays live as long as the process */
}

void outgoing_init(struct outgoing *outgoing) {
  *outgoing = (struct outgoing){.bytes = workload_bytes()};
  outgoing->array = malloc(outgoing->bytes);
  if (outgoing->array == NULL)
    bench_die("no memory for %zu bytes", outgoing->bytes);
  memset(outgoing->array, 1, outgoing->bytes);
}

grpc_byte_buffer *outgoing_next(struct outgoing *outgoing) {
  size_t left = outgoing->bytes - outgoing->sent, len = left < ESP_CHUNK_BYTES_USUAL ? left : ESP_CHUNK_BYTES_USUAL;
  grpc_slice slice = grpc_slice_new_with_user_data(outgoing->array + outgoing->sent, len, leave, NULL);
  grpc_byte_buffer *ret = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  outgoing->sent += len;
  return ret;
}

grpc_byte_buffer *bare_short(void) {
  grpc_slice slice = grpc_slice_from_copied_buffer("!", 1);
  grpc_byte_buffer *ret = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  return ret;
}

const grpc_channel_args *bare_args(void) {
  static grpc_arg args[] = {
      /* Steadier than a window that grows, and as fast or faster. */
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_HTTP2_BDP_PROBE, .value = {.integer = 0}},
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, .value = {.integer = 4 << 20}},
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_RETRIES, .value = {.integer = 0}},
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, .value = {.integer = 0}},
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, .value = {.integer = 0}},
  };
  static const grpc_channel_args all = {.num_args = sizeof(args) / sizeof(args[0]), .args = args};
  return &all;
}

void bare_post(grpc_call *call, const grpc_op *ops, size_t len, void *tag) {
  grpc_call_error error = grpc_call_start_batch(call, ops, len, tag, NULL);
  if (error != GRPC_CALL_OK)
    bench_die("gRPC refuses a batch: %s", grpc_call_error_to_string(error));
}
