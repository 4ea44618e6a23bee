/* A pull's messages, made one at a time: what Pull and PushPull have in common. The encoded bytes are a PullResponse
 * and a StreamResponse alike, since those number their fields the same. */
#ifndef ESP_RPC_PULLER_H
#define ESP_RPC_PULLER_H

#include <espalier/v1/parameter_server.pb-c.h>

#include "base/why.h"
#include "engine/engine.h"
#include "rpc/call.h"

/*  begin --> step --> (awaits the header or a pin --> step)... --> wrote a message --writable--> step ... --> is_done
 */
struct esp_puller {
  struct esp_call *call;         /* NULL before begin */
  struct esp_decoded request;    /* owned: the engine borrows from it */
  struct esp_have *have;         /* owned, likewise */
  uint8_t *dtypes;               /* owned, likewise */
  struct esp_pull *pull;         /* owned */
  struct esp_event got;          /* the engine's callback; armed while the header or a pin is awaited */
  pthread_t asker;               /* the thread that asked last */
  bool is_asking;                /* it is inside the engine; its own, as the next */
  bool has_come;                 /* the callback came in there, and nothing was posted */
  struct esp_pull_header header; /* until it was written */
  bool has_header;
  struct esp_pin pin; /* the tensor that is being sent, where has_pin */
  bool has_pin;
  uint64_t offset;      /* in it */
  uint64_t sent;        /* tensors, as a whole */
  uint64_t unchanged;   /* tensors that the client has already */
  struct esp_page page; /* bytes of the message since the last slice */
  grpc_slice *slices;   /* of the message so far */
  size_t slices_len;
  size_t slices_capacity;
  size_t message_len; /* of slices and page */
  bool leads;         /* the message under way begins with an answer that is not the pull's */
  bool is_done;       /* all was written, or why says what went wrong */
  struct esp_why why;
  void (*changed)(struct esp_puller *puller); /* what was awaited came and was dealt with: it may be done now */
};

/* Resolves the request, which lies in `decoded` and is taken over with it in any case. On failure the puller is done
 * with that code. */
void esp_puller_begin(struct esp_puller *puller, struct esp_call *call, struct esp_decoded *decoded,
                      const Espalier__V1__PullRequest *request, void (*changed)(struct esp_puller *puller));
/* Puts another answer before the pull's in its first message; false (and nothing changed) without memory, or where the
 * pull has failed. Before the first step. */
bool esp_puller_lead(struct esp_puller *puller, const ProtobufCMessage *answer);
/* Of a pull that failed: writes that other answer, if it was not. */
void esp_puller_write_lead(struct esp_puller *puller);
/* Goes on until a message was written, a pin has to be waited for, or it is done. To be called after begin and whenever
 * the call is writable. */
void esp_puller_step(struct esp_puller *puller);
/* The client has gone: what it waited for in a queue is waited for no more. */
void esp_puller_close(struct esp_puller *puller);
/* Idempotent; not while a pin is awaited. */
void esp_puller_done(struct esp_puller *puller);

#endif
