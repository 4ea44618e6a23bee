/* One RPC on the server, whatever its shape: reads, writes, its end, and the order in which things happen to it.
 *
 * Everything that happens to a call is an event: a message arrived, a message was sent, the client has gone, a callback
 * of the engine. All events of a call are handled by the thread of its completion queue, one at a time, in order, with
 * no lock held. So handlers need no locks, may call the engine and gRPC, and are never entered again from inside
 * themselves, also where the engine calls back inline; and the engine's own threads only leave word. */
#ifndef ESP_RPC_CALL_H
#define ESP_RPC_CALL_H

#include <espalier/status.h>

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "engine/engine.h"
#include "rpc/codec.h"
#include "rpc/rpc.h"

struct esp_call;
struct esp_rpc_server;

/* What was asked for is done, so this is no refusal: with UNAVAILABLE the client asks again, as it does when a reply
 * was cut off, and is told. */
#define ESP_REPLY_LOST_TEXT "no memory for the reply to what was done; ask again"

/* What a completion queue hands back. libgrpc's own synchronisation can't be seen by the thread sanitizer, so what was
 * written before the operation began is published by `armed`. */
struct esp_tag {
  void (*complete)(struct esp_tag *tag, bool ok);
  _Atomic bool armed;
};
/* Publishes the tag, to be called right before it is handed to gRPC. */
void esp_tag_arm(struct esp_tag *tag);
/* What a queue's thread does with a tag that came back. */
void esp_tag_complete(struct esp_tag *tag, bool ok);

/* Something that will happen to a call, once, after esp_event_arm. Lives in whatever it belongs to. */
struct esp_event {
  struct esp_tag tag;                      /* of events that gRPC brings */
  struct esp_call *call;                   /* ref'd from arm until it was handled; NULL while not armed */
  void (*handle)(struct esp_event *event); /* may free or arm the event again */
  struct esp_event *next;                  /* in the call's queue */
  bool queued;                             /* in the call's queue; under its mutex */
  bool ok;                                 /* what gRPC said */
};

/* To be called before whatever leads to the event is begun, by the call's handler or creator. */
void esp_event_arm(struct esp_event *event, struct esp_call *call, void (*handle)(struct esp_event *event));
/* The event happened. Any thread; what it wrote before is seen by the handler. */
void esp_event_post(struct esp_event *event);
/* The event won't happen, or is not wanted though it did: it is not handled any more. By the call's handler. Of one
 * that is not armed: nothing. */
void esp_event_cancel(struct esp_event *event);

/* What a method does. All of it runs as handlers of events do. Those that are NULL do nothing, except where it says
 * otherwise. */
struct esp_method {
  const char *path;    /* "/espalier.v1.Admin/Apply" */
  size_t state_size;   /* of call->state, zeroed */
  bool is_eager;       /* initial metadata is sent at once, since replies may be long in coming */
  bool answers_always; /* soon, a client that has gone, too: it hears of the close with the status only */
  void (*message)(struct esp_call *call);    /* call->spans is a message, until esp_call_read. NULL: not built */
  void (*half_close)(struct esp_call *call); /* the client has sent everything. NULL: one message was expected */
  void (*writable)(struct esp_call *call);   /* all that was written has been sent */
  void (*drain)(struct esp_call *call);      /* the server is shutting down: a call with nothing under way ends */
  void (*closed)(struct esp_call *call);  /* the client is gone, or has its status; once, and nothing above after it */
  void (*release)(struct esp_call *call); /* the last: frees what state owns. No event is armed any more */
};
/* NULL: there is no such method. */
const struct esp_method *esp_method_find(const char *path, size_t len);

/*  free slot --accepted--> OPEN --esp_call_finish--> FINISHED --writes, then status sent--+
 *                           |                            |                                v
 *                           +------ the client is gone --+----------------------------> CLOSED --last event--> freed
 *
 * OPEN: reads and writes. FINISHED: reads stop; what was written is still sent. CLOSED: nothing is read or sent; events
 * that the engine owes are waited for. */
struct esp_call {
  struct esp_rpc_server *server;
  struct esp_engine *engine;
  const struct esp_method *method; /* set once it is accepted */
  void *state;                     /* the method's */
  struct esp_call *live_prev;      /* the server's list of accepted calls; under its mutex */
  struct esp_call *live_next;
  uint64_t number;   /* of accepted calls, from 1 */
  int connection;    /* the number of its socket; -1: unknown */
  bool is_beyond;    /* there are more than --max-streams on its connection: it is refused */
  bool is_early;     /* under the server's mutex: it was accepted before the shutdown */
  bool is_drained;   /* likewise: it has been told of the shutdown */
  bool is_cancelled; /* likewise: gRPC was told to end it, which must be told once only */

  grpc_call *grpc;              /* NULL until accepted */
  grpc_call_details details;    /* of the accepted call */
  grpc_metadata_array metadata; /* of the accepted call */
  grpc_completion_queue *queue; /* the one that its events come from */
  struct esp_tag accept;        /* of the slot */

  _Atomic uint64_t refs;   /* one an armed event and one for whoever runs */
  pthread_mutex_t mutex;   /* of the queue of events and the two flags */
  struct esp_event *first; /* events to be handled */
  struct esp_event *last;
  bool running;        /* the thread is handling events, and goes on until there are none */
  bool waking;         /* the thread was sent for */
  struct esp_tag wake; /* to send for it */

  struct esp_event recv;  /* the outstanding read */
  struct esp_event send;  /* the outstanding write */
  struct esp_event close; /* the end of the call, as gRPC sees it */
  struct esp_event drain; /* the server's shutdown */
  int close_cancelled;    /* where gRPC writes on close */

  grpc_byte_buffer *incoming; /* the message that is being read or handled */
  struct esp_span *spans;     /* its pieces */
  size_t spans_len;
  size_t spans_capacity;
  uint64_t messages;      /* that arrived */
  _Atomic uint64_t moved; /* messages that arrived or were sent */

  grpc_byte_buffer **writes; /* to be sent, in order, from writes_first on */
  size_t writes_first;
  size_t writes_len; /* end of the list */
  size_t writes_capacity;
  grpc_byte_buffer *sending;         /* in the outstanding write, or NULL */
  _Atomic uint64_t sending_since_ms; /* when it began, 0: none is outstanding */
  bool metadata_sent;                /* initial metadata was handed to gRPC */
  bool status_sent;                  /* so was the status */
  bool wants_message;                /* esp_call_read was called, and the read has not begun */
  bool finished;                     /* esp_call_finish was called */
  bool closed;                       /* the close event came */
  enum esp_code code;                /* the status */
  struct esp_status status;          /* its message */
};

/* A slot for a call to come; NULL without memory. One reference. */
struct esp_call *esp_call_new(struct esp_rpc_server *server, struct esp_engine *engine, grpc_completion_queue *queue);
/* Begins the call that gRPC put into call->grpc and details. It holds itself by references from here on. */
void esp_call_begin(struct esp_call *call);
void esp_call_ref(struct esp_call *call);
void esp_call_unref(struct esp_call *call);
/* Tells the call of the shutdown. Any thread; the caller holds a reference. */
void esp_call_drain(struct esp_call *call);
/* Whether a write has been outstanding since before that time: the client takes nothing. Any thread. */
bool esp_call_is_stalled(const struct esp_call *call, uint64_t since_ms);

/* For handlers. */
/* Lets go of the message and asks for the next one, unless the call has ended. At most one is asked for at a time. */
void esp_call_read(struct esp_call *call);
/* Sends a message after those before it; takes the buffer. Dropped where the call has ended. */
void esp_call_write(struct esp_call *call, grpc_byte_buffer *buffer);
/* Packs and sends a message. */
void esp_call_write_message(struct esp_call *call, const ProtobufCMessage *message);
/* Messages that wait to be sent. */
size_t esp_call_unsent(const struct esp_call *call);
/* Ends the call once all writes were sent. st may be NULL with ESP_OK; only its message is read. The first one counts.
 */
void esp_call_finish(struct esp_call *call, enum esp_code code, const struct esp_status *st);
/* The same with a message of its own. */
void esp_call_fail(struct esp_call *call, enum esp_code code, const char *format, ...) ESP_PRINTF(3, 4);
/* Nothing is to be done for this call any more but to let go. */
bool esp_call_is_over(const struct esp_call *call);

/* Where the client calls from, as esp_listen_peer prints it, cut to the room that there is. */
void esp_call_peer(const struct esp_call *call, char *ret, size_t size);

/* For methods with one request: decodes it and refuses a tree other than the one, where it names one. On failure the
 * call is finished and false returned. */
bool esp_call_decode(struct esp_call *call, const ProtobufCMessageDescriptor *type, struct esp_decoded *ret);
/* Refuses the name of a tree, since there is one per server for now. NULL and "" are fine. */
enum esp_code esp_tree_check(const char *tree, struct esp_status *st) ESP_WARN_UNUSED;

/* What the server was started with (without `listen`). */
const struct esp_rpc_options *esp_rpc_server_options(const struct esp_rpc_server *server);

struct esp_rpc_stat {
  uint64_t connections; /* open */
  uint64_t connections_max;
  uint64_t connections_refused; /* since the start */
  uint64_t streams;             /* calls that were accepted and are not freed */
};
/* Any thread. */
void esp_rpc_server_stat(struct esp_rpc_server *server, struct esp_rpc_stat *ret);

/* The server's side of a call's end: takes it off the list, before its grpc_call goes, */
void esp_rpc_server_forget(struct esp_rpc_server *server, struct esp_call *call);
/* and counts it off once its memory is gone, after which the server may be gone, too. */
void esp_rpc_server_freed(struct esp_rpc_server *server);

#endif
