/* One operation of the user's, a push, a pull, or both: what is sent, and what the answers mean. Who drives it, and how
 * often, is push.c's (the calling thread) and lane.c's (a thread of the library). Used by one thread at a time. */
#ifndef ESP_CLIENT_EXCHANGE_H
#define ESP_CLIENT_EXCHANGE_H

#include "client/src/client.h"

struct esp_push {
  const struct esp_gradient *grads; /* the caller's; NULL and 0 for none */
  size_t len;                       /* of grads */
  bool *skip;                       /* one a gradient: known to be frozen, not sent; owned */
  uint64_t skipped;                 /* of them */
  uint64_t total_bytes;             /* of those that are sent */
  struct esp_session session;       /* with the sequence; that is 0 until it is taken */
  unsigned sends;                   /* attempts that have sent something under this sequence */
  bool head_sent;                   /* in this attempt */
  size_t at;                        /* the gradient that is to be sent next */
  size_t offset;                    /* its first byte that was not sent */
  bool done;                        /* the reply is there */
  struct esp_push_result result;    /* once done */
};

struct esp_pull {
  const struct esp_weight *weights; /* the caller's */
  size_t len;                       /* of weights */
  bool consistent;                  /* all in one request, at one commit */
  struct esp_have *have;            /* one a weight, the caller's; NULL: not a delta pull */
  const struct esp_rows *rows;      /* likewise; NULL: all in one piece */
  uint64_t have_lineage;            /* of those that this attempt tells the server of; 0: none */
  size_t asked;                     /* weights whose request was sent in this attempt */
  size_t answered;                  /* weights whose request was answered */
  size_t at;                        /* the weight that is due */
  uint64_t filled;                  /* bytes of it that are there */
  uint64_t lineage;                 /* that the answer must be of; 0: any */
  uint64_t lineage_met;             /* another one, that it was of */
  bool has_head;                    /* result is there */
  struct esp_pull_result result;    /* of the first request */
  bool done;                        /* all weights are there */
};

struct esp_exchange {
  struct esp_client *client;
  bool pushes;             /* there is a push */
  bool pulls;              /* there is a pull */
  struct esp_push push;    /* where it pushes */
  struct esp_pull pull;    /* where it pulls */
  uint64_t leaves_lineage; /* of the leaves' ids; 0: none are known */
  struct esp_retry retry;  /* of all attempts */
  bool asked;              /* the server was, in this attempt */
  struct esp_loans loans;  /* of the gradients */
};

void esp_exchange_set_options(struct esp_exchange *ex, const struct esp_pull_options *options); /* NULL is fine */
/* Checks the arguments and what is known of the leaves; INVALID_ARGUMENT. To be ended with esp_exchange_done in any
 * case. The struct is zeroed but for client, pushes, pulls, the callers' arrays and `consistent`. */
enum esp_code esp_exchange_plan(struct esp_exchange *ex, struct esp_status *st) ESP_WARN_UNUSED;
void esp_exchange_done(struct esp_exchange *ex);

/* Begins an attempt, once the push has its sequence; ABORTED where the leaves are of another lineage than the session.
 */
enum esp_code esp_exchange_start(struct esp_exchange *ex, struct esp_status *st) ESP_WARN_UNUSED;
/* Sends the next message, after the one before has left; until esp_exchange_is_sent. */
enum esp_code esp_exchange_send(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) ESP_WARN_UNUSED;
bool esp_exchange_is_sent(const struct esp_exchange *ex);
/* Receives the next message, waiting for it until the deadline, and takes it; until esp_exchange_is_answered. */
enum esp_code esp_exchange_receive(struct esp_exchange *ex, struct esp_call *call,
                                   struct esp_status *st) ESP_WARN_UNUSED;
bool esp_exchange_is_answered(const struct esp_exchange *ex);
/* Why an attempt that failed with this code did; may ask the server, and calls on_lineage. ESP_OK: try again at once,
 * with a new sequence; otherwise the code that it failed with, for the reason that st says then: UNAVAILABLE where it
 * is to be tried again as after a cut. */
enum esp_code esp_exchange_recover(struct esp_exchange *ex, enum esp_code code, struct esp_status *st) ESP_WARN_UNUSED;

#endif
