/* The client's inside: what its files share. The mutex guards every field below it and is never held over the network,
 * a callback or a wait for lent memory. */
#ifndef ESP_CLIENT_CLIENT_H
#define ESP_CLIENT_CLIENT_H

#include <espalier/admin.h>

#include <pthread.h>
#include <stdatomic.h>

#include "client/src/address.h"
#include "client/src/codec.h"
#include "client/src/leaves.h"
#include "client/src/retry.h"
#include "client/src/transport.h"

#define ESP_WORKER_BYTES_MAX 255
#define ESP_OPEN_MAX 64    /* pushes of one client under way at once */
#define ESP_STREAMS_MAX 64 /* open PushPull streams of one client */

#define ESP_METHOD_WORKER(name) "/espalier.v1.ParameterServer/" name
#define ESP_METHOD_ADMIN(name) "/espalier.v1.Admin/" name

struct esp_stream;
struct esp_lane;

struct esp_client {
  struct esp_address address;            /* of the server */
  char worker[ESP_WORKER_BYTES_MAX + 1]; /* the name for people */
  struct esp_client_options options;     /* its strings are not used after open */
  pthread_t heart;                       /* renews the session's lease */

  atomic_bool closing; /* set with the mutex: the library's threads are to end, and dials */

  pthread_mutex_t mutex;
  pthread_cond_t changed;   /* one of the following was changed that a thread waits for; on the monotonic clock */
  pthread_cond_t heart_due; /* the heart has something else to do, or to end; a cond of its own, since `changed` comes
                               with each push */
  struct esp_conn *conns[ESP_CHANNELS_MAX]; /* for new calls; NULL: none yet */
  unsigned channel_next;                    /* conns[it % channels] is for the next stream */

  uint64_t session;            /* 0: none yet */
  uint64_t lineage;            /* of the session, or without one of the leaves that were found; 0: none yet */
  uint64_t lease_ms;           /* of the session */
  uint64_t sequence_next;      /* of the session's next push */
  uint64_t in_flight_max;      /* the server's bound on how far apart open sequences may be */
  uint64_t open[ESP_OPEN_MAX]; /* the session's sequences whose pushes have not ended */
  size_t open_len;             /* of open */
  bool joining;                /* a thread is asking for a session */

  struct esp_leaves leaves; /* declared by this client */
  uint64_t leaves_lineage;  /* in which they were declared; not `lineage`: they are of the past */
  uint64_t flags_epoch;     /* the epoch to which the leaves' frozen flags are known */
  uint64_t flags_latest;    /* the latest epoch of which some flags are known */
  uint64_t flags_wanted;    /* the heart is to bring the flags up to this epoch; 0: nothing to do */
  bool refreshing;          /* a thread is asking for flags */

  struct esp_stream *idle; /* open streams that nobody uses, the last used first */
  size_t streams_len;      /* idle ones and those in use */

  struct esp_lane *lanes;     /* one a channel; NULL until the first handle */
  unsigned lane_next;         /* lanes[it % channels] takes the next handle */
  bool refusing;              /* no more handles: the client is being closed */
  size_t handles_len;         /* that have not ended */
  pthread_cond_t ended;       /* a handle has ended */
  struct esp_handle *calling; /* handles that have ended but for their callbacks, the first first */
  struct esp_handle *calling_last;
  pthread_cond_t to_call; /* there is one */
  bool caller_started;    /* the thread `caller` exists */
  pthread_t caller;       /* calls them back */
};

/* On the monotonic clock. */
void esp_cond_init(pthread_cond_t *cond);
/* Waits with the mutex held; false once the deadline has passed. */
bool esp_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ms);
/* Waits for `changed`. */
bool esp_client_wait(struct esp_client *client, uint64_t deadline_ms);
unsigned esp_client_channels(const struct esp_client *client);
/* The deadline and the retries of a call that begins now. */
struct esp_retry esp_client_retry(const struct esp_client *client);
/* A usable connection, the first channel's, opened where there is none; to be unreferenced. CANCELLED while the client
 * is being closed. */
enum esp_code esp_client_connect(struct esp_client *client, uint64_t deadline_ms, struct esp_conn **ret,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* The same, of the channel whose turn it is; gives up shortly after *stop was set. */
enum esp_code esp_client_connect_next(struct esp_client *client, uint64_t deadline_ms, const atomic_bool *stop,
                                      struct esp_conn **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* Takes one message of the answer. What it returns other than ESP_OK ends the call and is its result. */
typedef enum esp_code (*esp_message_handler)(void *data, struct esp_in in, struct esp_status *st);
/* One attempt of a call with one request and any number of answers, of which there must be answers_min at least. */
enum esp_code esp_client_call(struct esp_client *client, const char *method, const struct esp_buf *request,
                              uint64_t deadline_ms, esp_message_handler handler, void *data, size_t answers_min,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Reads answers to the end of the call. */
enum esp_code esp_client_answers(struct esp_call *call, uint64_t deadline_ms, esp_message_handler handler, void *data,
                                 size_t answers_min, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- sessions (session.c) ---- */

struct esp_session {
  uint64_t session;
  uint64_t lineage;
  uint64_t sequence; /* of one push; 0: none taken */
};
enum esp_session_state {
  ESP_SESSION_ALIVE,   /* the server knows the session */
  ESP_SESSION_EXPIRED, /* it forgot it; there is a new one in the same lineage */
  ESP_SESSION_LINEAGE, /* it started anew; there is a new one in another lineage */
};

/* The client's session, joined where there is none. */
enum esp_code esp_session_get(struct esp_client *client, uint64_t deadline_ms, struct esp_session *ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* The same with the next sequence, once fewer than the server's bound are open. To be ended with esp_session_push_end.
 */
enum esp_code esp_session_push_begin(struct esp_client *client, uint64_t deadline_ms, struct esp_session *ret,
                                     struct esp_status *st) ESP_WARN_UNUSED;
/* The same where it takes no waiting; false otherwise. */
bool esp_session_push_try(struct esp_client *client, struct esp_session *ret);
void esp_session_push_end(struct esp_client *client, const struct esp_session *session);
/* The session, where there is one; false otherwise. */
bool esp_session_known(struct esp_client *client, struct esp_session *ret);
/* Asks the server whether it still knows a session that it has refused, and joins anew where it does not. Calls
 * on_lineage. */
enum esp_code esp_session_check(struct esp_client *client, const struct esp_session *session, uint64_t deadline_ms,
                                enum esp_session_state *ret, struct esp_status *st) ESP_WARN_UNUSED;
/* ABORTED, naming both lineages, where ids of leaves_lineage (0: of none) are not the client's leaves any more, or
 * these are of another lineage than its session; *ret_lineage is the client's, 0 for none. */
enum esp_code esp_session_leaves_check(struct esp_client *client, uint64_t leaves_lineage, uint64_t deadline_ms,
                                       uint64_t *ret_lineage, struct esp_status *st) ESP_WARN_UNUSED;
/* ABORTED in the same words, after what on_new_lineage says was done. */
enum esp_code esp_session_fail_lineage(struct esp_client *client, uint64_t lineage_old, uint64_t deadline_ms,
                                       struct esp_status *st);
/* Whether leaves that were found in a lineage are of use: ABORTED where the session is of another. A client without a
 * session is of that lineage from now on. */
enum esp_code esp_session_found(struct esp_client *client, uint64_t lineage, struct esp_status *st) ESP_WARN_UNUSED;
/* Notes that a client without a session, whose leaves are of lineage_old, has met another lineage. Calls on_lineage. */
void esp_session_meet(struct esp_client *client, uint64_t lineage_old, uint64_t lineage_new);
void *esp_session_heart(void *client); /* the thread */
/* Gives the session back, within the deadline or not at all. */
void esp_session_leave(struct esp_client *client, uint64_t deadline_ms);

/* ---- frozen flags (flags.c) ---- */

/* Brings the flags up to an epoch that a reply has named. A failure leaves them as they are, to be brought up by the
 * next reply: they only save work, the server decides. */
void esp_flags_refresh(struct esp_client *client, uint64_t epoch, uint64_t deadline_ms);
/* The same, by the heart, without waiting. */
void esp_flags_want(struct esp_client *client, uint64_t epoch);
/* The flags of leaves that were just declared: everything since epoch 0. */
void esp_flags_reload(struct esp_client *client, uint64_t epoch, uint64_t deadline_ms);
/* Takes the flags of an event, which are at least of this epoch, unless later ones are known; false then. */
bool esp_flags_take(struct esp_client *client, const struct esp_layout_event *event, uint64_t epoch);
/* What the layout's epoch and lineage are, as an event without changes; *ret is to be freed with esp_free. */
enum esp_code esp_layout_now(struct esp_client *client, uint64_t deadline_ms, struct esp_layout_event **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;

/* ---- leaves ---- */

/* Makes leaves known, and takes over what they own; false, and nothing changed, without memory. Those of an older
 * lineage are forgotten here, and only here. */
bool esp_client_learn(struct esp_client *client, uint64_t lineage, const struct esp_leaf_known *leaves, size_t len);

/* ---- declarations (declare.c) ---- */

/* INVALID_ARGUMENT, naming the leaf (the index where it has no path); *ret_bytes is its tensor's. */
enum esp_code esp_leaf_spec_check(const struct esp_leaf_spec *spec, size_t index, uint64_t *ret_bytes,
                                  struct esp_status *st) ESP_WARN_UNUSED;
/* Declares the client's leaves once more, in the lineage of now. True where every leaf has its id again. */
bool esp_declare_again(struct esp_client *client, uint64_t deadline_ms);

/* ---- streams (stream.c) ---- */

/* An open PushPull stream, used by one thread at a time. */
struct esp_stream {
  struct esp_stream *next; /* in the client's list of idle ones */
  struct esp_conn *conn;   /* a reference */
  struct esp_call *call;   /* owned */
};
/* An idle stream, or a new one. */
enum esp_code esp_stream_take(struct esp_client *client, uint64_t deadline_ms, struct esp_stream **ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
void esp_stream_give(struct esp_client *client, struct esp_stream *stream); /* it may be used again */
void esp_stream_drop(struct esp_client *client, struct esp_stream *stream); /* it may not; waits for lent memory */
void esp_stream_drop_idle(struct esp_client *client);                       /* all of them */

/* ---- operators (admin.c) ---- */

/* esp_apply with what is left of a longer call's time. */
enum esp_code esp_apply_within(struct esp_client *client, const struct esp_op *ops, size_t len,
                               const struct esp_apply_options *options, struct esp_retry retry,
                               struct esp_apply_result **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- tensors out (chunks.c) ---- */

/* Cuts tensors into chunks and messages of the usual size. */
struct esp_chunk_writer {
  struct esp_call *call;
  uint64_t deadline_ms;
  size_t payload; /* bytes of tensors in the message being built */
  size_t chunks;  /* in the message being built */
};
struct esp_chunk_name {
  esp_leaf_id leaf;                /* or */
  enum esp_dtype dtype;            /* with a leaf: said in the first chunk; NONE: not said */
  uint64_t index;                  /* in a declaration, or */
  const char *path;                /* for a stage, NULL otherwise */
  const struct esp_tensor *tensor; /* described in the first chunk; with a path only; NULL: not described */
};
/* A whole tensor. Sends messages that are full; the last one is left to the caller. */
enum esp_code esp_chunks_put(struct esp_chunk_writer *writer, const struct esp_chunk_name *name, const void *data,
                             size_t bytes, struct esp_status *st) ESP_WARN_UNUSED;
/* As much of a tensor, from *offset on, as the message being built has room for, and it has some. */
enum esp_code esp_chunks_fill(struct esp_chunk_writer *writer, const struct esp_chunk_name *name, const void *data,
                              size_t bytes, size_t *offset, struct esp_status *st) ESP_WARN_UNUSED;
bool esp_chunks_is_full(const struct esp_chunk_writer *writer);

#endif
