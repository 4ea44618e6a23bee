/* What both ends of the bare gRPC stream know. */
#ifndef BENCH_LIMITS_GRPC_H
#define BENCH_LIMITS_GRPC_H

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>

#include "tests/bench/limits.h"
#include "wire/wire.h"

#define BARE_STREAM "/bare.Bare/Stream" /* one byte asks for a pass the other way; any other message is part of one */
#define BARE_UNARY "/bare.Bare/Unary"   /* nothing for nothing */

/* Messages as the library makes them, of one array. */
struct outgoing {
  unsigned char *array; /* of a pass */
  size_t bytes;         /* likewise */
  size_t sent;          /* of the pass under way */
};
void outgoing_init(struct outgoing *outgoing);
/* The next message of a pass; the array is referred to, not copied. */
grpc_byte_buffer *outgoing_next(struct outgoing *outgoing);
/* One byte. */
grpc_byte_buffer *bare_short(void);

const grpc_channel_args *bare_args(void);
/* Posts a batch; it can't fail. */
void bare_post(grpc_call *call, const grpc_op *ops, size_t len, void *tag);

#endif
