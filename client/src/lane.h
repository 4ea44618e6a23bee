/* Operations that nobody waits for: a lane has a thread, and carries out handles in the order in which they were given
 * to it, all on one stream, without waiting for one's answer before the next is sent. One lane a channel. */
#ifndef ESP_CLIENT_LANE_H
#define ESP_CLIENT_LANE_H

#include "client/src/exchange.h"

/*   WAITING --> SENT, perhaps by half --answered--> ENDING --> [its callback] --> done
 *      ^          |
 *      '----------'  the stream failed, and there is to be another attempt
 *
 * A WAITING handle may be taken out of its lane by anybody, with the mutex. A SENT one is touched by the lane's thread
 * alone. */
enum esp_handle_state { ESP_HANDLE_WAITING, ESP_HANDLE_SENT, ESP_HANDLE_ENDING };

struct esp_handle {
  struct esp_exchange ex;
  struct esp_lane *lane;
  struct esp_push_result *ret_push; /* the caller's; NULL: not wanted */
  struct esp_pull_result *ret_pull; /* likewise */
  esp_handle_callback callback;     /* NULL: none */
  void *data;                       /* the callback's */

  /* With the client's mutex. */
  struct esp_handle *next; /* in the lane, or among those to be called back */
  enum esp_handle_state state;
  bool cancelled; /* a SENT one is to end */
  bool called;    /* the callback is running */
  bool abandoned; /* esp_handle_free was called in the callback */

  enum esp_code code;   /* how it ended */
  struct esp_status st; /* likewise */
  atomic_bool done;     /* nothing of the library refers to it any more */
};

struct esp_lane {
  struct esp_client *client;
  pthread_t thread;
  bool started;                /* thread exists */
  struct esp_session reserved; /* the thread's: a sequence for the next push to be sent; 0: none */
  unsigned failures;           /* the thread's: attempts that have failed since the last answer */

  /* With the client's mutex. */
  pthread_cond_t work;      /* there is a handle, or the client is being closed */
  struct esp_handle *first; /* in their order; the SENT ones come first */
  struct esp_handle *last;
  size_t sent_len;           /* SENT ones */
  bool cancelling;           /* some of them are cancelled */
  struct esp_stream *stream; /* on which they were sent; NULL: none */
};

/* Gives a handle to a lane; starts threads where they are missing. *ret is set before anything becomes of it.
 * RESOURCE_EXHAUSTED; CANCELLED while the client is being closed. */
enum esp_code esp_lanes_give(struct esp_client *client, struct esp_handle *handle, struct esp_handle **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* Ends a handle that is WAITING, and asks the lane to end a SENT one. */
void esp_lane_cancel(struct esp_handle *handle);
/* Cancels all handles and takes no more; waits until they have ended, or the deadline. */
void esp_lanes_cancel(struct esp_client *client, uint64_t deadline_ms);
/* Waits until all handles have ended, and ends the threads. `closing` was set before. */
void esp_lanes_join(struct esp_client *client);

/* ---- handle.c ---- */

/* Ends a handle that is out of its lane. */
void esp_handle_end(struct esp_handle *handle, enum esp_code code);
/* The thread that calls back. */
void *esp_handle_caller(void *client);

#endif
