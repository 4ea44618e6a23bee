/* Handles, watches and finding without a server that answers: how they end, and that nothing waits for them that need
 * not. What they do with one is in tests/integration/async. */
#include <espalier/espalier.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/src/client.h"
#include "tests/support/test.h"

#define FOREVER_MS ((uint64_t)3600000)

/* ---- a port on which connecting takes forever: its backlog is full ---- */

#define FILLERS 4

struct tarpit {
  int listener;
  int fillers[FILLERS];
  char target[64];
};

static void tarpit_open(struct tarpit *tarpit) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;
  tarpit->listener = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(tarpit->listener, (struct sockaddr *)&address, len), 0);
  assert_int_equal(getsockname(tarpit->listener, (struct sockaddr *)&address, &len), 0);
  assert_int_equal(listen(tarpit->listener, 0), 0);
  for (size_t i = 0; i < FILLERS; i++) {
    tarpit->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)!connect(tarpit->fillers[i], (struct sockaddr *)&address, len);
  }
  snprintf(tarpit->target, sizeof tarpit->target, "127.0.0.1:%d", ntohs(address.sin_port));
}

static void tarpit_close(struct tarpit *tarpit) {
  for (size_t i = 0; i < FILLERS; i++)
    close(tarpit->fillers[i]);
  close(tarpit->listener);
}

static esp_client *open_client(const char *target, uint64_t deadline_ms) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = target;
  options.deadline_ms = deadline_ms;
  esp_client *client;
  assert_int_equal(esp_client_open(&options, &client, NULL), ESP_OK);
  return client;
}

static float value = 1;
static const struct esp_gradient grad = {1, &value, sizeof value, 0};

static esp_handle *begin(esp_client *client) {
  esp_handle *handle = NULL;
  assert_int_equal(esp_push_begin(client, &grad, 1, NULL, NULL, NULL, &handle, NULL), ESP_OK);
  assert_non_null(handle);
  return handle;
}

/* ---- handles ---- */

static void test_no_handle(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000);
  esp_handle *handle = (esp_handle *)&value;
  struct esp_status st;
  struct esp_gradient nameless = {0, &value, sizeof value, 0};
  assert_int_equal(esp_push_begin(client, &nameless, 1, NULL, NULL, NULL, &handle, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_pull_begin(client, NULL, 0, NULL, NULL, NULL, NULL, &handle, &st), ESP_INVALID_ARGUMENT);
  for (int n = 0; n < 3; n++) { /* the handle, the push's plan, the lanes */
    esp_alloc_fail_at(n);
    assert_int_equal(esp_push_begin(client, &grad, 1, NULL, NULL, NULL, &handle, &st), ESP_RESOURCE_EXHAUSTED);
  }
  assert_ptr_equal(handle, &value);
  esp_client_close(client);
}

static void test_waiting(void **state) {
  (void)state;
  struct tarpit tarpit;
  tarpit_open(&tarpit);
  esp_client *client = open_client(tarpit.target, FOREVER_MS), *other = open_client(tarpit.target, FOREVER_MS);
  esp_handle *handles[4] = {NULL, begin(client), NULL, begin(client)}, *mixed[2] = {begin(other), handles[1]};
  struct esp_status st;
  size_t index = 99;
  assert_int_equal(esp_wait(handles[1], 1, &st), ESP_DEADLINE_EXCEEDED);
  assert_false(esp_handle_is_done(handles[1]));
  assert_int_equal(esp_wait_any(handles, 4, 1, &index, &st), ESP_DEADLINE_EXCEEDED);
  assert_int_equal(esp_wait_any(handles, 1, 1, &index, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_wait_any(mixed, 2, 1, &index, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(index, 99);
  esp_cancel(handles[3]); /* while the first one's dial goes on */
  assert_int_equal(esp_wait_any(handles, 4, UINT64_MAX, &index, &st), ESP_OK);
  assert_int_equal(index, 3);
  assert_int_equal(esp_wait(handles[3], 0, &st), ESP_CANCELLED);
  assert_string_equal(st.message, "the operation was cancelled");
  esp_cancel(handles[1]);
  assert_int_equal(esp_wait(handles[1], UINT64_MAX, NULL), ESP_CANCELLED);
  esp_cancel(handles[1]);
  esp_handle_free(handles[1]);
  esp_handle_free(handles[3]);
  esp_handle_free(mixed[0]);
  esp_handle_free(NULL);
  esp_client_close(client);
  esp_client_close(other);
  tarpit_close(&tarpit);
}

static void test_deadline(void **state) {
  (void)state;
  struct tarpit tarpit;
  tarpit_open(&tarpit);
  esp_client *client = open_client(tarpit.target, 100);
  esp_handle *first = begin(client), *second = begin(client);
  struct esp_status st;
  assert_int_equal(esp_wait(first, UINT64_MAX, &st), ESP_UNAVAILABLE);
  assert_non_null(strstr(st.message, "timed out"));
  enum esp_code code = esp_wait(second, UINT64_MAX, &st);
  assert_true(code == ESP_UNAVAILABLE || code == ESP_DEADLINE_EXCEEDED);
  esp_handle_free(first);
  esp_handle_free(second);
  esp_client_close(client);
  tarpit_close(&tarpit);
}

/* In the middle of a dial; and the handles are the caller's still. */
static void test_closing(void **state) {
  (void)state;
  struct tarpit tarpit;
  tarpit_open(&tarpit);
  esp_client *client = open_client(tarpit.target, FOREVER_MS);
  esp_handle *handles[3];
  for (size_t i = 0; i < 3; i++)
    handles[i] = begin(client);
  esp_client_close(client);
  size_t index;
  assert_int_equal(esp_wait_any(handles, 3, 0, &index, NULL), ESP_OK);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(esp_wait(handles[i], 0, NULL), ESP_CANCELLED);
    esp_handle_free(handles[i]);
  }
  tarpit_close(&tarpit);
}

/* ---- callbacks ---- */

struct told {
  esp_client *client;
  sem_t gate; /* the first callback waits for it */
  unsigned calls;
  enum esp_code begun; /* of an operation begun in a callback */
};

static void on_end(void *data, esp_handle *handle, enum esp_code code, const struct esp_status *st) {
  struct told *told = data;
  assert_int_equal(code, ESP_CANCELLED);
  assert_int_equal(st->code, ESP_CANCELLED);
  assert_false(esp_handle_is_done(handle));
  if (told->calls++ == 0) {
    while (sem_wait(&told->gate) != 0) {
    }
    esp_handle *next;
    told->begun = esp_push_begin(told->client, &grad, 1, NULL, NULL, NULL, &next, NULL);
    if (told->begun == ESP_OK)
      esp_handle_free(next);
  }
  esp_handle_free(handle);
}

static void begin_told(struct told *told) {
  esp_handle *handle;
  assert_int_equal(esp_push_begin(told->client, &grad, 1, on_end, told, NULL, &handle, NULL), ESP_OK);
  esp_cancel(handle);
}

/* They free their handles, one begins another operation, and closing waits for all of them. */
static void test_callbacks(void **state) {
  (void)state;
  struct told told = {.client = open_client("127.0.0.1:1", FOREVER_MS), .begun = ESP_UNKNOWN};
  assert_int_equal(sem_init(&told.gate, 0, 0), 0);
  for (int i = 0; i < 10; i++)
    begin_told(&told);
  assert_int_equal(sem_post(&told.gate), 0);
  esp_client_close(told.client);
  assert_int_equal(told.calls, 10);
  assert_true(told.begun == ESP_OK || told.begun == ESP_CANCELLED); /* the client was being closed already */
  sem_destroy(&told.gate);
}

/* ---- watches, finding ---- */

static void test_watch_without_a_server(void **state) {
  (void)state;
  struct tarpit tarpit;
  tarpit_open(&tarpit);
  esp_client *client = open_client(tarpit.target, FOREVER_MS);
  esp_watch *watch;
  const struct esp_layout_event *event;
  assert_int_equal(esp_watch_open(client, 0, NULL, NULL, &watch, NULL), ESP_OK);
  assert_int_equal(esp_watch_next(watch, 1, &event, NULL), ESP_DEADLINE_EXCEEDED);
  esp_watch_close(watch); /* in the middle of a dial */
  esp_watch_close(NULL);
  esp_client_close(client);
  client = open_client(tarpit.target, 50);
  assert_int_equal(esp_watch_open(client, ESP_WATCH_NOW, NULL, NULL, &watch, NULL), ESP_UNAVAILABLE);
  esp_alloc_fail_at(0);
  assert_int_equal(esp_watch_open(client, 0, NULL, NULL, &watch, NULL), ESP_RESOURCE_EXHAUSTED);
  esp_client_close(client);
  tarpit_close(&tarpit);
}

static void test_find_arguments(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000);
  const char *const paths[3] = {"a", "", NULL};
  esp_leaf_id ids[3] = {7, 7, 7};
  struct esp_status st;
  assert_int_equal(esp_find(client, paths, 0, ids, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_find(client, paths, 2, ids, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "path 1 is empty");
  assert_int_equal(esp_find(client, paths + 2, 1, ids, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_find(client, paths, 1, ids, &st), ESP_UNAVAILABLE);
  assert_int_equal(ids[0], 7);
  esp_client_close(client);
}

/* ---- flags of several sources ---- */

static void test_flags_go_forward_only(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000);
  struct esp_leaf_known leaf = {.id = 5, .path = esp_strdup("a")};
  assert_true(esp_client_learn(client, 9, &leaf, 1));
  struct esp_layout_change change = {.leaf = 5, .path = "", .frozen = true};
  struct esp_layout_event event = {.epoch = 4, .lineage = 9, .changes_len = 1, .changes = &change};
  assert_true(esp_flags_take(client, &event, 4));
  assert_true(esp_leaf_is_frozen(client, 5));
  change.frozen = false;
  assert_false(esp_flags_take(client, &event, 3)); /* overtaken */
  assert_true(esp_leaf_is_frozen(client, 5));
  event.lineage = 10;
  assert_false(esp_flags_take(client, &event, 5)); /* of another tree */
  assert_true(esp_leaf_is_frozen(client, 5));
  event.lineage = 9;
  assert_true(esp_flags_take(client, &event, 5));
  assert_false(esp_leaf_is_frozen(client, 5));
  esp_client_close(client);
}

/* Leaves of another lineage take the place of those that are known; a failure changes nothing. */
static void test_learning(void **state) {
  (void)state;
  esp_client *client = open_client("127.0.0.1:1", 1000);
  struct esp_leaf_known first = {.id = 5, .path = esp_strdup("a"), .frozen = true};
  struct esp_leaf_known second = {.id = 6, .path = esp_strdup("b"), .frozen = true};
  struct esp_leaf_known third = {.id = 7, .path = esp_strdup("c"), .frozen = true};
  assert_true(esp_client_learn(client, 9, &first, 1));
  assert_true(esp_client_learn(client, 9, &second, 1));
  assert_true(esp_leaf_is_frozen(client, 5) && esp_leaf_is_frozen(client, 6));
  esp_alloc_fail_at(0);
  assert_false(esp_client_learn(client, 10, &third, 1));
  assert_true(esp_leaf_is_frozen(client, 5) && esp_leaf_is_frozen(client, 6));
  assert_true(esp_client_learn(client, 10, &third, 1));
  assert_false(esp_leaf_is_frozen(client, 5) || esp_leaf_is_frozen(client, 6));
  assert_true(esp_leaf_is_frozen(client, 7));
  esp_client_close(client);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_no_handle),      ESP_TEST(test_waiting),
                                     ESP_TEST(test_deadline),       ESP_TEST(test_closing),
                                     ESP_TEST(test_callbacks),      ESP_TEST(test_watch_without_a_server),
                                     ESP_TEST(test_find_arguments), ESP_TEST(test_flags_go_forward_only),
                                     ESP_TEST(test_learning)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
