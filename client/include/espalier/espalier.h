/* libespalier: the client library of Espalier, a parameter server. docs/client.md has a worker in 30 lines.
 *
 * Arguments come in one order: the object, inputs (a length right after its array), callback and its data, ret_*
 * outputs, the status last. Outputs are untouched on failure, except where a function says otherwise. Every function
 * that can fail returns an enum esp_code; the optional struct esp_status gets the sentence.
 *
 * Threads: any function may be called from any thread on the same client, esp_client_close excepted (nothing else may
 * be running, nor begin). Every call that talks to the server blocks until it is done or the client's deadline has
 * passed, whatever happens to the server or the network. The library starts one thread of its own per client, which
 * renews the session's lease. Do not fork() after esp_client_open (gRPC forbids it).
 *
 * Memory: gradients are sent from the caller's memory without a copy; all pointers are borrowed until the call returns.
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
 * once for each new lineage, from the thread whose call found out, before that call returns ESP_ABORTED. It must not
 * call the client. */
typedef void (*esp_lineage_callback)(void *data, uint64_t lineage_old, uint64_t lineage_new);

struct esp_client_options {
  const char *target;              /* "127.0.0.1:7433", "unix:/path"; NULL: $ESPALIER_SERVER, else 127.0.0.1:7433 */
  const char *worker;              /* a name for people, 255 bytes at most; NULL: host and process id */
  uint64_t deadline_ms;            /* of each call, retries included; default 30,000 */
  uint64_t backoff_ms;             /* before the first retry; doubles with each, with jitter; default 20 */
  uint64_t backoff_ms_max;         /* default 1,000 */
  unsigned attempts_max;           /* sends of one call, the first included; 0 (the default): until the deadline */
  esp_lineage_callback on_lineage; /* NULL: none */
  void *on_lineage_data;
};

#define ESP_CLIENT_OPTIONS_INIT                                                                                        \
  { NULL, NULL, 30000, 20, 1000, 0, NULL, NULL }

/* Makes a client; NULL options are the defaults. Does not connect: the first call does (esp_ping to find out at once).
 * INVALID_ARGUMENT for options that make no sense, RESOURCE_EXHAUSTED without memory. Strings are copied. Close it with
 * esp_client_close. */
enum esp_code esp_client_open(const struct esp_client_options *options, esp_client **ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Leaves the session where there is one (it waits for the answer for at most a second) and frees the client. NULL is
 * fine. */
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
};

/* Declares leaves, all or none, in one transaction. Those that are there already with the same shape, dtype and kind
 * are joined: nothing of them changes, their value too. ret_leaves gets len ids. The first declaration starts the
 * session. INVALID_ARGUMENT names the leaf and both sides of a disagreement; UNIMPLEMENTED; RESOURCE_EXHAUSTED (memory,
 * --max-staged); ABORTED: the server has a new lineage (see on_lineage). */
enum esp_code esp_declare(esp_client *client, const struct esp_leaf_spec *leaves, size_t len, esp_leaf_id *ret_leaves,
                          struct esp_status *st) ESP_WARN_UNUSED;

/* One leaf's gradient: bytes is the whole tensor's, in the leaf's dtype, row-major. */
struct esp_gradient {
  esp_leaf_id leaf;
  const void *data;
  size_t bytes;
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
 * ret may be NULL. INVALID_ARGUMENT names the leaf: wrong bytes, a leaf named twice, a buffer, a non-finite gradient;
 * NOT_FOUND: no such leaf; RESOURCE_EXHAUSTED: larger than the server's --max-staged; DEADLINE_EXCEEDED or UNAVAILABLE:
 * it may or may not have been applied, and the next push tells nothing of it; ABORTED: new lineage, nothing was applied
 * to the new one; FAILED_PRECONDITION: the session expired between two sends of this push, and the first may have been
 * applied. A push of no leaf is a commit that steps nothing. A frozen leaf is no error. */
enum esp_code esp_push(esp_client *client, const struct esp_gradient *grads, size_t len, struct esp_push_result *ret,
                       struct esp_status *st) ESP_WARN_UNUSED;

/* One leaf's value, to be written to data: bytes is the whole tensor's size, in the leaf's dtype. */
struct esp_weight {
  esp_leaf_id leaf;
  void *data;
  size_t bytes;
};

struct esp_pull_result {
  uint64_t commit; /* the last commit when the pull began */
  uint64_t epoch;
};

/* Pulls weights. No tensor is torn; different tensors may be of different commits. On failure the memory may be partly
 * written. ret may be NULL. It names one leaf at least (INVALID_ARGUMENT). NOT_FOUND, INVALID_ARGUMENT (bytes is not
 * the tensor's; a leaf named twice), DEADLINE_EXCEEDED, UNAVAILABLE, ABORTED. */
enum esp_code esp_pull(esp_client *client, const struct esp_weight *weights, size_t len, struct esp_pull_result *ret,
                       struct esp_status *st) ESP_WARN_UNUSED;

/* A push, then a pull that sees it, in one round trip. Both or neither result is set. Where the push was applied and
 * the pull then failed for good, the code is the pull's. */
enum esp_code esp_push_pull(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                            const struct esp_weight *weights, size_t weights_len, struct esp_push_result *ret_push,
                            struct esp_pull_result *ret_pull, struct esp_status *st) ESP_WARN_UNUSED;

/* Whether the leaf was frozen when this client last heard of it (with each reply to a push). A worker may skip
 * computing such a gradient. False for an id that this client did not declare. Does not talk to the server. */
bool esp_leaf_is_frozen(esp_client *client, esp_leaf_id leaf);

/* ---- by path: tools and operators ---- */

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

/* Overwrites one leaf's value, also of a frozen one: every later pull has it. dtype and shape must be the leaf's. ret
 * may be NULL. */
struct esp_apply_result;
enum esp_code esp_set(esp_client *client, const char *path, const struct esp_tensor *tensor,
                      struct esp_apply_result **ret, struct esp_status *st) ESP_WARN_UNUSED;

enum esp_op_kind { ESP_OP_FREEZE, ESP_OP_THAW, ESP_OP_SET };

struct esp_op {
  enum esp_op_kind kind;
  const char *selection; /* a path (the node and everything below it) or a pattern of * and ** */
  bool reset_state;      /* thaw, set: start the optimizer afresh */
  uint64_t stage;        /* set: what esp_stage returned */
};

struct esp_apply_options {
  uint64_t if_epoch;   /* ABORTED unless the tree is at this epoch; 0: any */
  bool dry_run;        /* change nothing, return the diff and the epoch for if_epoch */
  uint64_t max_leaves; /* refuse to touch more; 0: no bound */
  const char *reason;  /* for the history; NULL for none */
};

struct esp_apply_change {
  esp_leaf_id leaf; /* 0: not a leaf's */
  const char *path;
  const char *field;
  const char *from;
  const char *to;
  const char *because; /* the selected leaf that this one is tied to, or "" */
};

struct esp_apply_result {
  uint64_t epoch;   /* after it */
  uint64_t commit;  /* its own; 0 where nothing changed, and in a dry run */
  uint64_t matched; /* leaves that the selections matched */
  bool dry_run;
  size_t changes_len;
  const struct esp_apply_change *changes;
  size_t notes_len;
  const char *const *notes;
};

/* Applies operations as one transaction: all or none. When it returns it is true: after a freeze not one bit of the
 * frozen parameters changes. Retried under an idempotency key of its own. options may be NULL; *ret (which may be NULL)
 * is to be freed with esp_apply_result_free. NOT_FOUND with the nearest paths, ABORTED (if_epoch), FAILED_PRECONDITION
 * (max_leaves), INVALID_ARGUMENT, UNIMPLEMENTED. */
enum esp_code esp_apply(esp_client *client, const struct esp_op *ops, size_t len,
                        const struct esp_apply_options *options, struct esp_apply_result **ret,
                        struct esp_status *st) ESP_WARN_UNUSED;
void esp_apply_result_free(struct esp_apply_result *result); /* NULL is fine */

/* Uploads one tensor for ESP_OP_SET. dtype and shape must be the leaf's. */
enum esp_code esp_stage(esp_client *client, const char *path, const struct esp_tensor *tensor, uint64_t *ret_stage,
                        struct esp_status *st) ESP_WARN_UNUSED;

struct esp_leaf_info {
  esp_leaf_id leaf;
  const char *path;
  uint64_t shape[ESP_LEAF_RANK_MAX];
  unsigned rank;
  enum esp_leaf_dtype dtype;
  enum esp_leaf_kind kind;
  const char *group;
  const char *group_assigned; /* "" unless the assigned group is not defined */
  const char *tag;
  const char *tied_to; /* the primary leaf's path, or "" */
  bool frozen;
  bool detached;
  uint64_t steps;
  uint64_t version;
  uint64_t bytes;
  uint64_t state_bytes;
  uint8_t digest[16]; /* where it was asked for */
};

struct esp_group_info {
  const char *name;
  const char *expression;
  uint64_t parameters;
};

struct esp_description {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  size_t leaves_len;
  const struct esp_leaf_info *leaves; /* in path order */
  size_t groups_len;
  const struct esp_group_info *groups;
  uint8_t digest[16]; /* of all selected leaves, where it was asked for */
};

/* Describes the selected leaves; selection NULL or "" is all. with_digest: XXH128 of each parameter's value, states and
 * step count, and of all of them, at one commit. *ret is to be freed with esp_description_free. */
enum esp_code esp_describe(esp_client *client, const char *selection, bool with_digest, struct esp_description **ret,
                           struct esp_status *st) ESP_WARN_UNUSED;
void esp_description_free(struct esp_description *description); /* NULL is fine */

struct esp_server_info {
  char version[32];
  char mode[32];
  char isa[16];
  uint64_t lineage;
  uint64_t epoch;
  uint64_t commit;
  uint64_t uptime_ms;
  uint64_t leaves;
  uint64_t parameters;
  uint64_t elements;
  uint64_t frozen;
  uint64_t sessions;
  uint64_t threads;
  uint64_t memory_parameters;
  uint64_t memory_state;
  uint64_t memory_staged;
  uint64_t memory_staged_max;
  uint64_t memory_copy_on_write;
  uint64_t pushes_applied;
  uint64_t pushes_refused;
  uint64_t pushes_nonfinite;
  uint64_t pulls;
  uint64_t bytes_pushed;
  uint64_t bytes_pulled;
  bool draining;
};
enum esp_code esp_server_info(esp_client *client, struct esp_server_info *ret, struct esp_status *st) ESP_WARN_UNUSED;

#ifdef __cplusplus
}
#endif
#endif
