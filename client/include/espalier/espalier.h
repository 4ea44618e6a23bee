/* libespalier: the client library of Espalier, a parameter server. docs/client.md has a worker in 30 lines.
 * This header is a worker's; espalier/admin.h beside it has what operators and their tools call.
 *
 * Arguments come in one order: the object, inputs (a length right after its array), callback and its data, ret_*
 * outputs, the status last. Outputs are untouched on failure, except where a function says otherwise. Every function
 * that can fail returns an enum esp_code; the optional struct esp_status gets the sentence.
 *
 * Threads: any function may be called from any thread on the same client, esp_client_close excepted (nothing else may
 * be running, nor begin). Every call that talks to the server blocks until it is done or the client's deadline has
 * passed, whatever happens to the server or the network; those whose names end in _begin do not, and give a handle to
 * wait for. The library starts one thread of its own per client, which renews the session's lease, and others with the
 * first handle and with each watch. Do not fork() after esp_client_open (gRPC forbids it).
 *
 * Memory: gradients are sent from the caller's memory, large ones without a copy; all pointers are borrowed until the
 * call returns, or its handle has ended.
 * A program that moves large tensors should call mallopt(M_MMAP_THRESHOLD, 32 MiB), (M_TRIM_THRESHOLD, 1 GiB),
 * (M_TOP_PAD, 64 MiB) first in main: gRPC's buffers are otherwise returned to the kernel after each message. */
#ifndef ESPALIER_H
#define ESPALIER_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct esp_client esp_client; /* a connection to one server, with at most one session */
typedef uint64_t esp_leaf_id;         /* names a leaf in one lineage of a server; never 0 */

#define ESP_LEAF_RANK_MAX 8

/* The library's version, as "0.1.0". Static. */
const char *esp_version(void);

/* ---- open and close ---- */

/* The server started anew and lost commits: the tree that this client declared is gone or went back. Called at most
 * once for each new lineage, from the thread whose call found out (of a handle: a thread of the library), before that
 * call ends with ESP_ABORTED. It must not call the client. */
typedef void (*esp_lineage_callback)(void *data, uint64_t lineage_old, uint64_t lineage_new);

/* What becomes of this client's leaves on a server with a new lineage. Either way on_lineage is called, and the calls
 * and handles that were begun before fail with ESP_ABORTED. */
enum esp_lineage_policy {
  /* Pushes and pulls go on failing with ESP_ABORTED until the caller has called esp_declare again. */
  ESP_LINEAGE_FAIL = 0,
  /* The library declares the same leaves again, in the order of their ids, as they were first declared: their first
   * values, where no other worker was faster. Calls that begin after the one that failed go on with the same ids. Where
   * the server gave a leaf another id, or can't be reached, it is as with ESP_LINEAGE_FAIL, and tried again by the next
   * call. A client with this policy can't declare leaves with ESP_VALUE, whose values the library does not keep, nor a
   * tag or a group of a node. */
  ESP_LINEAGE_REDECLARE,
};

struct esp_client_options {
  const char *target;              /* "127.0.0.1:7433", "unix:/path"; NULL: $ESPALIER_SERVER, else 127.0.0.1:7433 */
  const char *worker;              /* a name for people, 255 bytes at most; NULL: host and process id */
  uint64_t deadline_ms;            /* of each call, retries included; default 30,000 */
  uint64_t backoff_ms;             /* before the first retry; doubles with each, with jitter; default 20 */
  uint64_t backoff_ms_max;         /* default 1,000 */
  unsigned attempts_max;           /* sends of one call, the first included; 0 (the default): until the deadline */
  esp_lineage_callback on_lineage; /* NULL: none */
  void *on_lineage_data;
  enum esp_lineage_policy on_new_lineage; /* default ESP_LINEAGE_FAIL */
  unsigned channels;      /* connections, ESP_CHANNELS_MAX at most, opened as calls need them; 0 (the default): 1 */
  unsigned in_flight_max; /* operations of handles that are sent and not answered, for each channel; those begun beyond
                             it wait; 0 (the default): 64, which is also the most */
};

#define ESP_CHANNELS_MAX 16
#define ESP_CLIENT_OPTIONS_INIT                                                                                        \
  { NULL, NULL, 30000, 20, 1000, 0, NULL, NULL, ESP_LINEAGE_FAIL, 0, 0 }

/* Makes a client; NULL options are the defaults. Does not connect: the first call does (esp_ping to find out at once).
 * INVALID_ARGUMENT for options that make no sense, RESOURCE_EXHAUSTED without memory. Strings are copied. Close it with
 * esp_client_close. */
enum esp_code esp_client_open(const struct esp_client_options *options, esp_client **ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Cancels every handle that has not ended and waits until all have and their callbacks have returned; leaves the
 * session where there is one (it waits for the answer for at most a second); and frees the client. Handles stay the
 * caller's to free, also afterwards; watches are closed before. Not from a callback. NULL is fine. */
void esp_client_close(esp_client *client);
/* Waits until the server answers, within the deadline; UNAVAILABLE or DEADLINE_EXCEEDED otherwise. Starts no session.
 */
enum esp_code esp_ping(esp_client *client, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- a worker's calls ---- */

/* The values are the wire's. bf16 and f16 parameters are not built yet (UNIMPLEMENTED). */
enum esp_leaf_dtype { ESP_F32 = 1, ESP_F64 = 2, ESP_BF16 = 3, ESP_F16 = 4 };
enum esp_leaf_kind { ESP_TRAINED = 1, ESP_BUFFER = 2 };
enum esp_leaf_init { ESP_ZEROS = 0, ESP_CONSTANT, ESP_UNIFORM, ESP_NORMAL, ESP_VALUE };

/* One leaf to declare. Zero the struct, then set what is needed. */
struct esp_leaf_spec {
  const char *path;                  /* components joined by dots */
  uint64_t shape[ESP_LEAF_RANK_MAX]; /* row-major; the first `rank` count, none may be 0 */
  unsigned rank;                     /* 0: a scalar */
  enum esp_leaf_dtype dtype;
  enum esp_leaf_kind kind; /* 0 is ESP_TRAINED */
  const char *tag;         /* the layer's type; NULL for none */
  const char *group;       /* the optimizer group; NULL: the nearest enclosing node's, in the end `default` */
  bool frozen;             /* born frozen */
  enum esp_leaf_init init; /* the first value, of a leaf that is not there yet */
  double a;                /* ESP_CONSTANT: the constant; ESP_UNIFORM: low; ESP_NORMAL: mean */
  double b;                /* ESP_UNIFORM: high; ESP_NORMAL: stddev */
  uint64_t seed;           /* of ESP_UNIFORM and ESP_NORMAL: the same seed gives the same bits */
  const void *value;       /* ESP_VALUE: the tensor's bytes */
  const char *alias_of; /* born tied to this leaf, of the tree or of this declaration, whose value it then has: init is
                           passed over, and may not be ESP_VALUE; NULL for none */
  bool transposed;      /* with alias_of: it sees that leaf's tensor transposed; both of rank 2 */
  bool detached;        /* born detached: gradients that come through this leaf are dropped, its parameter is stepped by
                           those of other leaves that are tied to it */
};

/* Declares leaves, all or none, in one transaction. Those that are there already with the same shape, dtype and kind
 * are joined: nothing of them changes, their value too. ret_leaves gets len ids. The first declaration starts the
 * session. INVALID_ARGUMENT names the leaf and both sides of a disagreement; UNIMPLEMENTED; RESOURCE_EXHAUSTED (memory,
 * --max-staged); ABORTED: the server has a new lineage (see on_lineage). */
enum esp_code esp_declare(esp_client *client, const struct esp_leaf_spec *leaves, size_t len, esp_leaf_id *ret_leaves,
                          struct esp_status *st) ESP_WARN_UNUSED;

/* An inner node of the tree and what holds for everything below it. Zero the struct, then set what is needed. */
struct esp_node_spec {
  const char *path;  /* "" is the root */
  const char *tag;   /* the layer's type, for tag: selectors; NULL for none */
  const char *group; /* the optimizer group, also of leaves that are declared later; NULL: no assignment */
  bool frozen;       /* leaves of this declaration below the node are born frozen: what this worker never trains */
  bool detached;     /* likewise detached */
};

/* Zero what is not used. */
struct esp_declare_options {
  const struct esp_node_spec *nodes;
  size_t nodes_len;
};

/* The same with options, which may be NULL. What is said of a node whose leaves are all there already holds for group
 * and tag, and changes no flag. INVALID_ARGUMENT names the node. */
enum esp_code esp_declare_with(esp_client *client, const struct esp_leaf_spec *leaves, size_t len,
                               const struct esp_declare_options *options, esp_leaf_id *ret_leaves,
                               struct esp_status *st) ESP_WARN_UNUSED;

/* One leaf's gradient: bytes is the whole tensor's, in dtype, row-major. A leaf of ESP_F32 takes ESP_BF16 and ESP_F16
 * too, at half the bytes: it is stepped as by the floats that they widen to. */
struct esp_gradient {
  esp_leaf_id leaf;
  const void *data;
  size_t bytes;
  enum esp_leaf_dtype dtype; /* 0: the leaf's */
};

/* What became of a push. */
struct esp_push_result {
  uint64_t commit;  /* its place in the server's order */
  uint64_t epoch;   /* of the layout that it met */
  uint64_t applied; /* leaves that were stepped */
  uint64_t
      frozen; /* leaves dropped because they are frozen, those included that the library knew of and did not send */
  uint64_t detached; /* leaves dropped because they are detached */
  uint64_t absent;   /* trained leaves of the tree that this push did not name */
  uint64_t removed;  /* leaves that were removed meanwhile */
  bool skipped;      /* the server skips non-finite pushes, and this was one */
  bool replayed;     /* the answer came to a retry */
};

/* Pushes gradients as one unit: applied as a whole, once, or not at all; retries included. Returns when it is applied.
 * ret may be NULL. INVALID_ARGUMENT names the leaf: wrong bytes or dtype, a leaf named twice, a buffer, a non-finite
 * gradient; UNIMPLEMENTED: a narrower dtype for an ESP_F64 leaf;
 * NOT_FOUND: no such leaf; RESOURCE_EXHAUSTED: larger than the server's --max-staged, or no memory here;
 * DEADLINE_EXCEEDED, UNAVAILABLE, or no memory for the server's answer (the message says so): it may or may not have
 * been applied, and the next push tells nothing of it; ABORTED: new lineage, nothing was applied
 * to the new one; FAILED_PRECONDITION: the session expired between two sends of this push, and the first may have been
 * applied. A push of no leaf is a commit that steps nothing. A frozen leaf is no error. */
enum esp_code esp_push(esp_client *client, const struct esp_gradient *grads, size_t len, struct esp_push_result *ret,
                       struct esp_status *st) ESP_WARN_UNUSED;

/* One leaf's value, to be written to data: bytes is the whole tensor's size, in dtype. Of a leaf of ESP_F32 the server
 * gives ESP_BF16 and ESP_F16 too, at half the bytes: rounded to nearest, ties to even. */
struct esp_weight {
  esp_leaf_id leaf;
  void *data;
  size_t bytes;
  enum esp_leaf_dtype dtype; /* 0: the leaf's */
};

/* Which value of a leaf the caller's memory holds. Zeroed: none. Pulls read and write it; nobody else need look in,
 * `changed` excepted. */
struct esp_have {
  uint64_t lineage;
  uint64_t parameter;
  uint64_t version;
  uint32_t view;
  uint32_t dtype;
  bool changed; /* the last pull wrote the memory */
};

/* Rows that lie apart in the caller's memory: every `bytes` bytes of the tensor begin `stride` bytes after the ones
 * before, and what is between them is not touched. bytes divides the tensor's, stride is not less. 0 and 0: one piece.
 */
struct esp_rows {
  size_t bytes;
  size_t stride;
};

/* Zero what is not used. The arrays have an element for each weight, or are NULL, and are borrowed like the weights. */
struct esp_pull_options {
  bool consistent;       /* one commit across all leaves, where the server has memory for it (--max-copy-on-write) */
  struct esp_have *have; /* a delta pull: what each weight's data holds already, kept up to date by each pull to it. A
                            leaf of which the server has no other value is not sent, and its data left untouched. The
                            caller zeroes the element when it has overwritten data itself */
  const struct esp_rows *rows; /* how each weight's data lies in memory */
};

struct esp_pull_result {
  uint64_t commit; /* the last commit when the pull began; of a consistent pull: the one that all leaves are of */
  uint64_t epoch;
  uint64_t lineage;
  uint64_t sent;      /* leaves that were written */
  uint64_t unchanged; /* leaves that were not, because data had the server's value (a delta pull) */
};

/* Pulls weights. No tensor is torn; different tensors may be of different commits. Needs no session: a client that only
 * reads gets the ids from esp_find. On failure the memory may be partly written. ret may
 * be NULL. It names one leaf at least (INVALID_ARGUMENT). NOT_FOUND, INVALID_ARGUMENT (bytes is not the tensor's; a
 * leaf named twice; a dtype in which the leaf does not travel), OUT_OF_RANGE (an element is too large for the dtype;
 * the leaf is named), UNIMPLEMENTED (a narrower dtype of an ESP_F64 leaf), DEADLINE_EXCEEDED, UNAVAILABLE, ABORTED. */
enum esp_code esp_pull(esp_client *client, const struct esp_weight *weights, size_t len, struct esp_pull_result *ret,
                       struct esp_status *st) ESP_WARN_UNUSED;
/* The same with options, which may be NULL. After a failure `have` still tells what data holds. RESOURCE_EXHAUSTED: a
 * consistent pull of more than the server's
 * --max-copy-on-write allows; INVALID_ARGUMENT: one of more leaves than a message can name (some 300,000). */
enum esp_code esp_pull_with(esp_client *client, const struct esp_weight *weights, size_t len,
                            const struct esp_pull_options *options, struct esp_pull_result *ret,
                            struct esp_status *st) ESP_WARN_UNUSED;

/* A push, then a pull that sees it, in one round trip. Both or neither result is set. Where the push was applied and
 * the pull then failed for good, the code is the pull's. */
enum esp_code esp_push_pull(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                            const struct esp_weight *weights, size_t weights_len, struct esp_push_result *ret_push,
                            struct esp_pull_result *ret_pull, struct esp_status *st) ESP_WARN_UNUSED;

/* Whether the leaf was frozen when this client last heard of it: with each reply to a push, and at once while a watch
 * is open. A worker may skip computing such a gradient. False for an id that this client neither declared nor found.
 * Does not talk to the server. */
bool esp_leaf_is_frozen(esp_client *client, esp_leaf_id leaf);

/* Looks up leaves that somebody else has declared, by their paths, and makes them known to this client as if it had
 * declared them. Starts no session, so that the client can pull them as a mere reader. ret_leaves gets len ids. One
 * call, of the whole tree's names: meant for a program's start. NOT_FOUND names the first path that is no leaf;
 * INVALID_ARGUMENT; ABORTED: the server has another lineage than the leaves that this client knows by esp_declare.
 * After an ABORTED of a pull it is called again: leaves of the old lineage are forgotten then. */
enum esp_code esp_find(esp_client *client, const char *const *paths, size_t len, esp_leaf_id *ret_leaves,
                       struct esp_status *st) ESP_WARN_UNUSED;

/* ---- the same without waiting ---- */

/* A push, a pull or both, under way. To be freed with esp_handle_free. */
typedef struct esp_handle esp_handle;

/* The operation has ended, with this code and status; lent memory is the caller's again. Called once, from a thread of
 * the library that does nothing else, one callback after the other. It may begin other operations and may free the
 * handle; it must not block for long, because the callbacks of other handles wait behind it. */
typedef void (*esp_handle_callback)(void *data, esp_handle *handle, enum esp_code code, const struct esp_status *st);

/* Begin what esp_push, esp_pull_with and esp_push_pull do, and return without waiting for the network. Arrays,
 * gradients, weights and results are borrowed until the handle has ended. callback and options may be NULL, and
 * ret_push and ret_pull. A failure (INVALID_ARGUMENT for what can be seen at once, RESOURCE_EXHAUSTED, CANCELLED while
 * the client is being closed) gives no handle and calls nothing. The deadline counts from here, time in the queue
 * included.
 *
 * Order: with one channel (the default) what one thread has begun is carried out in that order: pushes are committed in
 * it, also when they are sent again, and a pull sees the pushes before it. One that fails does not hold up those behind
 * it, which are sent again, and applied once. With several channels they are spread over them, and there is no order
 * between handles of different ones: wait for the first where it matters. There is none with the blocking calls either.
 */
enum esp_code esp_push_begin(esp_client *client, const struct esp_gradient *grads, size_t len,
                             esp_handle_callback callback, void *data, struct esp_push_result *ret_push,
                             esp_handle **ret, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_pull_begin(esp_client *client, const struct esp_weight *weights, size_t len,
                             const struct esp_pull_options *options, esp_handle_callback callback, void *data,
                             struct esp_pull_result *ret_pull, esp_handle **ret, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_push_pull_begin(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                                  const struct esp_weight *weights, size_t weights_len,
                                  const struct esp_pull_options *options, esp_handle_callback callback, void *data,
                                  struct esp_push_result *ret_push, struct esp_pull_result *ret_pull, esp_handle **ret,
                                  struct esp_status *st) ESP_WARN_UNUSED;

/* Whether the handle has ended: its callback has returned and its memory is the caller's. Does not block. */
bool esp_handle_is_done(const esp_handle *handle);
/* Waits until the handle has ended, timeout_ms at most (UINT64_MAX: until it has). Returns how it ended, as the
 * blocking call would have; results are set with ESP_OK only. DEADLINE_EXCEEDED of a handle that esp_handle_is_done
 * calls not done is the wait's own, and changes nothing. May be called again, also by several threads; not from a
 * callback. */
enum esp_code esp_wait(esp_handle *handle, uint64_t timeout_ms, struct esp_status *st) ESP_WARN_UNUSED;
/* Waits until one of the handles, all of one client, has ended; *ret_index is the first such. NULLs among them are
 * passed over. ESP_OK says nothing of how it ended: esp_wait does. DEADLINE_EXCEEDED: none has; INVALID_ARGUMENT: no
 * handle was given, or of several clients. */
enum esp_code esp_wait_any(esp_handle *const *handles, size_t len, uint64_t timeout_ms, size_t *ret_index,
                           struct esp_status *st) ESP_WARN_UNUSED;
/* Asks that the handle end soon, with CANCELLED unless it was just ending otherwise. A push may or may not have been
 * applied. What was not sent yet ends at once; what was, as soon as its memory is back, which takes some 200 ms where
 * the network is stuck (the connection is then broken, and others on it are sent again). Does not block. */
void esp_cancel(esp_handle *handle);
/* Frees the handle; cancels it and waits where it has not ended. NULL is fine. In its own callback it is fine too; in
 * another's only after it has ended. */
void esp_handle_free(esp_handle *handle);

/* ---- what changes in the tree ---- */

struct esp_layout_change {
  esp_leaf_id leaf;
  const char *path; /* "" unless the leaf is new or was renamed */
  bool frozen;
  bool detached;
  bool removed;
};
struct esp_layout_event {
  uint64_t epoch; /* up to which everything has been told; where one event is not enough, the earlier one in all but the
                     last */
  uint64_t commit; /* the last one when the layout was looked at */
  uint64_t lineage;
  size_t changes_len;
  const struct esp_layout_change *changes;
};

/* Called from a thread of the watch's own, one event after the other; the event is borrowed for the call. It may call
 * the client, but not close the watch. */
typedef void (*esp_layout_callback)(void *data, const struct esp_layout_event *event);
typedef struct esp_watch esp_watch;
#define ESP_WATCH_NOW UINT64_MAX

/* Follows the tree's layout: what changed after since_epoch (0: the first events have all leaves with their paths;
 * ESP_WATCH_NOW: only what changes from the moment of this call on). What changed since the last event comes as one
 * difference, of several transactions perhaps, in as many events as it takes. With a callback events are handed to it;
 * without one esp_watch_next has them. It connects again by itself, for as long as it takes, and goes on where it was.
 * While it is open esp_leaf_is_frozen follows it at once.
 *
 * A server with a new lineage begins with all leaves, as with since_epoch 0; the events' `lineage` tells.
 *
 * Only ESP_WATCH_NOW talks to the server before it returns (UNAVAILABLE, DEADLINE_EXCEEDED). RESOURCE_EXHAUSTED. To be
 * closed before the client is. */
enum esp_code esp_watch_open(esp_client *client, uint64_t since_epoch, esp_layout_callback callback, void *data,
                             esp_watch **ret, struct esp_status *st) ESP_WARN_UNUSED;
/* The next event, waiting for it for timeout_ms at most; borrowed until the next call. DEADLINE_EXCEEDED: none came.
 * ABORTED, once for each: the server has a new lineage, whose events follow. UNIMPLEMENTED, PERMISSION_DENIED and the
 * like: the server refuses to be watched, and this one has ended. FAILED_PRECONDITION for a watch with a callback. One
 * thread at a time. Where nobody asks for them 64 events wait; then the watch pauses, and goes on where it was. */
enum esp_code esp_watch_next(esp_watch *watch, uint64_t timeout_ms, const struct esp_layout_event **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* Waits until a callback under way has returned. NULL is fine. */
void esp_watch_close(esp_watch *watch);

/* ---- by path ---- */

/* A tensor by its path: *ret_data is allocated (esp_memory_free it). Needs no session. NOT_FOUND with the nearest
 * paths. */
struct esp_tensor {
  enum esp_leaf_dtype dtype;
  uint64_t shape[ESP_LEAF_RANK_MAX];
  unsigned rank;
  void *data;
  size_t bytes;
};
enum esp_code esp_get(esp_client *client, const char *path, struct esp_tensor *ret,
                      struct esp_status *st) ESP_WARN_UNUSED;
void esp_memory_free(void *memory);
/* One row of a tensor: what lies under one index of its first dimension. Points into its data; *ret_bytes (which may be
 * NULL) is the row's size. A scalar is one row. NULL where there is no such row. */
const void *esp_row(const struct esp_tensor *tensor, uint64_t row, size_t *ret_bytes);

#ifdef __cplusplus
}
#endif
#endif
